"""The samples of one target class."""

import numpy as np
import xarray as xr

from gradscope.analysis.selections import restore_dims
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims

TARGET = "target_class"
"""Attribute of a selection: the name of its class."""


def of_class(ds: xr.Dataset, label: int) -> xr.Dataset:
    """Select the samples of one target class.

    Statistics of all samples together (accuracies, distances, coverage) are left out, because they are not those of the
    class. Verdicts and diagnostics stay.

    Parameters
    ----------
    ds
        A store.
    label
        Number of the class.

    Raises
    ------
    GradscopeError
        No sample has this class.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=10)
    >>> of_class(ds, 1).sizes["sample"], of_class(ds, 1).attrs["target_class"]
    (3, '1')
    """
    ds = restore_dims(ds)
    rows = np.flatnonzero(ds["label"].values == label)
    if not len(rows):
        known = sorted(set(ds["label"].values.tolist()))
        raise GradscopeError(f"label: no sample has the class {label}; one of: {', '.join(map(str, known))}")
    cells = set(cell_dims(ds))
    whole = [
        name for name, v in ds.data_vars.items() if cells <= set(v.dims) and not {"sample", "timestep"} & set(v.dims)
    ]
    name = class_name(class_names(ds), label)
    return ds.drop_vars(whole).isel(sample=rows).assign_attrs({TARGET: name})


def class_sizes(ds: xr.Dataset) -> dict[int, tuple[str, int]]:
    """Name and number of samples of each target class that the store has, by the class's number.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> class_sizes(synthetic.trajectories(samples=10))
    {0: ('0', 3), 1: ('1', 3), 2: ('2', 2), 3: ('3', 2)}
    """
    names = class_names(ds)
    numbers, counts = np.unique(ds["label"].values, return_counts=True)
    return {
        number: (class_name(names, number), count)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    }
