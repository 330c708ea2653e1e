"""Where a store is: a folder of this machine, or below a URL of an object store."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import zarr.storage

from gradscope.errors import GradscopeError
from gradscope.store.lock import exclusive, is_locked
from gradscope.store.trust import MAX_METADATA_BYTES

_WHERE_MACHINES_ASK = "169.254.169.254"  # for credentials, where the environment has none
RETRY_SECONDS = 60
"""A request to an object store is repeated for so long."""
ROOT = "zarr.json"
"""Key of a store's metadata."""


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

    def read(self, key: str) -> bytes | None:
        """Metadata of the store, by their key; None where they are not there."""
        ...

    def listing(self) -> Iterator[tuple[str, int]]:
        """Key and size in bytes of every file or object there; links are not followed."""
        ...

    def replace(self, key: str, content: bytes) -> None:
        """Put a file or object in place of the one before, at once."""
        ...

    def made(self) -> "AbstractContextManager[Location]":
        """A context that gives the location to make a store in; left without an error, the store is here, whole.

        What was here is replaced.
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


class Folder:
    """A store on this machine's disk."""

    errors = (OSError,)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zarr = str(path)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def read(self, key: str) -> bytes | None:
        file = self.path / key
        try:
            if not file.is_file():
                return None
            with file.open("rb") as content:
                return content.read(min(file.stat().st_size, MAX_METADATA_BYTES) + 1)
        except OSError:
            return None

    def listing(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self.path):
            for name in names:
                file = Path(folder, name)
                with suppress(OSError):  # gone meanwhile
                    yield file.relative_to(self.path).as_posix(), file.lstat().st_size

    def replace(self, key: str, content: bytes) -> None:
        replace_file(self.path / key, content)

    @contextmanager
    def made(self) -> Iterator[Location]:
        partial, replaced = (self.path.with_name(f".{self.path.name}.{what}") for what in ("partial", "replaced"))
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed while it was made
        try:
            yield Folder(partial)
            if self.path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                self.path.rename(replaced)
            partial.rename(self.path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if replaced.exists() and not self.path.exists():
                replaced.rename(self.path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    def locked(self) -> bool:
        return is_locked(self._lock)

    @contextmanager
    def lock(self) -> Iterator[None]:
        with exclusive(self._lock) as free:
            if not free:
                raise GradscopeError(f"{self}: another process is recording into it")
            yield

    @property
    def _lock(self) -> Path:
        return self.path / "written" / ROOT  # of the files that are there throughout, one that is never replaced


class Bucket:
    """A store in an object store: s3, gs, az, http or whatever else obstore opens. Credentials are the environment's.

    Every object appears at once. What is made there is a store only when its root's metadata, written last, are there.
    """

    path = None

    def __init__(self, url: str) -> None:
        try:
            import obstore
        except ImportError:
            raise GradscopeError(f"{url}: remote stores need obstore: pip install 'gradscope[remote]'") from None
        self.errors: tuple[type[Exception], ...] = (obstore.exceptions.BaseError,)
        self.url = url.rstrip("/")
        try:
            self._store = obstore.store.from_url(self.url, retry_config=_retrying())
        except Exception as error:  # of many kinds: a scheme that is not known, a missing account
            raise GradscopeError(f"{url}: {_first_line(error)}") from None
        self.zarr = zarr.storage.ObjectStore(self._store)

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        with self._told():
            return any(len(page) for page in self._store.list(chunk_size=1))

    def read(self, key: str) -> bytes | None:
        with self._told():
            try:
                return bytes(self._store.get(key).bytes())
            except FileNotFoundError:
                return None

    def listing(self) -> Iterator[tuple[str, int]]:
        with self._told():
            for page in self._store.list():
                yield from ((found["path"], found["size"]) for found in page)

    def replace(self, key: str, content: bytes) -> None:
        with self._told():
            self._store.put(key, content)

    @contextmanager
    def made(self) -> Iterator[Location]:
        with self._told():
            with suppress(FileNotFoundError):
                self._store.delete(ROOT)
            for page in self._store.list():
                self._store.delete([found["path"] for found in page])
        yield self

    def locked(self) -> bool:
        return True  # object stores have no locks: what says it is being recorded is believed

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the connection, with the URL before them."""
        try:
            yield
        except self.errors as error:
            asked = "; are there credentials in the environment?" if _WHERE_MACHINES_ASK in str(error) else ""
            raise GradscopeError(f"{self.url}: {_first_line(error)}{asked}") from error


def _retrying() -> Any:
    """Ever longer pauses, until `RETRY_SECONDS` are over."""
    pauses = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    return {"max_retries": 10_000, "retry_timeout": timedelta(seconds=RETRY_SECONDS), "backoff": pauses}


StorePath = str | Path | Location
"""A path or a URL, or what `locate` makes of it."""


def locate(where: StorePath) -> Location:
    """The location that a path or a URL (``s3://bucket/name.zarr``) names."""
    if not isinstance(where, str | Path):
        return where
    return Bucket(where) if isinstance(where, str) and "://" in where else Folder(Path(where))


@contextmanager
def writing(location: Location) -> Iterator[None]:
    """What goes wrong in writing, as an error for the user."""
    try:
        yield
    except location.errors as error:
        raise GradscopeError(f"{location} could not be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why something could not be read or written, in a line."""
    return getattr(error, "strerror", None) or _first_line(error)


def replace_file(file: str | Path, *parts: Any, durable: bool = False) -> None:
    """Write a file that is never seen half written, of parts that give their bytes.

    Durable: when it is named it is on the disk, and its name is when this returns.
    """
    partial = f"{file}.partial"
    try:
        with open(partial, "wb") as out:
            for part in parts:
                out.write(part)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        os.replace(partial, file)
    except OSError:
        with suppress(OSError):
            os.unlink(partial)
        raise
    if durable:
        sync(Path(file).parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
