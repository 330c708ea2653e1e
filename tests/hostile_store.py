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
CODE = "\"); import os; os.system(\"touch pwned\") #\n'''\nos.abort()"
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
