"""Stores from strangers: names and texts that are markup, formulas or code, and metadata that claim any size."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import small_store
import xarray as xr

MARKUP = '<img src=x onerror="window.pwned=1"><b>bold</b>'
LINK = '<a href="javascript:window.pwned=1">click</a>'
SCRIPT = "</script><script>window.pwned=1</script>"
MARKDOWN = "[click](javascript:window.pwned=1) ![x](http://evil.test/x.png)"
FORMULA = '=HYPERLINK("http://evil.test","x")'
CODE = "\"); import os; os.system(\"touch pwned\"); '''; os.abort() #"
NAMES = {
    "classifier": [MARKUP, FORMULA],
    "classifier_input": ["x_t", LINK],
    "stabilizer": ["none", CODE],
}
CLASSES = [SCRIPT, "@SUM(1,1)", "+1+cmd|' /C calc'!A0", "-2+3"]
PROBE = 'norm<svg onload="window.pwned=1">'
"""Name of a diagnostic."""


def hostile() -> xr.Dataset:
    """The small store with such texts wherever a store has any."""
    ds = small_store.evaluated()
    ds[PROBE] = ds["gradient_norm"].copy()
    ds["entropy"] = ds["log_prob"].copy()
    ds["predicted_class"] = (ds["written"].dims, np.full(ds["written"].shape, 1, dtype=np.int16))
    ds = ds.assign_coords({**NAMES, "class": CLASSES, "judge_class": CLASSES})
    for name in ds.variables:
        ds[name].attrs |= {"long_name": f"{MARKUP} {name}", "units": LINK, "equation": SCRIPT}
    about = {
        "run_id": f"{MARKUP},{FORMULA}",
        "configuration": json.dumps({"judge": "none", MARKUP: SCRIPT, "x": [MARKDOWN, "!!python/object:os.system"]}),
        "configuration_hash": FORMULA,
        "versions": {MARKUP: SCRIPT},
        "command": f"gradscope record; {MARKUP}\n{FORMULA}",
        "status": f"complete,{FORMULA}",
        "created": MARKDOWN,
        "device": LINK,
        "classes": CLASSES,
    }
    return ds.assign_attrs(about)


def saved(folder: Path) -> Path:
    return small_store.save(hostile(), folder / "hostile.zarr")


def zstd_of_zeros(size: int, told: bool = True) -> bytes:
    """A frame of zstd that decodes to so many zeros, in 4 bytes for 128 KiB of them.

    `told` says whether the frame begins with this size.
    """
    blocks, rest = divmod(size, 2**17)
    lengths = [2**17] * blocks + [rest] * bool(rest)
    repeated = [(length << 3 | 2 | (i == len(lengths) - 1)).to_bytes(3, "little") for i, length in enumerate(lengths)]
    header = b"\x28\xb5\x2f\xfd" + (b"\x80\x58" + size.to_bytes(4, "little") if told else b"\x00\x58")
    return header + b"".join(block + b"\x00" for block in repeated)


def replaced(path: Path, name: str, content: bytes) -> Path:
    """The store, after all chunks of an array became this."""
    for file in (path / name).rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(content)
    return path


def claiming(path: Path, lengths: Mapping[str, int], chunks: Mapping[str, int] | None = None) -> Path:
    """A store on disk whose metadata are made to claim these lengths of dimensions.

    With `chunks`, those of arrays along t, but for the marker, and of images get these lengths too; their files are
    gone then.
    """
    file = path / "zarr.json"
    root = json.loads(file.read_text())
    for name, array in root["consolidated_metadata"]["metadata"].items():
        dims, sizes = array.get("dimension_names") or [], array["chunk_grid"]["configuration"]["chunk_shape"]
        array["shape"] = [lengths.get(dim, length) for dim, length in zip(dims, array["shape"], strict=True)]
        if chunks and {"timestep", "channel"} & set(dims) and name not in ("written", *dims):
            sizes[:] = [chunks.get(dim, size) for dim, size in zip(dims, sizes, strict=True)]
            shutil.rmtree(path / name / "c", ignore_errors=True)
    file.write_text(json.dumps(root))
    return path
