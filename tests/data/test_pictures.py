"""Every form of a picture file gives the brightness that one sees, or is refused by name."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from gradscope.config import DataConfig
from gradscope.data.datasets import load
from gradscope.errors import GradscopeError

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
RGB = np.dstack([RAMP, RAMP[::-1], np.full_like(RAMP, 40)])
DEEP = RAMP.astype(np.uint16) * 257


def as_png16(array: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in colour; colour 2: RGB, 4: grey with alpha, 6: RGBA."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def as_tiff12(values: np.ndarray) -> bytes:
    """A TIFF of 12 bits, packed, of an even width."""
    height, width = values.shape
    a, b = values[:, ::2].astype(np.uint16), values[:, 1::2].astype(np.uint16)
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=-1).astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory


def load_one(folder, end: str, content, channels: int = 3, **options) -> np.ndarray:
    """The picture as a data set gives it, ``(channels, 32, 32)``, from 0 to 255."""
    (folder / "a").mkdir()
    file = folder / "a" / f"0.{end}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content.save(file, **options)
    data = load(DataConfig(name="image_folder", path=str(folder), size=32, channels=channels), "test")
    return (data.batch([0])[0][0].numpy() + 1) * 127.5


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[274] = orientation
    return made


GREYS = {
    "8 bits": ("png", lambda: Image.fromarray(RAMP), {}),
    "8 bits, bmp": ("bmp", lambda: Image.fromarray(RAMP), {}),
    "16 bits, png": ("png", lambda: Image.fromarray(DEEP), {}),
    "16 bits, tiff": ("tiff", lambda: Image.fromarray(DEEP), {}),
    "16 bits, tiff, big-endian": ("tif", lambda: Image.fromarray(DEEP.astype(">u2")), {}),
    "16 bits, pgm": ("pgm", lambda: b"P5 32 32 65535\n" + DEEP.astype(">u2").tobytes(), {}),
    "12 bits, pgm": ("pgm", lambda: b"P5 32 32 4095\n" + (RAMP * 16.0588).round().astype(">u2").tobytes(), {}),
    "12 bits, tiff": ("tiff", lambda: as_tiff12((RAMP * 16.0588).round()), {}),
    "16 bits, tiff, 0 is white": ("tiff", lambda: Image.fromarray(65535 - DEEP), {"tiffinfo": {262: 0}}),
    "32 bits": ("tiff", lambda: Image.fromarray(DEEP.astype(np.int32)), {}),
    "floats": ("tiff", lambda: Image.fromarray((RAMP / 255).astype(np.float32)), {}),
    "palette": ("png", lambda: Image.fromarray(RAMP).convert("P"), {}),
    "16 bits, rgb": ("png", lambda: as_png16(np.dstack([DEEP] * 3), 2), {}),
    "opaque": ("png", lambda: Image.fromarray(np.dstack([RAMP] * 3 + [np.full_like(RAMP, 255)])), {}),
    "L*a*b*": ("tiff", lambda: ImageCms.profileToProfile(
        Image.fromarray(np.dstack([RAMP] * 3)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
        outputMode="LAB"), {}),
}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", GREYS)
def test_one_ramp_in_every_form(tmp_path, form, channels):
    end, make, options = GREYS[form]
    got = load_one(tmp_path, end, make(), channels, **options)
    np.testing.assert_allclose(got, np.stack([RAMP] * channels), atol=4 if form == "L*a*b*" else 1.01)


def test_the_last_bits_of_16_are_kept(tmp_path):
    values = np.tile(np.linspace(30_000, 30_031, 32).astype(np.uint16), (32, 1))
    got = load_one(tmp_path, "png", Image.fromarray(values))
    np.testing.assert_allclose(got[0], values / 257, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_bit(tmp_path, channels):
    got = load_one(tmp_path, "png", Image.fromarray(RAMP > 99), channels)
    np.testing.assert_allclose(got, np.stack([(RAMP > 99) * 255] * channels), atol=1e-3)


@pytest.mark.parametrize("form", ["jpeg", "tiff"])
def test_cmyk(tmp_path, form):
    ink = Image.fromarray(RGB).convert("CMYK")
    got = load_one(tmp_path, form, ink, **({"quality": 100, "subsampling": 0} if form == "jpeg" else {}))
    np.testing.assert_allclose(got, RGB.transpose(2, 0, 1), atol=6)


ALPHA = np.where(np.arange(32) < 16, 0, 200).astype(np.uint8)[None].repeat(32, axis=0)
OVER_WHITE = RGB * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]
GREY_OVER_WHITE = RAMP * (ALPHA / 255) + 255 - ALPHA
"""The left half is transparent, over colours that nobody sees."""


def palette(transparency) -> Image.Image:
    made = Image.fromarray((ALPHA > 0).astype(np.uint8)).convert("P")
    made.putpalette([10, 20, 30, 40, 50, 60])
    made.info["transparency"] = transparency
    return made


TWO_COLOURS = np.where(ALPHA[..., None] > 0, [40, 50, 60], [255, 255, 255])
TRANSPARENT = {
    "RGBA": ("png", lambda: Image.fromarray(np.dstack([RGB, ALPHA])), {}, OVER_WHITE),
    "RGBA, webp": ("webp", lambda: Image.fromarray(np.dstack([RGB, ALPHA])), {"lossless": True}, OVER_WHITE),
    "RGBA, tiff": ("tiff", lambda: Image.fromarray(np.dstack([RGB, ALPHA])), {}, OVER_WHITE),
    "RGBA, 16 bits": ("png", lambda: as_png16(np.dstack([RGB, ALPHA]).astype(np.uint16) * 257, 6), {}, OVER_WHITE),
    "LA": ("png", lambda: Image.fromarray(np.dstack([RAMP, ALPHA])), {}, GREY_OVER_WHITE[..., None]),
    "LA, 16 bits": ("png", lambda: as_png16(np.dstack([DEEP, ALPHA.astype(np.uint16) * 257]), 4), {},
                    GREY_OVER_WHITE[..., None]),
    "palette, one colour": ("png", lambda: palette(0), {}, TWO_COLOURS),
    "palette, alpha of each": ("png", lambda: palette(b"\0\xff"), {}, TWO_COLOURS),
    "RGB, one colour": ("png", lambda: Image.fromarray(np.where(ALPHA[..., None] > 0, RGB, 7).astype(np.uint8)),
                        {"transparency": (7, 7, 7)}, np.where(ALPHA[..., None] > 0, RGB, 255)),
    "grey, one level": ("png", lambda: Image.fromarray(np.where(ALPHA > 0, RAMP, 3).astype(np.uint8)),
                        {"transparency": 3}, np.where(ALPHA > 0, RAMP, 255)[..., None]),
    "grey, 16 bits, one level": ("png", lambda: Image.fromarray(np.where(ALPHA > 0, DEEP, 3).astype(np.uint16)),
                                 {"transparency": 3}, np.where(ALPHA > 0, RAMP, 255)[..., None]),
}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", TRANSPARENT)
def test_what_is_transparent_is_white(tmp_path, form, channels):
    end, make, options, wanted = TRANSPARENT[form]
    got = load_one(tmp_path, end, make(), channels, **options)
    wanted = np.broadcast_to(wanted, (32, 32, 3)).transpose(2, 0, 1)
    if channels == 1:
        wanted = np.einsum("c,chw->hw", [0.299, 0.587, 0.114], wanted)[None]
    np.testing.assert_allclose(got, wanted, atol=2)


UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}  # fmt: skip


@pytest.mark.parametrize("end", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_camera_that_was_turned(tmp_path, end, orientation):
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(end, {})
    got = load_one(tmp_path, end, Image.fromarray(RGB), exif=exif(orientation), **options)
    np.testing.assert_allclose(got, UPRIGHT[orientation](RGB).transpose(2, 0, 1), atol=4)


def test_orientation_comes_before_the_crop(tmp_path):
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 24:] = 255
    got = load_one(tmp_path, "jpg", Image.fromarray(wide), exif=exif(6), quality=100)
    assert got[0, 2].max() < 5  # the right half lies below, after a quarter turn
    assert got[0, -3].min() > 250


UNCLEAR = {
    "floats to 255": (Image.fromarray(RAMP.astype(np.float32)), "tiff", r"floats range from 0 to 255; possible: 0"),
    "floats below 0": (Image.fromarray((RAMP / 127.5 - 1).astype(np.float32)), "tiff", "floats range from -1 to 1;"),
    "floats that are none": (
        Image.fromarray(np.full((8, 8), np.nan, np.float32)),
        "tiff",
        "floats range from nan to nan;",
    ),
    "32 bits": (
        Image.fromarray(DEEP.astype(np.int32) * 9),
        "tiff",
        r"integers range from 0 to 589815, and the value of white is unknown for 32 bits",
    ),
    "negative": (Image.fromarray(DEEP.astype(np.int32) - 1024), "tiff", r"integers range from -1024 to 64511"),
    "12 bits in 16": (Image.fromarray(DEEP >> 4), "png", r"16 bits, but its largest value is 4095: it may have 12"),
    "12 bits in 16, tiff": (Image.fromarray(DEEP >> 4), "tiff", r"16 bits, but its largest value is 4095"),
    "12 bits in 16, rgb": (as_png16(np.dstack([DEEP >> 4] * 3), 2), "png", r"16 bits, but its largest value is 3840"),
    "8 bits in 32": (Image.fromarray(RAMP.astype(np.int32)), "tiff", r"16 bits, but its largest value is 255"),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_without_an_agreed_white_it_is_refused_by_name(tmp_path, form):
    content, end, message = UNCLEAR[form]
    with pytest.raises(GradscopeError, match=rf"^data\.path: {tmp_path}/a/0\.{end}: .*{message}"):
        load_one(tmp_path, end, content)


def test_all_black_is_black_at_any_depth(tmp_path):
    assert (load_one(tmp_path, "png", Image.fromarray(np.zeros((32, 32), np.uint16))) == 0).all()


def test_a_data_set_of_torchvision_is_seen_in_the_same_way(monkeypatch, tmp_path):
    images = [Image.fromarray(np.dstack([RGB, ALPHA])), Image.fromarray(DEEP)]

    class KMNIST:
        classes = ("a", "b")

        def __init__(self, path, train=True): ...

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return images[i], i

    monkeypatch.setattr("torchvision.datasets.KMNIST", KMNIST)
    data = load(DataConfig(name="torchvision/KMNIST", path=str(tmp_path), size=32), "test")
    got = (data.batch([0, 1])[0] + 1) * 127.5
    torch.testing.assert_close(got[0], torch.tensor(OVER_WHITE.transpose(2, 0, 1), dtype=torch.float32), atol=1, rtol=0)
    torch.testing.assert_close(got[1, 0], torch.tensor(RAMP, dtype=torch.float32), atol=1e-2, rtol=0)
    images[1] = Image.fromarray(DEEP >> 4)
    with pytest.raises(GradscopeError, match=r"^data: KMNIST\[1\]: it has 16 bits"):
        data.batch([1])
