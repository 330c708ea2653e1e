"""See every change that this process makes to the files of a folder, and let some fail.

Python's functions for files are replaced while `traced` is open: those of `os`, and `open`. A file opened by `open` is
unbuffered at its lowest layer, which is a class of ours, so every ``write`` reaches `Trace` as the system gets it.
"""

import builtins
import io
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gradscope.store.locations import folder as locations

CHANGES = ("create", "write", "truncate", "rename", "exchange", "link", "unlink", "mkdir", "rmdir")
"""Kinds of events that change the folder."""
KINDS = (*CHANGES, "open", "read", "sync")
"""All kinds; ``open`` opens an existing file for writing, or a folder, and ``read`` a file for reading."""
_RANDOM = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Event:
    """A call that reached the file system."""

    kind: str
    """One of `KINDS`."""
    path: str
    """Relative to the traced folder; empty for the folder itself."""
    other: str = ""
    """Second path of ``rename``, ``exchange`` and ``link``."""
    file: int = -1
    """Number of the open file, for ``create``, ``open``, ``read``, ``write``, ``truncate`` and ``sync``."""
    at: int = 0
    """Offset of ``write``, length of ``truncate``."""
    data: bytes = b""


@dataclass(frozen=True)
class Call:
    """A call by what it does and how often it did so before: the same in every run of a workload."""

    kind: str
    path: str
    number: int


class Trace:
    """The events of a folder, in the order in which they reached the file system.

    Parameters
    ----------
    folder
        The folder.
    fault
        Called before each call, with the call; what it raises is the call's result.
    """

    def __init__(self, folder: Path, fault: Callable[[Call], None] = lambda call: None) -> None:
        self.folder, self.events = os.path.realpath(folder), list[Event]()
        self.calls: list[Call] = []
        """Calls, those that failed included."""
        self._fault = fault
        self._counts: Counter[tuple[str, str]] = Counter()
        self._files: dict[int, tuple[int, str, bool]] = {}
        self._opened = 0
        self._lock = threading.RLock()

    def relative(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path within the folder; None if it lies outside."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        text = os.path.abspath(text)
        if text == self.folder:
            return ""
        return text[len(self.folder) + 1 :] if text.startswith(self.folder + os.sep) else None

    def _calls(self, kind: str, path: str) -> None:
        name = _RANDOM.sub("*", path)
        call = Call(kind, name, self._counts[kind, name])
        self._counts[kind, name] += 1
        self.calls.append(call)
        self._fault(call)

    def named(self, kind: str, real: Callable[..., Any], paths: int) -> Callable[..., Any]:
        """A function like `real`, which changes the names of one or two paths."""

        def call(*given: Any, **options: Any) -> Any:
            folders = [options.get("dir_fd", options.get(key)) for key in ("src_dir_fd", "dst_dir_fd")]
            found = [self.relative(path, at) for path, at in zip(given[:paths], folders, strict=False)]
            if None in found:
                return real(*given, **options)
            with self._lock:
                self._calls(kind, found[-1] or "")
                result = real(*given, **options)
                self.events.append(Event(kind, *found))  # type: ignore[arg-type]
                return result

        return call

    def open(self, real: Callable[..., int]) -> Callable[..., int]:
        """A function like ``os.open``."""

        def call(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            name = self.relative(path, dir_fd)
            if name is None:
                return real(path, flags, mode, dir_fd=dir_fd)
            with self._lock:
                writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
                there = os.path.lexists(os.path.join(self.folder, name))
                creates = bool(flags & os.O_CREAT) and not there
                kind = "create" if creates else "open" if writes else "read"
                self._calls(kind, name)
                descriptor = real(path, flags, mode, dir_fd=dir_fd)
                self._opened += 1
                self._files[descriptor] = self._opened, name, bool(flags & os.O_APPEND)
                self.events.append(Event(kind, name, file=self._opened))
                if writes and flags & os.O_TRUNC and not creates:
                    self.events.append(Event("truncate", name, file=self._opened))
                return descriptor

        return call

    def of_file(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function like `real`, whose first argument is a descriptor: ``write``, ``truncate`` or ``sync``."""

        def call(descriptor: int, *given: Any) -> Any:
            if descriptor not in self._files:
                return real(descriptor, *given)
            with self._lock:
                number, name, appends = self._files[descriptor]
                self._calls(kind, name)
                at = 0
                if kind == "write":
                    at = os.fstat(descriptor).st_size if appends else os.lseek(descriptor, 0, os.SEEK_CUR)
                result = real(descriptor, *given)
                if kind == "write":
                    self.events.append(Event(kind, name, file=number, at=at, data=bytes(given[0])[:result]))
                else:
                    self.events.append(Event(kind, name, file=number, at=given[0] if given else 0))
                return result

        return call

    def close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        """A function like ``os.close``."""

        def call(descriptor: int) -> None:
            with self._lock:
                self._files.pop(descriptor, None)
                real(descriptor)

        return call

    def file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function like ``open``."""
        trace = self

        class File(io.FileIO):
            """A file without a buffer, whose calls are traced."""

            def write(self, data: Any) -> int:
                return int(trace.of_file("write", lambda _, content: super(File, self).write(content))(*self._on(data)))

            def truncate(self, size: int | None = None) -> int:
                length = self.tell() if size is None else size
                return int(trace.of_file("truncate", lambda _, end: super(File, self).truncate(end))(*self._on(length)))

            def close(self) -> None:
                if not self.closed:
                    trace._files.pop(self.fileno(), None)
                super().close()

            def _on(self, value: Any) -> tuple[int, Any]:
                return self.fileno(), value

        def plain(path: str, flags: int) -> int:
            return os.open(path, flags, 0o666)

        def call(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
                 newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
            if isinstance(file, int) or trace.relative(file) is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = File(os.fspath(file), mode.replace("b", "").replace("t", ""), opener=opener or plain)
            if buffering == 0:
                return raw
            both = raw.readable() and raw.writable()
            kind = io.BufferedRandom if both else io.BufferedWriter if raw.writable() else io.BufferedReader
            buffered = kind(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return call


@contextmanager
def traced(folder: Path, fault: Callable[[Call], None] = lambda call: None) -> Iterator[Trace]:
    """Trace the calls of this process in a folder while this context is open."""
    trace = Trace(folder, fault)
    replaced: dict[str, Callable[..., Any]] = {
        "open": trace.open(os.open),
        "close": trace.close(os.close),
        **{name: trace.of_file("write", getattr(os, name)) for name in ("write",)},
        **{name: trace.of_file("truncate", getattr(os, name)) for name in ("ftruncate",)},
        **{name: trace.of_file("sync", getattr(os, name)) for name in ("fsync", "fdatasync")},
        **{name: trace.named("rename", getattr(os, name), 2) for name in ("rename", "replace")},
        **{name: trace.named("unlink", getattr(os, name), 1) for name in ("unlink", "remove")},
        **{name: trace.named(name, getattr(os, name), 1) for name in ("mkdir", "rmdir")},
        "link": trace.named("link", os.link, 2),
    }
    with ExitStack() as stack:
        opened = trace.file(builtins.open)
        for module, names in ((os, replaced), (builtins, {"open": opened}), (io, {"open": opened})):
            for name, function in names.items():
                stack.enter_context(patch.object(module, name, function))
        if hasattr(locations, "exchange"):
            stack.enter_context(patch.object(locations, "exchange", trace.named("exchange", locations.exchange, 2)))
        yield trace
