"""How to describe and draw a diagnostic: by the table, or for a user's own probe by attributes in the store."""

import numpy as np
import xarray as xr

from probes.catalogue import CATALOGUE
from probes.variable import Variable


def described(ds: xr.Dataset, name: str) -> Variable:
    """The row of a diagnostic in the table; for a user's own probe, a row made from its attributes in the store.

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
    """The value as a float; None if it is not a finite number."""
    if isinstance(value, int | float | np.integer | np.floating) and np.isfinite(value):
        return float(value)
    return None
