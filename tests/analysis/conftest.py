"""The store of `probed_store`, in memory and in chunks."""

import pytest
import xarray as xr
from probed_store import TENSORS
from probed_store import recorded as make

from gradscope.store import CELL_DIMS


@pytest.fixture
def recorded() -> xr.Dataset:
    return make()


@pytest.fixture(params=["in memory", "chunked"])
def store(request, recorded) -> xr.Dataset:
    if request.param == "in memory":
        return recorded
    chunks = dict.fromkeys(CELL_DIMS, 1)
    return recorded.assign(
        {n: recorded[n].chunk({**chunks, "sample": 4 if n in TENSORS else 6, "timestep": 10}) for n in recorded}
    )
