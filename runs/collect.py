"""Collect what the cells of evaluated stores achieved in a small table, for docs/results.

python runs/collect.py runs/results/table.csv STORE ...

One row per finished guided or unguided cell; rows of other stores, which the table has already, stay. `own` and `judge`
hold one character per sample, the class that the guide and the judge see in the final sample (a digit or letter of base
36, `-` for none), and `label` the target, so accuracies, their intervals and paired differences follow from the table
alone. Distances and coverage come from `gradscope evaluate`. With the tensors `gradient` and `update`: the shares of
their energy (squared norm) in the background, the pixels that are white in the final image, a mean over timesteps, then
over the samples with tensors.
"""

import argparse
import json
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

import gradscope
from gradscope.analysis.cells import cells, place
from gradscope.analysis.means import mean_interval
from gradscope.analysis.written import finished
from gradscope.store.dims import is_tensor

DIGITS = string.digits + string.ascii_lowercase
SETTINGS = {
    "denoiser": ("denoiser",),
    "scheduler": ("sampling", "scheduler"),
    "steps": ("sampling", "num_inference_steps"),
    "objective": ("guidance", "objective"),
    "normalize": ("guidance", "normalize"),
    "weight": ("guidance", "weight"),
    "interval": ("guidance", "interval"),
}
SET = ("coverage", "fd_extractor")
"""Statistics of a whole set of samples."""
MEANS = ("gradient_cosine", "update_cosine", "update_gradient_cosine", "effective_strength")
"""Means over a trajectory, then over samples."""
CONVINCED = np.log(0.999)
"""log_prob above which a step counts as saturated."""
WHITE = 0.97
"""Value above which every channel of a background pixel lies, in [-1, 1]."""


def rows(stores: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each finished cell."""
    for store in stores:
        ds = gradscope.open(store)
        config = json.loads(ds.attrs["configuration"])
        small = ds[[name for name in ds.data_vars if not is_tensor(ds, name)]]
        tensors = [name for name in ("gradient", "update") if name in ds and "image" in ds]
        for where in cells(ds):
            cell = small.isel(place(ds, where)).load()
            if finished(cell).all():
                settings = {name: _at(config, keys) for name, keys in SETTINGS.items()}
                row = {"store": Path(store).stem, "device": ds.attrs["device"]} | settings | where | _measured(cell)
                yield row | _background(ds[[*tensors, "image", "written"]].isel(place(ds, where)) if tensors else None)


def _at(config: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        config = config[key]
    return config


def _measured(cell: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": cell.sizes["sample"], "label": letters(cell["label"].values)}
    for name, variable in (("own", "own_prediction"), ("judge", "judge_prediction")):
        found[name] = letters(cell[variable].values) if variable in cell else ""
    for name in SET:
        low, high = cell[f"{name}_interval"].values if name in cell else (np.nan, np.nan)
        found |= {name: float(cell[name]) if name in cell else np.nan, f"{name}_low": low, f"{name}_high": high}
    for name in MEANS:
        if name in cell:
            mean = mean_interval(cell[name].mean("timestep").values)
            found |= {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
    if "log_prob" in cell:
        found["saturated"] = float((cell["log_prob"] > CONVINCED).mean())
    return found


def _background(cell: xr.Dataset | None) -> dict[str, Any]:
    """Share of pixels that are background, and the background's share of each tensor's energy."""
    if cell is None:
        return {}
    cell = cell.isel(sample=(cell["written"] == 3).any("timestep").values).load()
    white = (cell["image"] > WHITE).all("channel")
    found: dict[str, Any] = {"tensor_samples": cell.sizes["sample"], "background": float(white.mean())}
    for name in [name for name in ("gradient", "update") if name in cell]:
        wide = cell[name].astype(np.float64)
        square = (wide / abs(wide).max(["channel", *white.dims[1:]])) ** 2  # squares of small gradients underflow
        share = square.where(white).sum(["channel", *white.dims[1:]]) / square.sum(["channel", *white.dims[1:]])
        mean = mean_interval(share.mean("timestep").values)
        key = f"background_{name}"
        found |= {key: mean.mean, f"{key}_low": mean.low, f"{key}_high": mean.high}
    return found


def letters(classes: ArrayLike) -> str:
    """One character per sample; ``-`` for a sample without a class."""
    return "".join("-" if value < 0 else DIGITS[int(value)] for value in np.asarray(classes))


def collect(out: Path, stores: Sequence[str]) -> None:
    """Write the rows of some stores in place of those that the table has of them."""
    made = pd.DataFrame(list(rows(stores)))
    if out.exists():
        kept = pd.read_csv(out, dtype=str, keep_default_na=False)
        made = pd.concat([kept[~kept["store"].isin([Path(store).stem for store in stores])], made])
    made.to_csv(out, index=False, float_format="%.6g")
    print(f"wrote {out}: {len(made)} cells")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="the CSV file, which is made or gets further rows")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="evaluated stores")
    arguments = parser.parse_args()
    collect(arguments.table, arguments.stores)
