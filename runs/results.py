"""Make plots of docs/results, and the table of other samples, from evaluated stores (needs matplotlib).

python runs/results.py curves out.png STORE ...   how the gradients behave over timesteps
python runs/results.py scales out.png STORE ...   accuracy against coverage, one point per guidance scale
python runs/results.py guides STORE ...           one row per cell: verdicts, and the gradient against a reference

Several stores are read as one table; they must share their samples (same seed, same number), except for `guides`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr

import gradscope
from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.means import mean_interval
from gradscope.analysis.written import finished
from gradscope.store.dims import is_tensor

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Named = tuple[Cell, xr.Dataset]


def every_cell(stores: list[str]) -> Iterator[Named]:
    """Every finished cell of the stores: its names, and its values in memory without tensors."""
    for store in stores:
        ds = gradscope.open(store)
        small = ds[[name for name in ds.data_vars if not is_tensor(ds, name)]]
        for where in cells(ds):
            cell = small.isel(place(ds, where)).load()
            if finished(cell).all():
                yield where, cell


def number(cell: xr.Dataset, name: str) -> str:
    if name not in cell or np.isnan(cell[name]):
        return "-"
    low, high = cell[f"{name}_interval"].values
    return f"{float(cell[name]):.3f} [{low:.3f}, {high:.3f}]"


def guides(stores: list[str]) -> None:
    """Print a Markdown table with one row per guided cell: verdicts, and its gradient beside the reference's."""
    print("| store | guide | input | N | own | judge | cosine with the exact gradient | high-frequency share |")
    print("|" + " --- |" * 8)
    for store in stores:
        found = list(every_cell([store]))
        control = next(cell for where, cell in found if not where["guidance_scale"])
        shown = [("(unguided)", "", "", control, ("-", "-"))]
        for where, cell in found:
            if where["guidance_scale"]:
                means = tuple(interval(cell, name) for name in ("reference_cosine", "high_frequency_share"))
                shown.append(
                    (where["classifier"], where["classifier_input"], number(cell, "own_accuracy"), cell, means)
                )
        for guide, given, own, cell, means in shown:
            values = (Path(store).stem, guide, given, cell.sizes["sample"], own, number(cell, "judge_accuracy"), *means)
            print("| " + " | ".join(map(str, values)) + " |")


def interval(cell: xr.Dataset, name: str) -> str:
    """Mean over samples of each trajectory's mean, with its 95 % interval."""
    if name not in cell:
        return "-"
    found = mean_interval(cell[name].mean("timestep").values)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def curves(out: str, stores: list[str]) -> None:
    """Plot means with their 95 % intervals over timesteps: a panel for each quantity and classifier."""
    found = [(w, c) for w, c in every_cell(stores) if w["guidance_scale"]]
    names = ("gradient_cosine", "update_cosine", "log_prob", "gradient_norm")
    guides = list(dict.fromkeys(where["classifier"] for where, _ in found))
    figure, axes = plt.subplots(len(names), len(guides), figsize=(11, 11), sharex=True, layout="constrained")
    for column, guide in zip(np.reshape(axes, (len(names), len(guides))).T, guides, strict=True):
        column[0].set_title(guide)
        chosen = [(w, c) for w, c in found if w["classifier"] == guide]
        for where, cell in chosen:
            for axis, name in zip(column, names, strict=True):
                values = cell[name].values[finished(cell)]
                if name == "gradient_norm":
                    values = np.log10(values, where=values > 0, out=np.full(values.shape, np.nan))
                centre, low, high, _ = mean_interval(values)
                style = {"none": "-", "adam": "--"}.get(str(where["stabilizer"]), ":")
                colour = COLOURS[list(("x_t", "x0", "x0_detached")).index(str(where["classifier_input"]))]
                label = f"{where['classifier_input']}, {where['stabilizer']}"
                axis.plot(cell["timestep"], centre, style, color=colour, label=label)
                axis.fill_between(cell["timestep"], low, high, color=colour, alpha=0.2, linewidth=0)
    labels = ("cosine of successive gradients", "cosine of successive updates", "log_prob, nat", "log10 gradient_norm")
    for axis, label in zip(np.reshape(axes, (len(names), len(guides)))[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    for axis in np.reshape(axes, (len(names), len(guides)))[:2].ravel():
        axis.set_ylim(0, 1.02)
    for axis in np.reshape(axes, (len(names), len(guides)))[-1]:
        axis.set_xlabel("timestep, in the order of sampling")
    np.ravel(axes)[0].invert_xaxis()  # all panels share this axis
    np.ravel(axes)[0].legend(fontsize=8)
    figure.savefig(out, dpi=80)


def scales(out: str, stores: list[str]) -> None:
    """Plot the judge's accuracy against coverage, one point per guidance scale, one line per stabiliser."""
    figure, axis = plt.subplots(figsize=(7, 5), layout="constrained")
    found = list(every_cell(stores))
    dims = ("classifier", "classifier_input", "stabilizer")
    lines = list(dict.fromkeys(tuple(w[dim] for dim in dims) for w, _ in found))
    for colour, line in zip(COLOURS, lines, strict=False):
        chosen = [(w, c) for w, c in found if tuple(w[dim] for dim in dims) == line]
        x = [float(c["coverage"]) for _, c in chosen]
        y = [float(c["judge_accuracy"]) for _, c in chosen]
        spread = [np.abs(np.array([c[f"{n}_interval"].values for _, c in chosen]).T - v)
                  for n, v in (("coverage", x), ("judge_accuracy", y))]  # fmt: skip
        axis.errorbar(x, y, spread[1], spread[0], fmt="o-", color=colour, label="{} at {}, {}".format(*line), alpha=0.8)
        for where, a, b in zip((w for w, _ in chosen), x, y, strict=True):
            axis.annotate(f"{where['guidance_scale']:g}", (a, b), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axis.set(xlabel="coverage", ylabel="judge's accuracy")
    axis.axhline(0.25, color="grey", linestyle=":", label="chance")
    axis.legend()
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "guides":
        guides(arguments)
    else:
        {"curves": curves, "scales": scales}[command](arguments[0], arguments[1:])
