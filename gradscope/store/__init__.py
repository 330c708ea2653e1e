"""The store of a run: one zarr v3 group that plain ``xarray.open_zarr`` reads. No torch here.

Names are loaded on first use: what a store holds can be read without xarray, which takes half a second to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradscope.store.creation import create
    from gradscope.store.dims import CELL_DIMS, cell_dims, sample_dims
    from gradscope.store.grid import Grid
    from gradscope.store.reader import open_store
    from gradscope.store.replacement import add_variables
    from gradscope.store.root import set_attributes
    from gradscope.store.schema import Array, Coordinate, Schema
    from gradscope.store.staging import Frame
    from gradscope.store.writer import StoreWriter

_MODULES = {
    "Array": "schema",
    "CELL_DIMS": "dims",
    "Coordinate": "schema",
    "Frame": "staging",
    "Grid": "grid",
    "Schema": "schema",
    "StoreWriter": "writer",
    "add_variables": "replacement",
    "cell_dims": "dims",
    "create": "creation",
    "open_store": "reader",
    "sample_dims": "dims",
    "set_attributes": "root",
}

__all__ = [
    "Array",
    "CELL_DIMS",
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gradscope.store' has no attribute {name!r}")
    return getattr(import_module(f"gradscope.store.{_MODULES[name]}"), name)
