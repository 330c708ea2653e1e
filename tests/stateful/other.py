"""Another process that acts on stores, and stops before a chosen change of the disk: there it goes on, or is killed."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS = 60
"""After these, a process hangs."""
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
STOPPED, DONE = "stopped", "done"


class Other:
    """A forked process; after it was killed, the next call of `begin` forks another one.

    Parameters
    ----------
    folder
        Changes of files below it count.
    actions
        What it can do, by name.
    """

    def __init__(self, folder: Path, actions: dict[str, Callable[..., None]]) -> None:
        self._folder, self._actions = folder, actions
        self._process: int | None = None
        self._ends: Connection | None = None

    def begin(self, name: str, arguments: tuple[Any, ...], stop: int) -> str:
        """Begin an action, and stop before change number `stop`; `STOPPED`, `DONE`, or the text of an error."""
        if self._process is None:
            self._fork()
        assert self._ends is not None
        self._ends.send((name, arguments, stop))
        return self._answer()

    def go_on(self) -> str:
        """End the action that has stopped: `DONE`, or the text of an error."""
        assert self._ends is not None
        self._ends.send(None)
        return self._answer()

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = None

    def _answer(self) -> str:
        assert self._ends is not None
        assert self._ends.poll(SECONDS), "the other process hangs"
        return str(self._ends.recv())

    def _fork(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._process = os.fork()
        if self._process:
            theirs.close()
            self._ends = ours
            return
        try:
            ours.close()
            _serve(theirs, str(self._folder), self._actions)
        finally:
            os._exit(0)


def _serve(commands: Connection, folder: str, actions: dict[str, Callable[..., None]]) -> None:
    left, lock = 0, threading.Lock()

    def note(event: str, arguments: Any) -> None:
        nonlocal left
        if not _changes(event, arguments, folder):
            return
        with lock:  # other threads wait, too, while this one has stopped
            left -= 1
            if left == 0:
                commands.send(STOPPED)
                commands.recv()

    sys.addaudithook(note)
    while True:
        try:
            name, arguments, stop = commands.recv()
        except EOFError:
            return
        left = stop
        try:
            actions[name](*arguments)
        except Exception as error:
            commands.send(f"{type(error).__name__}: {error}")
        else:
            commands.send(DONE)
        left = 0


def _changes(event: str, arguments: Any, folder: str) -> bool:
    """Whether an event changes a file in a folder, or opens one for that."""
    if event == "open":
        path, _, flags = arguments
        return flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0 and str(path).startswith(folder)
    return event in CHANGES and str(arguments[0]).startswith(folder)
