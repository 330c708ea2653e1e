"""Stores in object stores."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import zarr.storage

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.locations.folder import ROOT

RETRY_SECONDS = 60
"""A request that fails is repeated for this long."""
_TRIAL_SECONDS = 2
"""The first request, which shows whether there are credentials, is repeated for this long."""
_METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")  # give credentials to machines of a cloud
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION",
    "gcs": "GOOGLE_SERVICE_ACCOUNT=KEY.json, or `gcloud auth application-default login`",
    "azure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""How to give credentials, by obstore's name of the provider."""


class Bucket:
    """A store in an object store: s3, gs, az, http or any other that obstore opens.

    Credentials come from the environment. Objects are written atomically. A new store counts as one only when the
    metadata of its root exist, which are written last.
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
            self._credentials = _CREDENTIALS.get(obstore.parse_scheme(self.url), "")
        except Exception as error:
            raise GradscopeError(f"{url}: {first_line(error)}") from None
        try:
            self._store = obstore.store.from_url(self.url, retry_config=_retrying(RETRY_SECONDS))
            self._trial = obstore.store.from_url(self.url, retry_config=_retrying(_TRIAL_SECONDS))
        except Exception as error:  # of many types: a missing account, credentials of a wrong form
            raise GradscopeError(f"{url}: {first_line(error)}; {self._wanted}".rstrip("; ")) from None
        self._tried = False
        self.zarr = zarr.storage.ObjectStore(self._store)

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        with self._naming_url():
            return any(len(page) for page in self._store.list(chunk_size=1))

    def read(self, key: str, most: int = MAX_METADATA_BYTES) -> bytes | None:
        with self._naming_url():
            try:
                return bytes(self._store.get(key).bytes())
            except FileNotFoundError:
                return None

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        with self._naming_url():
            for page in self._store.list(folder or None):
                yield from ((found["path"], found["size"]) for found in page)

    def replace(self, key: str, content: bytes) -> None:
        with self._naming_url():
            self._store.put(key, content)

    def fill(self, files: Mapping[str, bytes]) -> None:
        for key in sorted(files, key=ROOT.__eq__):
            self.replace(key, files[key])

    def remove(self, key: str) -> None:
        with self._naming_url(), suppress(FileNotFoundError):
            self._store.delete([key, *(inside for inside, _ in self.listing(key))])

    def sync(self, folder: str | None = None) -> None:
        pass  # a request that was answered is stored

    def clean(self) -> None:
        pass  # a new store is created in its place

    @contextmanager
    def made(self, overwrite: bool = False, durable: bool = False) -> "Iterator[Bucket]":
        with self._naming_url():
            with suppress(FileNotFoundError):
                self._store.delete(ROOT)
            for page in self._store.list():
                self._store.delete([found["path"] for found in page])
        yield self

    def locked(self) -> bool:
        return True  # object stores have no locks: believe the status `recording`

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    @property
    def _wanted(self) -> str:
        return f"credentials come from the environment: {self._credentials}" if self._credentials else ""

    @contextmanager
    def _naming_url(self) -> Iterator[None]:
        """Raise the connection's errors as GradscopeError, with the URL."""
        self._refuse_without_credentials()
        try:
            yield
        except self.errors as error:
            raise GradscopeError(f"{self.url}: {first_line(error)}") from error

    def _refuse_without_credentials(self) -> None:
        """Make one request with a short time limit, so that missing credentials are reported within seconds.

        Any other error is left to the request that follows.
        """
        if self._tried:
            return
        self._tried = True
        with suppress(FileNotFoundError):
            try:
                self._trial.head(ROOT)
            except self.errors as error:
                if any(host in str(error) for host in _METADATA_SERVERS):
                    self._tried = False
                    message = f"{self.url}: no credentials, and this machine has none of its own; {self._wanted}"
                    raise GradscopeError(message) from error


def first_line(error: BaseException) -> str:
    """Type of an error, and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")


def _retrying(seconds: float) -> Any:
    """Settings for retries with growing pauses, until the seconds are over."""
    pauses = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    return {"max_retries": 10_000, "retry_timeout": timedelta(seconds=seconds), "backoff": pauses}
