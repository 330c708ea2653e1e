"""Other libraries on the layout of our stores: zarr itself, zarr with the pipeline of zarrs, and tensorstore."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import zarr

LIBRARIES = {"zarr": "zarr", "zarr with zarrs": "zarrs", "tensorstore": "tensorstore"}
"""Each with the package that it needs; `pip install 'gradscope[bench]'` installs them."""


def absent(library: str) -> str:
    """Why a library cannot be measured; empty if it can."""
    package = LIBRARIES[library]
    return "" if find_spec(package) else f"{package} is not installed"


def opened(library: str, folder: str) -> Any:
    """An array of a store, open for reading and writing by slices."""
    if library == "tensorstore":
        import tensorstore

        kvstore = {"driver": "file", "path": folder, "file_io_sync": False}
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    if library == "zarr with zarrs":
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    return zarr.open_array(folder, mode="r+").with_config({"write_empty_chunks": True})


def writer(library: str, folder: str) -> Callable[[Any, np.ndarray], None]:
    """A function that writes values to a place of the array at once."""
    array = opened(library, folder)

    def write(where: Any, values: np.ndarray) -> None:
        if library == "tensorstore":
            array[where].write(values).result()
        else:
            array[where] = values

    return write


def reader(library: str, folder: str) -> Callable[[Any], np.ndarray]:
    """A function that reads a place of the array."""
    array = opened(library, folder)
    return lambda where: array[where].read().result() if library == "tensorstore" else array[where]
