"""Data sets by name, all in one form: square images in [-1, 1], labels, class names, a training and a test split."""

import gzip
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gradscope.config import DataConfig
from gradscope.data import sportballs
from gradscope.data.folders import PictureFolder
from gradscope.data.pictures import seen
from gradscope.errors import GradscopeError, one_of

Split = Literal["train", "test"]
HELD_OUT = 20_000
"""Number of SportBalls images in the test split. Their indices follow those of the training split."""
FASHION_MNIST = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Base of all data sets: images ``(channels, size, size)``, float32 in [-1, 1], with the index of their class."""

    classes: tuple[str, ...]

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images ``(n, channels, size, size)`` and labels ``(n,)``, int64."""
        raise NotImplementedError

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        images, labels = self.batch([i])
        return images[0], labels[0]

    def __getitems__(self, index: list[int]) -> list[tuple[Tensor, Tensor]]:
        """The whole batch at once, which torch's DataLoader prefers to single items."""
        return list(zip(*self.batch(index), strict=True))


class SportBalls(Images):
    """`gradscope.data.sportballs` as a data set."""

    classes = sportballs.CLASSES

    def __init__(self, size: int, samples: int, seed: int, split: Split) -> None:
        self.size, self.seed = size, seed
        self.first, self.samples = (0, samples) if split == "train" else (samples, HELD_OUT)

    def __len__(self) -> int:
        return self.samples

    def batch(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        drawn = sportballs.factors(self.seed, self.first + np.asarray(index))
        return torch.from_numpy(sportballs.render(drawn, self.size)) * 2 - 1, torch.from_numpy(drawn.label)


class PaddedArray(Images):
    """Grey images ``(n, height, width)`` in memory, uint8, padded with black to a square."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, size: int, channels: int, classes: tuple[str, ...]
    ) -> None:
        height, width = images.shape[1:]
        if size < max(height, width):
            raise GradscopeError(f"data.size: these images are {height} x {width} pixels, got size {size}")
        top, left = (size - height) // 2, (size - width) // 2
        margins = ((0, 0), (top, size - height - top), (left, size - width - left))
        self.images = torch.from_numpy(np.pad(images, margins))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.channels, self.classes = channels, classes

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(index)
        images = self.images[chosen, None].float() / 127.5 - 1
        return images.expand(-1, self.channels, -1, -1).contiguous(), self.labels[chosen]


class Wrapped(Images):
    """A map-style data set of pictures, resized and cropped to a square. `index` selects pictures."""

    def __init__(self, source: Any, size: int, channels: int, classes: tuple[str, ...], index: Sequence[int]) -> None:
        from torchvision.transforms import v2

        self.source, self.classes, self.index = source, classes, index
        self.transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Grayscale(1) if channels == 1 else v2.RGB(),
                v2.Resize(size, antialias=True),
                v2.CenterCrop(size),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * channels, [0.5] * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        items = [self.source[self.index[i]] for i in index]
        return torch.stack([self.transform(image) for image, _ in items]), torch.tensor([int(y) for _, y in items])


class _Upright:
    """A torchvision data set with its pictures converted by `seen`."""

    def __init__(self, source: Any, name: str) -> None:
        self.source, self.name = source, name

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        image, label = self.source[i]
        return seen(image, f"data: {self.name}[{i}]") if isinstance(image, Image.Image) else image, label


def load(config: DataConfig, split: Split) -> Images:
    """Load a split of the data set that the configuration names.

    Raises
    ------
    GradscopeError
        The name is unknown, or the files are missing or damaged.
    """
    if config.name == "sportballs":
        if config.channels != 3:
            raise GradscopeError(f"data.channels: sportballs has 3 channels, got {config.channels}")
        return SportBalls(config.size, config.samples, config.seed, split)
    if config.name == "fashion_mnist":
        return _fashion_mnist(config, split)
    if config.name == "image_folder":
        return _image_folder(config, split)
    if config.name.startswith("torchvision/"):
        return _torchvision(config, split)
    names = ["sportballs", "fashion_mnist", "image_folder", "torchvision/NAME"]
    raise GradscopeError(f"data.name: unknown data set {config.name!r}; {one_of(config.name, names)}")


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise GradscopeError(f"data.path: {config.name} needs the path of its files")
    path = Path(config.path)
    if not path.is_dir():
        raise GradscopeError(f"data.path: no folder {config.path!r}")
    return path


def _fashion_mnist(config: DataConfig, split: Split) -> Images:
    stem = "train" if split == "train" else "t10k"
    files = [_path(config) / f"{stem}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    images, labels = _idx(files[0], 3), _idx(files[1], 1)
    if len(images) != len(labels):
        raise GradscopeError(f"data.path: {files[0]} has {len(images)} images, {files[1]} {len(labels)} labels")
    return PaddedArray(images, labels, config.size, config.channels, FASHION_MNIST)


def _idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of uint8, plain or gzipped: the bytes 0, 0, 8, dims; `dims` big-endian lengths; the data."""
    for file, opener in ((path.with_name(path.name + ".gz"), gzip.open), (path, open)):
        if file.is_file():
            try:
                with opener(file, "rb") as stream:
                    content = stream.read()
                header = np.frombuffer(content, ">u4", 1 + dims)
                if header[0] != 0x0800 + dims:
                    raise ValueError(f"its first bytes are {content[:4].hex()}")
                return np.frombuffer(content, np.uint8, offset=4 * (1 + dims)).reshape(header[1:].astype(int))
            except (OSError, EOFError, ValueError) as error:
                raise GradscopeError(
                    f"data.path: {file} is not an IDX file of {dims} dimensions of uint8: {error}"
                ) from None
    raise GradscopeError(f"data.path: neither {path}.gz nor {path} exists")


def _image_folder(config: DataConfig, split: Split) -> Images:
    source = PictureFolder(_path(config), "data.path")
    test = range(0, len(source), 10)
    index = list(test) if split == "test" else sorted(set(range(len(source))) - set(test))
    return Wrapped(source, config.size, config.channels, source.classes, index)


def _torchvision(config: DataConfig, split: Split) -> Images:
    from torchvision import datasets

    name = config.name.removeprefix("torchvision/")
    if name not in datasets.__all__:
        raise GradscopeError(f"data.name: torchvision has no data set {name!r}; {one_of(name, datasets.__all__)}")
    kind = getattr(datasets, name)
    options = {"train": split == "train"} if "train" in inspect.signature(kind).parameters else {"split": split}
    path = str(_path(config))
    try:
        source = kind(path, **options)
        int(source[0][1])
    except Exception as error:  # of any type: it comes from the data set's own code
        raise GradscopeError(f"data.path: torchvision's {name} could not be opened at {path}: {error}") from error
    classes = tuple(getattr(source, "classes", ())) or tuple(str(k) for k in sorted({int(y) for _, y in source}))
    return Wrapped(_Upright(source, name), config.size, config.channels, classes, range(len(source)))
