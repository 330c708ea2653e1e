"""Pictures in one folder per class. Classes are numbered in natural order (0, 1, 2, ..., 10), as in timm."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor

from gradscope.data import pictures
from gradscope.errors import GradscopeError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SPLITS = re.compile(r"(train|val|test)(\d{4})?|training|valid|validation|testing|dev|eval|evaluation|holdout")


class PictureFolder:
    """Pictures in the folders of classes below a folder, without hidden files (`.ipynb_checkpoints`, ``._x.jpg``).

    Parameters
    ----------
    root
        The folder that holds the folders of the classes.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        There are no folders, folders of splits in place of classes, a folder without pictures, or a broken link.
    """

    classes: tuple[str, ...]
    """Names of the folders, in natural order."""

    def __init__(self, root: Path, where: str) -> None:
        self._where = where
        folders = sorted((e for e in self._visible(root) if e.is_dir()), key=lambda entry: natural_key(entry.name))
        self.classes = tuple(folder.name for folder in folders)
        if not self.classes:
            raise GradscopeError(
                f"{where}: an image folder must hold one folder of images per class; {root} holds none"
            )
        splits = [name for name in self.classes if _SPLITS.fullmatch(name.lower())]
        if len(splits) > 1 or len(splits) == len(self.classes):
            raise GradscopeError(
                f"{where}: {root} holds splits ({', '.join(splits)}) in place of folders of classes; name one of the "
                f"splits: {root / splits[0]}"
            )
        self._files: list[tuple[str, int]] = []
        for label, folder in enumerate(folders):
            files = sorted(self._pictures(folder.path, set()), key=os.path.split)
            if not files:
                raise GradscopeError(
                    f"{where}: the class folder {folder.path} holds no image ({', '.join(ENDINGS)}); fill or remove it"
                )
            self._files += [(file, label) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> tuple[Image.Image | Tensor, int]:
        """The picture as `gradscope.data.pictures.seen` gives it, and the number of its class."""
        file, label = self._files[i]
        return pictures.read(Path(file), self._where), label

    def _visible(self, folder: str | Path) -> Iterator[os.DirEntry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_symlink() and not os.path.exists(entry.path):
                    raise GradscopeError(f"{self._where}: {entry.path} is a broken link: {os.readlink(entry.path)}")
                yield entry

    def _pictures(self, folder: str, above: set[str]) -> Iterator[str]:
        """Files with a picture's ending, at any depth. `above` holds the folders that a link could lead back to."""
        here = os.path.realpath(folder)
        if here in above:
            return
        for entry in self._visible(folder):
            if entry.is_dir():
                yield from self._pictures(entry.path, above | {here})
            elif entry.name.lower().endswith(ENDINGS):
                if not entry.is_file():
                    raise GradscopeError(f"{self._where}: {entry.path} is a pipe, a socket or a device, not a file")
                yield entry.path


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Key for sorting names naturally, as timm does: digits as numbers, without regard to case.

    Examples
    --------
    >>> sorted(["10", "2", "b1", "A3", "1"], key=natural_key)
    ['1', '2', '10', 'A3', 'b1']
    """
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
