import gzip

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gradscope.config import DataConfig
from gradscope.data import sportballs
from gradscope.data.datasets import FASHION_MNIST, HELD_OUT, load
from gradscope.errors import GradscopeError


def write_idx(path, array, opener=open):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    with opener(path, "wb") as stream:
        stream.write(header + array.tobytes())


@pytest.fixture
def digits():
    """Grey images with a frame of 255, so that a wrong padding shows, and labels, by split."""
    rng = np.random.default_rng(0)
    made = {}
    for split, n in {"train": 12, "test": 5}.items():
        images = rng.integers(1, 255, (n, 28, 28), dtype=np.uint8)
        images[:, [0, -1]] = images[:, :, [0, -1]] = 255
        made[split] = images, rng.integers(10, size=n, dtype=np.uint8)
    return made


@pytest.fixture(params=["plain", "gz"])
def folder(tmp_path, digits, request):
    opener, end = (gzip.open, ".gz") if request.param == "gz" else (open, "")
    for split, stem in {"train": "train", "test": "t10k"}.items():
        images, labels = digits[split]
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte{end}", images, opener)
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte{end}", labels, opener)
    return tmp_path


def test_sportballs_splits_are_disjoint():
    config = DataConfig(name="sportballs", size=16, samples=300, seed=5)
    train, test = load(config, "train"), load(config, "test")
    assert (len(train), len(test)) == (300, HELD_OUT)
    seen = {image.numpy().tobytes() for image in train.batch(range(300))[0]}
    held_out = {image.numpy().tobytes() for image in test.batch(range(300))[0]}
    assert len(seen) == len(held_out) == 300
    assert not seen & held_out


def test_sportballs_items_are_the_drawn_images():
    test = load(DataConfig(name="sportballs", size=16, samples=300, seed=5), "test")
    drawn = sportballs.factors(5, np.array([300 + 7, 300 + 2]))
    images, labels = test.batch([7, 2])
    torch.testing.assert_close(images, torch.from_numpy(sportballs.render(drawn, 16)) * 2 - 1)
    assert labels.tolist() == drawn.label.tolist()
    assert test.classes == ("baseball", "basketball", "soccer ball", "volleyball")
    image, label = test[7]
    assert torch.equal(image, images[0])
    assert label == labels[0]


def test_a_loader_gives_whole_batches():
    data = load(DataConfig(name="sportballs", size=16, samples=10), "train")
    images, labels = next(iter(DataLoader(data, batch_sampler=[[3, 1, 3]])))
    wanted = data.batch([3, 1, 3])
    assert torch.equal(images, wanted[0])
    assert torch.equal(labels, wanted[1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_padded_in_the_centre(folder, digits, channels, split):
    data = load(DataConfig(name="fashion_mnist", path=str(folder), channels=channels), split)
    images, labels = data.batch(range(len(data)))
    raw, wanted = digits[split]
    assert data.classes == FASHION_MNIST
    assert labels.tolist() == wanted.tolist()
    assert images.shape == (len(raw), channels, 32, 32)
    for channel in range(channels):
        inner = images[:, channel, 2:30, 2:30].numpy()
        np.testing.assert_allclose((inner + 1) * 127.5, raw, atol=1e-4)
    margin = torch.ones(32, 32, dtype=bool)
    margin[2:30, 2:30] = False
    assert (images[:, :, margin] == -1).all()


def test_fashion_mnist_at_its_own_size(folder, digits):
    images, _ = load(DataConfig(name="fashion_mnist", path=str(folder), size=28, channels=1), "test").batch([0])
    np.testing.assert_allclose((images[0, 0] + 1) * 127.5, digits["test"][0][0], atol=1e-4)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of 11 images each, 30 x 20 pixels, of one colour each."""
    for name, red in {"a": 0, "b": 200}.items():
        (tmp_path / name).mkdir()
        for i in range(11):
            Image.new("RGB", (30, 20), (red, 10 * i, 255)).save(tmp_path / name / f"{i:02}.png")
    return tmp_path


def test_image_folder(pictures):
    config = DataConfig(name="image_folder", path=str(pictures), size=16)
    train, test = load(config, "train"), load(config, "test")
    assert train.classes == test.classes == ("a", "b")
    assert (len(train), len(test)) == (19, 3)
    colours = {}
    for split, data in {"train": train, "test": test}.items():
        images, labels = data.batch(range(len(data)))
        assert images.shape[1:] == (3, 16, 16)
        flat = images.flatten(2)
        torch.testing.assert_close(flat.amin(dim=2), flat.amax(dim=2))
        pixel = ((images[:, :, 0, 0] + 1) * 127.5).round().int()
        assert (pixel[:, 0] == labels * 200).all()
        assert (pixel[:, 2] == 255).all()
        colours[split] = {(int(p[0]), int(p[1])) for p in pixel}
    assert not colours["train"] & colours["test"]
    assert colours["train"] | colours["test"] == {(red, 10 * i) for red in (0, 200) for i in range(11)}


def test_image_folder_in_grey_is_the_luma(pictures):
    config = DataConfig(name="image_folder", path=str(pictures), size=16, channels=1)
    images, _ = load(config, "test").batch([0])
    assert images.shape == (1, 1, 16, 16)
    torch.testing.assert_close((images + 1) * 127.5, torch.full_like(images, 0.114 * 255), atol=1.0, rtol=0)


def test_pictures_are_resized_and_cropped_in_the_centre(tmp_path):
    (tmp_path / "a").mkdir()
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 255
    Image.fromarray(wide).save(tmp_path / "a" / "wide.png")
    data = load(DataConfig(name="image_folder", path=str(tmp_path), size=16), "test")
    assert (data[0][0] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_torchvision_data_set(tmp_path, digits, channels):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, stem in {"train": "train", "test": "t10k"}.items():
        write_idx(raw / f"{stem}-images-idx3-ubyte", digits[split][0])
        write_idx(raw / f"{stem}-labels-idx1-ubyte", digits[split][1])
    for split in ("train", "test"):
        config = DataConfig(name="torchvision/KMNIST", path=str(tmp_path), size=28, channels=channels)
        data = load(config, split)
        images, labels = data.batch(range(len(data)))
        assert labels.tolist() == digits[split][1].tolist()
        assert len(data.classes) == 10
        assert images.shape == (len(data), channels, 28, 28)
        for channel in range(channels):
            np.testing.assert_allclose((images[:, channel] + 1) * 127.5, digits[split][0], atol=1e-3)


BAD = [
    ({"name": "sportbals"}, r"data\.name: unknown data set 'sportbals'; did you mean 'sportballs'\?"),
    ({"name": "torchvision/KMNST", "path": "."}, r"data\.name: torchvision has no data set 'KMNST'; did you .*KMNIST"),
    ({"name": "sportballs", "channels": 1}, r"data\.channels: sportballs has 3 channels, got 1"),
    ({"name": "fashion_mnist"}, r"data\.path: fashion_mnist needs the path"),
    ({"name": "fashion_mnist", "path": "nowhere"}, r"data\.path: no folder 'nowhere'"),
    ({"name": "fashion_mnist", "path": "."}, r"data\.path: neither train-images-idx3-ubyte\.gz nor .* exists"),
    ({"name": "image_folder", "path": "."}, r"data\.path: an image folder must hold one folder of images per class"),
    ({"name": "torchvision/KMNIST", "path": "."}, r"data\.path: torchvision's KMNIST could not be opened at \."),
    ({"name": "torchvision/ImageFolder", "path": "."}, r"data\.path: torchvision's ImageFolder could not be opened"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_errors_name_the_key(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GradscopeError, match=message):
        load(DataConfig(**options), "train")


def test_too_small_a_size_for_the_images(folder):
    with pytest.raises(GradscopeError, match=r"data\.size: these images are 28 x 28 pixels, got size 16"):
        load(DataConfig(name="fashion_mnist", path=str(folder), size=16), "train")


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x08\x03", b"PNG and so on, for long", bytes([0, 0, 8, 3, *[0, 0, 0, 9] * 3, 1, 2])]
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_damaged_idx_files_are_named(tmp_path, content, end):
    file = tmp_path / f"train-images-idx3-ubyte{end}"
    file.write_bytes(content)
    with pytest.raises(GradscopeError, match=rf"data\.path: {file} is not an IDX file of 3 dimensions of uint8"):
        load(DataConfig(name="fashion_mnist", path=str(tmp_path)), "train")


def test_images_and_labels_must_be_as_many(folder, digits):
    write_idx(folder / "train-labels-idx1-ubyte.gz", digits["train"][1][:-1], gzip.open)
    with pytest.raises(GradscopeError, match=r"data\.path: .* has 12 images, .* 11 labels"):
        load(DataConfig(name="fashion_mnist", path=str(folder)), "train")
