"""Locations of stores: folders of this machine, and URLs of object stores."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from gradscope.errors import GradscopeError
from gradscope.store.locations.bucket import Bucket, first_line
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.locations.folder import ROOT, Folder

__all__ = ["ROOT", "Location", "StorePath", "locate", "reason", "writing"]


class Location(Protocol):
    """A place that may hold a store. Its ``str`` is the path or URL that the user gave."""

    @property
    def path(self) -> Path | None:
        """The folder; None for an object store."""
        ...

    @property
    def zarr(self) -> Any:
        """The store as zarr and xarray open it."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Errors that reading and writing raise."""
        ...

    def exists(self) -> bool:
        """Whether anything exists there."""
        ...

    def read(self, key: str, most: int = MAX_METADATA_BYTES) -> bytes | None:
        """Content of a key, None if there is none. In a folder at most ``most + 1`` bytes are read.

        Raises
        ------
        GradscopeError
            It cannot be read.
        """
        ...

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Key and size in bytes of every file or object, or of those in `folder`; links are not followed."""
        ...

    def replace(self, key: str, content: bytes) -> None:
        """Write a file or object; it replaces an earlier one atomically."""
        ...

    def fill(self, files: Mapping[str, bytes]) -> None:
        """Write the files or objects of a new store by key, the root's metadata last.

        Nothing writes any more when this ends: after an error zarr would go on with other files.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove a file or object, or a folder of this name with its content."""
        ...

    def sync(self, folder: str | None = None) -> None:
        """Flush the names in a folder of the store to disk, by default all names and files; not in an object store."""
        ...

    def made(self, overwrite: bool = False, durable: bool = False) -> "AbstractContextManager[Location]":
        """A context that yields the location to create a store in. After an exit without error the store is here.

        With `overwrite` it replaces a store that exists here; with `durable` it is flushed to disk before.
        """
        ...

    def clean(self) -> None:
        """Remove what a process that was killed while it created a store left beside it."""
        ...

    def locked(self) -> bool:
        """Whether a process records into the store; always True for an object store, which has no locks."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """A context in which no other process records into the store.

        Raises
        ------
        GradscopeError
            Another process does.
        """
        ...


StorePath = str | Path | Location
"""A path, a URL, or a `Location`."""


def locate(where: StorePath) -> Location:
    """The location of a path (`~` is the user's folder) or a URL (``s3://bucket/name.zarr``)."""
    if not isinstance(where, str | Path):
        if not hasattr(where, "listing"):
            raise GradscopeError(f"the path of a store must be text or a pathlib.Path, got {where!r:.80}")
        return where
    if not str(where):
        raise GradscopeError("the path of a store is empty")
    return Bucket(where) if isinstance(where, str) and "://" in where else Folder(Path(os.path.expanduser(where)))


@contextmanager
def writing(location: Location) -> Iterator[None]:
    """Raise errors of writing as GradscopeError."""
    try:
        yield
    except location.errors as error:
        raise GradscopeError(f"{location} could not be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """One line that says why reading or writing failed."""
    return getattr(error, "strerror", None) or first_line(error)
