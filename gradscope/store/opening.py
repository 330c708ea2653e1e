"""Open the arrays of a store through zarr, without xarray."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import zarr

from gradscope.errors import GradscopeError
from gradscope.store.attributes import as_texts
from gradscope.store.chunks import Chunks
from gradscope.store.locations.location import ROOT, Location, StorePath, locate
from gradscope.store.untrusted import checksum
from gradscope.store.untrusted.bounded import Bounded, Replaced
from gradscope.store.untrusted.content import check_links
from gradscope.store.untrusted.root import parse

Reader = TypeVar("Reader", bound=Callable[..., Any])
_AGAIN = 4
"""Number of times that a store is opened again. A writer replaces arrays once for each cell or evaluation."""


def opened_again(read: Reader) -> Reader:
    """Make a function that reads a store start again if a writer replaces an array while it reads."""

    @wraps(read)
    def again(*args: Any, **kwargs: Any) -> Any:
        for _ in range(_AGAIN):
            with suppress(Replaced):
                return read(*args, **kwargs)
        return read(*args, **kwargs)

    return cast(Reader, again)


def open_arrays(where: StorePath) -> zarr.Group:
    """Open the arrays of a store through zarr; reading a chunk larger than the metadata allow raises an error.

    Raises
    ------
    GradscopeError
        There is no store, it is damaged, or a later version wrote it.
    """
    location = locate(where)
    content = location.read(ROOT)
    if content is None:
        raise GradscopeError(f"{location} is not a zarr store (no {ROOT} in it)")
    root = parse(content, str(location))
    if location.path is not None:
        check_links(location.path)
    store = Bounded(location, root)
    try:
        return zarr.open_group(store, mode="r", zarr_format=3)
    except Exception as error:  # zarr and its codecs raise errors of many types
        raise GradscopeError(f"{location} is damaged: {error}") from error


def read_attributes(where: StorePath) -> dict[str, Any]:
    """The attributes that `open_store` gives. Coordinates are neither read nor checked, which takes most of its time.

    Raises
    ------
    GradscopeError
        There is no store, its metadata are damaged, or a later version wrote it.
    """
    location = locate(where)
    return attributes_of(location, dict(open_arrays(location).attrs))


def attributes_of(location: Location, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a store as texts; ``status`` is ``interrupted`` where nothing records any more."""
    encoding = (checksum.KEY, "coordinates")  # the second tells xarray which variables are coordinates
    found = {key: value for key, value in attributes.items() if key not in encoding}
    if found.get("status") == "recording" and not location.locked():
        found["status"] = "interrupted"
    return as_texts(found)


def marker_chunks(location: Location, group: zarr.Group) -> Chunks:
    """The chunks of the marker. All exist in a complete run, but not where a user's own sampler leaves out blocks."""
    marker: Any = group["written"]
    complete = "configuration" in group.attrs and group.attrs.get("status") == "complete"
    return Chunks(location, marker, complete=complete)
