"""Stores in folders of this machine."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gradscope.errors import GradscopeError
from gradscope.store.locations.exchange import exchange
from gradscope.store.locations.files import MAX_METADATA_BYTES, regular, replace_file, sync, sync_all
from gradscope.store.locations.lock import exclusive, is_locked

ROOT = "zarr.json"
"""Key of a store's metadata."""


class Folder:
    """A store in a folder of this machine."""

    errors = (OSError,)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zarr = str(path)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # the name is too long, or a folder may not be read
            raise GradscopeError(f"{self}: {error.strerror}") from error
        return True

    def read(self, key: str, most: int = MAX_METADATA_BYTES) -> bytes | None:
        file = self.path / key
        try:
            with regular(file) as content:
                return content.read(min(os.fstat(content.fileno()).st_size, most) + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, GradscopeError):
            return None
        except OSError as error:
            raise GradscopeError(f"{file} cannot be read: {error.strerror}") from error

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        for inner, _, names in os.walk(self.path / folder):
            for name in names:
                file = Path(inner, name)
                with suppress(OSError):  # removed in the meantime
                    yield file.relative_to(self.path).as_posix(), file.lstat().st_size

    def replace(self, key: str, content: bytes) -> None:
        file = self.path / key
        if file == self._lock and file.exists():
            _rewrite(file, content)
            return
        if not file.parent.exists():
            file.parent.mkdir()
            sync(self.path)
        replace_file(file, content, durable=True)

    def fill(self, files: Mapping[str, bytes]) -> None:
        others = {key: content for key, content in files.items() if key != ROOT}
        for key, content in others.items():
            file = self.path / key
            if not file.parent.exists():
                file.parent.mkdir(parents=True)
            with file.open("xb") as new:
                new.write(content)
        self.replace(ROOT, files[ROOT])

    def remove(self, key: str) -> None:
        file = self.path / key
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)

    def sync(self, folder: str | None = None) -> None:
        if folder is None:
            sync_all(self.path)
        else:
            sync(self.path / folder)

    @contextmanager
    def made(self, overwrite: bool = False, durable: bool = False) -> "Iterator[Folder]":
        path, partial, replaced = self._names
        with self._creating() as free, ExitStack() as stack:
            if not free:
                raise GradscopeError(f"{self}: another process is creating it")
            old = overwrite and path.exists()
            if old and self._lock.exists():  # audits and leaderboards have none
                stack.enter_context(self.lock())
            try:
                yield Folder(partial)
                if durable:
                    sync_all(partial)
                if not old or not exchange(partial, path):
                    if old:
                        path.rename(replaced)
                    partial.rename(path)
                if durable:
                    sync(path.parent)
            except BaseException:
                if replaced.exists() and not path.exists():
                    replaced.rename(path)
                shutil.rmtree(partial, ignore_errors=True)
                raise
            self._remove_leftovers()

    def clean(self) -> None:
        path, *beside = self._names
        if any(os.path.lexists(name) for name in (*beside, self._making)):
            with self._creating():
                pass

    @contextmanager
    def _creating(self) -> Iterator[bool]:
        """While this context is open, no other process can create the store; yields False if another one does.

        What a killed process left is removed, or, if that is the store which it was replacing, brought back.
        """
        self._making.parent.mkdir(parents=True, exist_ok=True)
        self._making.touch()
        with exclusive(self._making) as free:
            try:
                if free:
                    self._remove_leftovers()
                yield free
            finally:
                if free:
                    self._making.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        path, partial, replaced = self._names
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def _making(self) -> Path:
        """A file that is locked while the store is created."""
        return self._names[0].with_name(f".{self._names[0].name}.making")

    @property
    def _names(self) -> tuple[Path, Path, Path]:
        """The store's real path, that of a new one until it is complete, and that of one which is being replaced."""
        path = Path(os.path.realpath(self.path))
        return path, path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced")

    def locked(self) -> bool:
        return is_locked(self._lock)

    @contextmanager
    def lock(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                self._restore_lock()
                free = stack.enter_context(exclusive(self._lock))
            except FileNotFoundError:
                raise GradscopeError(
                    f"{self}: it has no array `written`, so it is not a store that gradscope recorded"
                ) from None
            except OSError as error:
                raise GradscopeError(f"{self} cannot be written: {error.strerror}") from error
            if not free:
                raise GradscopeError(f"{self}: another process is recording into it, or evaluating it")
            yield

    @property
    def _lock(self) -> Path:
        return self.path / "written" / ROOT  # a file that every store has; never replaced, since the file is locked

    def _restore_lock(self) -> None:
        """Make the file that is locked again, from its copy in the root: a power failure may have taken it alone."""
        folder = self._lock.parent
        if self._lock.exists() or folder.is_symlink():
            return
        try:
            known = json.loads(self.read(ROOT) or b"{}")["consolidated_metadata"]["metadata"][folder.name]
        except (ValueError, LookupError, TypeError, RecursionError):  # it is no store, or a damaged one
            return
        folder.mkdir(exist_ok=True)
        with suppress(FileExistsError), self._lock.open("xb") as made:  # another process may be as far
            made.write(json.dumps(known, indent=2).encode())


def _rewrite(file: Path, content: bytes) -> None:
    """Write into a file that is locked, by one call; readers use the copy of these metadata in the root."""
    with file.open("r+b", buffering=0) as opened:
        opened.write(content)
        opened.truncate()
        os.fsync(opened.fileno())
