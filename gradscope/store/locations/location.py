"""Where a store is: a folder of this machine, or below a URL of an object store."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from gradscope.errors import GradscopeError
from gradscope.store.locations.bucket import Bucket, first_line
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.locations.folder import ROOT, Folder

__all__ = ["ROOT", "Location", "StorePath", "locate", "reason", "writing"]


class Location(Protocol):
    """A place that may hold a store; its ``str`` is what the user gave."""

    @property
    def path(self) -> Path | None:
        """The folder; None where it is none of this machine's."""
        ...

    @property
    def zarr(self) -> Any:
        """What zarr and xarray open."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What reading and writing raise."""
        ...

    def exists(self) -> bool:
        """Whether anything is there."""
        ...

    def read(self, key: str, most: int = MAX_METADATA_BYTES) -> bytes | None:
        """What lies under a key, of a folder `most` bytes and one more at most; None where nothing is there."""
        ...

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Key and size in bytes of every file or object there, or in a folder; links are not followed."""
        ...

    def replace(self, key: str, content: bytes) -> None:
        """Put a file or object in place of the one before, at once."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file or object, or all that is in a folder of this name."""
        ...

    def made(self, overwrite: bool = False) -> "AbstractContextManager[Location]":
        """A context that gives the location to make a store in; left without an error, the store is here, whole.

        Nothing is here, or it is to be overwritten: it is replaced.
        """
        ...

    def locked(self) -> bool:
        """Whether some process records into the store, as far as can be seen."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """A context in which no other process records into the store.

        Raises
        ------
        GradscopeError
            Another one does.
        """
        ...


StorePath = str | Path | Location
"""A path or a URL, or what `locate` makes of it."""


def locate(where: StorePath) -> Location:
    """The location that a path (`~` is the user's folder) or a URL (``s3://bucket/name.zarr``) names."""
    if not isinstance(where, str | Path):
        if not hasattr(where, "listing"):
            raise GradscopeError(f"the path of a store is text or a pathlib.Path, got {where!r:.80}")
        return where
    if not str(where):
        raise GradscopeError("the path of a store is empty")
    return Bucket(where) if isinstance(where, str) and "://" in where else Folder(Path(os.path.expanduser(where)))


@contextmanager
def writing(location: Location) -> Iterator[None]:
    """What goes wrong in writing, as an error for the user."""
    try:
        yield
    except location.errors as error:
        raise GradscopeError(f"{location} could not be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why something could not be read or written, in a line."""
    return getattr(error, "strerror", None) or first_line(error)
