"""Where a store lies: a folder of this machine, or an object store."""

from pathlib import Path, PurePosixPath
from typing import Self

from google_crc32c import value as crc32c

from gradscope.store.chunks import Stamp, stamp
from gradscope.store.locations.bucket import Bucket
from gradscope.store.locations.location import ROOT, locate


class RemoteStore(Bucket):
    """A store in an object store, with the parts of a path that pages show."""

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def stem(self) -> str:
        """`name` without its ending."""
        return PurePosixPath(self.url).stem

    def absolute(self) -> Self:
        """The store itself, as a URL has no other form."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


StoreAddress = Path | RemoteStore


def store_address(store: str | Path) -> StoreAddress:
    """The address of a path or URL.

    Raises
    ------
    GradscopeError
        The URL is none of an object store, or obstore is not installed.
    """
    return RemoteStore(store) if isinstance(store, str) and "://" in store else Path(store)


def exists(store: StoreAddress) -> bool:
    """Whether there is anything at an address. GradscopeError where an object store does not answer."""
    return locate(store).exists()


def root_stamp(store: StoreAddress) -> Stamp | None:
    """A value that changes whenever a store's metadata are written; None if there are none."""
    if isinstance(store, Path):
        return stamp(store / ROOT)
    content = store.read(ROOT)
    return None if content is None else (len(content), crc32c(content))


def root_size(store: StoreAddress) -> int:
    """Bytes of a store's metadata.

    Raises
    ------
    FileNotFoundError
        There are none.
    """
    return (store / ROOT).stat().st_size if isinstance(store, Path) else len(store.read(ROOT) or b"")
