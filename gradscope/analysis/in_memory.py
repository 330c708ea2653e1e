"""Read the small variables of a store once, before several analyses use them."""

import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.dims import is_tensor

_LARGEST = 2**30


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """Load everything but tensors and images into memory, if it takes less than 1 GiB.

    Raises
    ------
    GradscopeError
        A chunk cannot be read.
    """
    small = ds[[name for name in ds.data_vars if not is_tensor(ds, str(name))]]
    if small.nbytes >= _LARGEST:
        return ds
    try:
        return ds.assign(small.compute())
    except GradscopeError:
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        raise GradscopeError(f"the store is damaged: {' '.join(str(error).split())}") from error
