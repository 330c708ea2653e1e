"""Stores in object stores."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import zarr.storage

from gradscope.errors import GradscopeError
from gradscope.store.folder import ROOT

RETRY_SECONDS = 60
"""A request is repeated for so long."""
_WHERE_MACHINES_ASK = "169.254.169.254"  # for credentials, where the environment has none


class Bucket:
    """A store in an object store: s3, gs, az, http or whatever else obstore opens. Credentials are the environment's.

    Every object appears at once. What is made there is a store only when its root's
    metadata, consolidated last, are there.
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
            raise GradscopeError(f"{url}: {first_line(error)}") from None
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

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        with self._told():
            for page in self._store.list(folder or None):
                yield from ((found["path"], found["size"]) for found in page)

    def replace(self, key: str, content: bytes) -> None:
        with self._told():
            self._store.put(key, content)

    def remove(self, key: str) -> None:
        with self._told(), suppress(FileNotFoundError):
            self._store.delete([key, *(inside for inside, _ in self.listing(key))])

    @contextmanager
    def made(self, overwrite: bool = False) -> "Iterator[Bucket]":
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
            missing = "no credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION), "
            told = f"{missing}nor from this machine: " if _WHERE_MACHINES_ASK in str(error) else ""
            raise GradscopeError(f"{self.url}: {told}{first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Kind and first line of an error's text."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _retrying() -> Any:
    """Ever longer pauses, until `RETRY_SECONDS` are over."""
    pauses = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    return {"max_retries": 10_000, "retry_timeout": timedelta(seconds=RETRY_SECONDS), "backoff": pauses}
