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
    """The small store with hostile texts wherever a store has text."""
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


def watched() -> xr.Dataset:
    """The hostile store as that of a watched loop with classifier-free guidance."""
    ds = hostile()
    parts = {"gradient_parallel_norm": 0.6, "gradient_perpendicular_norm": 0.8, "prediction_change": 0.1}
    about = {
        "watched": 1,
        "guidance_kind": "classifier_free",
        "seen": json.dumps({MARKUP: 1, "evaluations": SCRIPT, "gradients": 10**30}),
        "unseen": json.dumps({MARKUP: SCRIPT, "shift": [LINK]}),
        "problems": json.dumps([LINK, {MARKUP: 1}]),
    }
    return ds.assign({name: factor * ds["gradient_norm"] for name, factor in parts.items()}).assign_attrs(about)


def saved(folder: Path) -> Path:
    return small_store.save(hostile(), folder / "hostile.zarr")


def zstd_of_zeros(size: int, sized: bool = True) -> bytes:
    """A zstd frame that decodes to `size` zeros; it has 4 bytes for each 128 KiB.

    With `sized` the header gives the decoded size.
    """
    blocks, rest = divmod(size, 2**17)
    lengths = [2**17] * blocks + [rest] * bool(rest)
    repeated = [(length << 3 | 2 | (i == len(lengths) - 1)).to_bytes(3, "little") for i, length in enumerate(lengths)]
    header = b"\x28\xb5\x2f\xfd" + (b"\x80\x58" + size.to_bytes(4, "little") if sized else b"\x00\x58")
    return header + b"".join(block + b"\x00" for block in repeated)


def replaced(path: Path, name: str, content: bytes) -> Path:
    """Replace the content of all chunks of an array."""
    for file in (path / name).rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(content)
    return path


def claiming(path: Path, lengths: Mapping[str, int], chunks: Mapping[str, int] | None = None) -> Path:
    """Make the metadata of a store on disk claim these lengths of dimensions.

    With `chunks`, also change the chunk sizes of images and of arrays along t, except for the marker, and remove their
    files.
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
