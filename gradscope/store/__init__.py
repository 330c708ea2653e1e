"""The store of a run: one zarr v3 group that plain ``xarray.open_zarr`` reads. No torch here."""

from gradscope.store.creation import create
from gradscope.store.dims import CELL_DIMS, cell_dims, sample_dims
from gradscope.store.grid import Grid
from gradscope.store.reader import open_store
from gradscope.store.replacement import add_variables
from gradscope.store.root import set_attributes
from gradscope.store.schema import Array, Coordinate, Schema
from gradscope.store.staging import Frame
from gradscope.store.writer import StoreWriter

__all__ = [
    "CELL_DIMS",
    "Array",
    "Coordinate",
    "Frame",
    "Grid",
    "Schema",
    "StoreWriter",
    "add_variables",
    "cell_dims",
    "create",
    "open_store",
    "sample_dims",
    "set_attributes",
]
