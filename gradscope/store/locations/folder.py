"""Stores in folders of this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import MAX_METADATA_BYTES, regular, replace_file
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
        except (OSError, GradscopeError):
            return None

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
        if "/" in key:
            file.parent.mkdir(exist_ok=True)
        replace_file(file, content, durable=True)

    def remove(self, key: str) -> None:
        file = self.path / key
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)

    @contextmanager
    def made(self, overwrite: bool = False) -> "Iterator[Folder]":
        path = Path(os.path.realpath(self.path))
        partial, replaced = (path.with_name(f".{path.name}.{what}") for what in ("partial", "replaced"))
        with self._creating(path.with_name(f".{path.name}.making")), ExitStack() as stack:
            old = overwrite and path.exists()
            if old:
                stack.enter_context(self.lock())
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed while creating
            try:
                yield Folder(partial)
                if old:
                    shutil.rmtree(replaced, ignore_errors=True)
                    path.rename(replaced)
                partial.rename(path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                if replaced.exists() and not path.exists():
                    replaced.rename(path)
                raise
            shutil.rmtree(replaced, ignore_errors=True)

    @contextmanager
    def _creating(self, file: Path) -> Iterator[None]:
        """While this context is open, no other process can create the store."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        with exclusive(file) as free:
            if not free:
                raise GradscopeError(f"{self}: another process is creating it")
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    def locked(self) -> bool:
        return is_locked(self._lock)

    @contextmanager
    def lock(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
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


def _rewrite(file: Path, content: bytes) -> None:
    """Write into a file that is locked, by one call; readers use the copy of these metadata in the root."""
    with file.open("r+b", buffering=0) as opened:
        opened.write(content)
        opened.truncate()
        os.fsync(opened.fileno())
