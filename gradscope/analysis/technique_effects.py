"""The effect of each technique: every guided cell against the same cell without a stabiliser, or without x0."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.cells import cells, place
from gradscope.analysis.missing import absent
from gradscope.analysis.paired_cells import KERNEL_DISTANCES, accuracy_change, distances, replicated
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.statistics import Test, holm
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import cell_dims


def compare_all(ds: xr.Dataset, baseline: str = "none") -> pd.DataFrame:
    """Does a stabiliser help, and does x0? Compare every guided cell with its references.

    A cell is compared with the same cell with the `baseline` stabiliser, with the same cell at x_t, and, if it differs
    in both, with the cell that has neither technique. Unguided cells (scale 0) do not differ and are left out.

    Parameters
    ----------
    ds
        A store.
    baseline
        Name of the stabiliser that counts as none.

    Returns
    -------
    pandas.DataFrame
        One row per comparison:

        - the cell's names;
        - ``against``: the names by which the reference differs from the cell; ``technique``: the cell's own names in
          their place; ``at``: the classifier_input or stabilizer that both share;
        - ``n``: number of samples that are finished in both;
        - ``accuracy``: the judge's accuracy minus that of the reference, with its 95 % interval ``accuracy_low``,
          ``accuracy_high``, Cohen's g ``cohens_g``, McNemar's ``p``, and ``p_holm`` corrected over the table;
        - ``<kd>``, ``<kd>_low``, ``<kd>_high``: the same for every kernel distance (below 0 the cell is better);
        - ``note``: why a number is missing.

    Raises
    ------
    GradscopeError
        The store has several stabilisers, and `baseline` is not one of them.

    Examples
    --------
    >>> import xarray as xr
    >>> from gradscope.analysis import synthetic
    >>> none = synthetic.trajectories(accuracy=0.9)
    >>> smooth = synthetic.trajectories(accuracy=0.5).assign_coords(stabilizer=["smooth"])
    >>> table = compare_all(xr.concat([none, smooth], "stabilizer", data_vars="all", join="outer"))
    >>> table[["technique", "against", "n", "accuracy"]].round(2).to_dict("records")
    [{'technique': 'smooth', 'against': 'none', 'n': 64, 'accuracy': -0.3}]
    """
    ds = restore_dims(ds)
    stabilizers = ds["stabilizer"].values.tolist()
    if baseline not in stabilizers and len(stabilizers) > 1:
        raise GradscopeError(f"compare_all: no stabilizer {baseline!r}; {one_of(baseline, stabilizers)}")
    both_dims = {"classifier_input": "x_t", "stabilizer": baseline}
    references = ({"stabilizer": baseline}, {"classifier_input": "x_t"}, both_dims)
    kernel = [name for name in replicated(ds) if name.startswith(KERNEL_DISTANCES)]
    rows = []
    for cell in cells(ds):
        for reference in references:
            exists = all(name in ds[dim].values.tolist() for dim, name in reference.items())
            if cell["guidance_scale"] == 0 or not exists or any(cell[dim] == reference[dim] for dim in reference):
                continue
            first, second = ds.isel(place(ds, {**cell, **reference})), ds.isel(place(ds, cell))
            both = finished(first) & finished(second)
            row = {
                **cell,
                "against": ", ".join(reference.values()),
                "technique": " + ".join(str(cell[dim]) for dim in reference),
                "at": ", ".join(str(cell[dim]) for dim in both_dims if dim not in reference),
                "n": int(both.sum()),
                "note": absent(ds, "judge_prediction"),
            }
            if "judge_prediction" in ds:
                accuracy = accuracy_change(first, second)
                row |= _accuracy_columns(accuracy) | {"n": accuracy.n}
            for name, apart in distances(first, second).items():
                if name in kernel:
                    row |= {name: apart.estimate, f"{name}_low": apart.low, f"{name}_high": apart.high}
            rows.append(row)
    columns = [*cell_dims(ds), "against", "technique", "at", "n"]
    columns += ["accuracy", "accuracy_low", "accuracy_high", "cohens_g", "p", "p_holm"]
    columns += [f"{name}{end}" for name in kernel for end in ("", "_low", "_high")] + ["note"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    return table


def _accuracy_columns(test: Test) -> dict[str, Any]:
    return {
        "accuracy": test.estimate,
        "accuracy_low": test.low,
        "accuracy_high": test.high,
        "cohens_g": test.effect,
        "p": test.p,
        "note": test.note,
    }
