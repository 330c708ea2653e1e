"""Pictures as a viewer shows them: upright, on white where they are transparent, with the file's brightness.

- Grey and colour of 8 bits, palettes, CMYK, YCbCr, L*a*b*, 1 bit: as Pillow converts them; colour profiles are ignored.
- Grey of 16 bits, and of 32 where no value is above 65,535: divided by 65,535; TIFF of 12 bits by 4,095.
- Grey of floats: as it is, from 0 (black) to 1 (white).
- Files of several frames or pages: the first one.

Refused, since their white is unknown: floats outside [0, 1], integers above 65,535, and 16-bit files that use at most
12 bits.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gradscope.errors import GradscopeError

_WHITE, _WHITE_OF_12_BITS = 65_535, 4_095
_PHOTOMETRIC = 262
"""TIFF's tag. Its value 0 means that 0 is white."""


def read(path: Path, where: str) -> Image.Image | Tensor:
    """Read a picture; see `seen`.

    Parameters
    ----------
    path
        The file.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        The file is missing, damaged, no picture, or refused by `seen`.
    """
    try:
        with Image.open(path) as image:
            return seen(image, f"{where}: {path}")
    except GradscopeError:
        raise
    except UnidentifiedImageError:
        reason = "it is empty" if path.stat().st_size == 0 else "its content is no picture"
        raise GradscopeError(f"{where}: {path} cannot be read: {reason}") from None
    except Exception as error:  # of many types, depending on the format
        reason = getattr(error, "strerror", None) or str(error)
        raise GradscopeError(f"{where}: {path} cannot be read: {reason}") from error


def seen(image: Image.Image, where: str) -> Image.Image | Tensor:
    """Convert a picture to what a viewer shows.

    Parameters
    ----------
    image
        Of any mode, best not loaded yet: an open file still has its tags.
    where
        Beginning of errors.

    Returns
    -------
    PIL.Image.Image or Tensor
        Grey or colour of 8 bits (modes L and RGB); grey of more bits as float32 from 0 (black) to 1 (white),
        ``(1, height, width)``.

    Raises
    ------
    GradscopeError
        The value of white is unknown.
    """
    stored = "".join(str(tile[3]) for tile in getattr(image, "tile", [])[:1])
    tags = getattr(image, "tag_v2", {})
    declared = image.format == "PPM"  # its header has the value of white, by which Pillow scales
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _floats(image, where) if image.mode == "F" else _integers(image, stored, declared, where)
        if tags.get(_PHOTOMETRIC) == 0:
            grey = 1 - grey
        return torch.from_numpy(grey.astype(np.float32))[None]
    if "16" in stored and image.mode in ("RGB", "RGBA"):
        _refuse_12_bits(int(np.asarray(image)[..., :3].max()) * 256, where)  # Pillow keeps the upper 8 bits
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _floats(image: Image.Image, where: str) -> np.ndarray:
    values = np.asarray(image)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise GradscopeError(
            f"{where}: its floats range from {values.min():g} to {values.max():g}; possible: 0 (black) to 1 (white)"
        )
    return values


def _integers(image: Image.Image, stored: str, declared: bool, where: str) -> np.ndarray:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    white = _WHITE_OF_12_BITS if stored.startswith("('I;12'") else _WHITE
    if low < 0 or high > white:
        raise GradscopeError(
            f"{where}: its integers range from {low} to {high}, and the value of white is unknown for 32 bits; save it "
            "with 8 or 16 bits"
        )
    if white == _WHITE and not declared:
        _refuse_12_bits(high, where)
    grey: np.ndarray = values / white
    transparent: Any = image.info.get("transparency")
    return grey if transparent is None else np.where(values == transparent, 1, grey)


def _refuse_12_bits(high: int, where: str) -> None:
    if 0 < high <= _WHITE_OF_12_BITS:
        raise GradscopeError(
            f"{where}: it has 16 bits, but its largest value is {high}: it may have 12 bits or fewer, or be nearly "
            "black; save it with 8 bits, or scaled so that 65535 is white"
        )
