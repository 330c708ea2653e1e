"""Start processes of gradscope's command line quickly, by forking a process that has loaded all modules.

``python nursery.py`` reads one line of JSON per process, its arguments. It answers with the process id and, when the
process has ended, with its exit status.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from small_run import environment


class Nursery:
    """Starts processes in a folder, one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, *arguments: str) -> int:
        """Start ``gradscope ARGUMENTS``; return the process id."""
        self._end_what_runs()
        assert self._process.stdin
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        self._running = self._answer()
        assert self._running > 1, self._running
        return self._running

    def end(self) -> tuple[int, str, str]:
        """Wait for the process; return exit status (negative: the signal), standard output and standard error.

        Standard output is the file `out` of the folder; a test may put a pipe or a link to a device there.
        """
        status = self._wait()
        out, err = self._folder / "out", self._folder / "err"
        return status, out.read_text() if out.is_file() else "", err.read_text()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self.begin(*arguments)
        return self.end()

    def _answer(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def _wait(self) -> int:
        status = self._answer()
        self._running = None
        return status

    def _end_what_runs(self) -> None:
        """Kill a process that a failed test left running."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.kill(self._running, signal.SIGKILL)
            self._wait()

    def close(self) -> None:
        try:
            self._end_what_runs()
        finally:
            self._process.kill()
            self._process.communicate()


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    made = Nursery(folder)
    try:
        yield made
    finally:
        made.close()


def _serve() -> None:
    gc.disable()
    import torch

    import gradscope.cli.record_workflow  # noqa: F401
    from gradscope import cli

    gc.freeze()  # a child that searched all modules for garbage would copy their memory
    gc.enable()
    # Background jobs of a shell, and their children, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            for name, descriptor in (("out", 1), ("err", 2)):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            sys.argv = ["gradscope", *json.loads(line)]
            try:
                cli.main()
            except SystemExit as ended:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code or 0)  # to free all modules takes seconds
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
