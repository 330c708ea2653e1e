"""What a store says of its diagnostics: the rows of the table, and those of a user's own probes."""

import numpy as np
import xarray as xr

from probes.catalogue import CATALOGUE
from probes.variable import Variable


def described(ds: xr.Dataset, name: str) -> Variable:
    """The row of a diagnostic: the table's, or else what its attributes in the store say.

    Examples
    --------
    >>> described(xr.Dataset(), "gradient_norm").logarithmic
    True
    """
    if name in CATALOGUE or name not in ds:
        return CATALOGUE.get(name, Variable(name, name, ""))
    attributes = ds[name].attrs
    return Variable(
        name,
        str(attributes.get("long_name", name)),
        str(attributes.get("equation", "")),
        units=str(attributes.get("units", "1")),
        logarithmic=bool(_number(attributes.get("logarithmic"))),
        low=_number(attributes.get("valid_min")),
        high=_number(attributes.get("valid_max")),
        on_a_grid=bool(_number(attributes.get("on_a_grid"))),
    )


def _number(value: object) -> float | None:
    """The value, where it is a finite number."""
    is_number = isinstance(value, int | float | np.number) and bool(np.isfinite(value))
    return float(value) if is_number else None  # type: ignore[arg-type]
