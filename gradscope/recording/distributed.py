"""A run over several processes, or machines: its blocks are the tasks of a dask cluster.

Each task owns the chunks of its block, so no two processes write one. A block is the same set of samples as in a run of
one process, so with equal numbers of threads its bytes are the same. A worker that dies is replaced, and what it was at
is recorded again from its first step.
"""

import asyncio
import logging
import os
import shlex
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker
from distributed.comm import CommClosedError
from distributed.core import connect
from distributed.security import Security

from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.models.device import set_device
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import Run, moved, prepare
from gradscope.recording.provenance import weights
from gradscope.recording.resume import advice, refuse_other_weights
from gradscope.recording.run import Cell, Outcome, begin_run, block_recorder, record_block
from gradscope.store import Grid
from gradscope.store.locations.location import locate
from gradscope.store.progress import unfinished
from gradscope.store.session import recording

OnBlock = Callable[[Cell], None]
_CONNECT_SECONDS = 30
_REACH_SECONDS = 4
"""In which a connection is made, and in which what listens says what it is."""
_START = "start one with `dask scheduler`"
_one_at_a_time = threading.Lock()  # threads of one worker would share torch's settings, and the device
_loaded: dict[str, Run] = {}
"""The run whose models this process holds, by `Task.id`,"""
_stopped: set[str] = set()
"""and the runs that go on no more."""


@dataclass(frozen=True)
class Task:
    """What every task of a run is told."""

    id: str
    """Of one recording: another one of the same configuration may have other weights."""
    configuration: str
    """`RunConfig` as JSON."""
    device: str
    threads: int | None
    """Of torch; None: what the worker has."""
    stop_on_nonfinite: bool


@dataclass(frozen=True)
class Begun:
    """A store that is ready for its blocks."""

    task: Task
    path: str
    grid: Grid
    bytes: int
    files: int
    device: str
    deviation: dict[str, dict[str, float]]


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of so many new processes of this machine.

    Raises
    ------
    GradscopeError
        Nothing answers at the address, or there are no workers.
    """
    if scheduler is not None:
        _reach(scheduler)
        with Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False) as client:
            if not client.scheduler_info()["workers"]:
                raise GradscopeError(
                    f"--scheduler {scheduler}: has no workers; start some: dask worker {shlex.quote(scheduler)}"
                )
            yield client
        return
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            resources={"GPU": 1},
            silence_logs=logging.ERROR,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(_Unmoved())
        yield client


class _Unmoved(WorkerPlugin):
    """Ctrl-C reaches all processes of a terminal: the one that started the others ends them."""

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reach(scheduler: str) -> None:
    """Refuse an address at which nothing answers before a client waits for it."""
    try:
        found = urlsplit(scheduler)
        host, port = found.hostname, found.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise GradscopeError(f"--scheduler: takes tcp://HOST:PORT, got {scheduler!r}")
    try:
        socket.create_connection((host, port), _REACH_SECONDS).close()
    except (OSError, ValueError) as error:  # the latter: a name that cannot be one
        raise GradscopeError(f"--scheduler {scheduler}: {error}; {_START}") from error
    try:
        kind = asyncio.run(asyncio.wait_for(_kind(scheduler), _REACH_SECONDS))
    except Exception as error:  # of many kinds: what answers speaks another protocol, or says nothing
        why = f" ({error})" if isinstance(error, OSError) and str(error) else ""
        raise GradscopeError(f"--scheduler {scheduler}: no dask scheduler answers there{why}; {_START}") from error
    if kind != "Scheduler":
        raise GradscopeError(f"--scheduler {scheduler}: a dask {kind.lower()} listens there, not a scheduler; {_START}")


async def _kind(address: str) -> str:
    """What the dask server at an address says it is."""
    comm = await connect(address, **Security().get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        return str((await comm.read())["type"])
    finally:
        comm.abort()


def threads_of(workers: int | None) -> int | None:
    """Threads of each of so many processes of this machine: those asked for by OMP_NUM_THREADS, or torch's shared."""
    if workers is None:
        return None
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else max(1, torch.get_num_threads() // workers)


def begin(
    client: Client,
    config: RunConfig,
    *,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    stop_on_nonfinite: bool = False,
    command: Sequence[str] = (),
) -> Begun:
    """Have a worker load and check everything that a run needs, and make its store.

    The workers must reach the store at its path, and the models under the names of the configuration.

    Parameters
    ----------
    client
        Of the cluster.
    config, device, overwrite, resume, stop_on_nonfinite, command
        See `gradscope.recording.prepare.prepare` and `record_run`.
    threads
        See `Task`.

    Raises
    ------
    GradscopeError
        As `prepare`, or the workers cannot be used.
    """
    if locate(config.recording.path).path is not None:  # wherever workers were started
        config = moved(config, str(Path(config.recording.path).absolute()))
    task = Task(uuid.uuid4().hex, config.model_dump_json(), device, threads, stop_on_nonfinite)
    begun = _result(client.submit(_begin, task, overwrite, resume, tuple(command), pure=False))
    if not locate(begun.path).exists():
        raise GradscopeError(f"{begun.path}: a worker made the store, and here it is not: all must see the same folder")
    return begun


def record_blocks(client: Client, begun: Begun, on_block: OnBlock = lambda cell: None) -> Outcome:
    """Record all blocks that a store lacks. GPU workers take one at a time: start them with ``--resources GPU=1``.

    Parameters
    ----------
    client
        Of the cluster.
    begun
        The store.
    on_block
        Called with the cell after each block.

    Raises
    ------
    GradscopeError
        As `record_run`, or a block could not be recorded on any worker.
    """
    location, parts = locate(begun.path), []
    resources = {"GPU": 1} if begun.device == "cuda" else None
    if resources and not any("GPU" in found["resources"] for found in client.scheduler_info()["workers"].values()):
        raise GradscopeError("--scheduler: no worker says that it has a GPU; start them with --resources GPU=1")
    with recording(location, advice(location)):
        pending, cells = {}, {}
        for cell, block in unfinished(location):
            future = client.submit(_record, begun.task, cell, block, pure=False, resources=resources)
            pending[future.key], cells[future.key] = future, cell
        try:
            for future in as_completed(list(pending.values()), loop=client.loop):
                parts.append(_result(future))
                del pending[future.key]
                future.release()  # else dask would record it anew if its worker dies
                on_block(cells[future.key])
        except BaseException:
            _stop(client, begun.task, pending.values())
            raise
        if left := len(unfinished(location)):
            raise GradscopeError(f"{location}: {left} blocks are not recorded, although no worker had an error")
    return Outcome(
        str(location),
        sum(part.bytes for part in parts),
        sum(part.write_seconds for part in parts),
        sum(part.stalled for part in parts),
        tuple(line for part in parts for line in part.nonfinite),
        begun.deviation,
    )


def _stop(client: Client, task: Task, futures: Iterable[Future]) -> None:
    """Have no worker go on with a run: the store is another's as soon as it is given back."""
    with suppress(OSError, TimeoutError, CancelledError):  # no scheduler: then its workers end too
        client.cancel(list(futures), force=True)
        if client.status == "running":
            client.run(_stop_here, task.id, on_error="ignore")


async def _stop_here(run: str) -> None:
    _stopped.add(run)
    while run in _loaded and _one_at_a_time.locked():
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class _Part:
    """What recording one block was like, see `Outcome`."""

    bytes: int
    write_seconds: float
    stalled: float
    nonfinite: tuple[str, ...]


def _tells(work: Callable[..., Any]) -> Callable[..., Any]:
    """What the user can mend is a task's result: dask would print it with a stack, worker by worker."""

    @wraps(work)
    def telling(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except GradscopeError as error:
            return error

    return telling


@_tells
def _begin(task: Task, overwrite: bool, resume: bool, command: Sequence[str]) -> Begun:
    with _one_at_a_time:
        run = _loaded[task.id] = _load(task, overwrite=overwrite, resume=resume)
        load_judge(run)
        location = locate(run.config.recording.path)
        deviation = begin_run(run, location, overwrite=overwrite, resume=resume, command=command)
        return Begun(task, str(location), run.grid, run.schema.bytes(), run.schema.files(), run.device.type, deviation)


@_tells
def _record(task: Task, cell: Cell, block: int) -> _Part:
    def go_on(*_: Any) -> None:
        if task.id in _stopped:
            raise GradscopeError("the run was stopped")

    with _one_at_a_time:
        if task.id in _loaded:
            _set_up(task)
        else:
            run = _load(task, resume=True)
            refuse_other_weights(run.config.recording.path, weights(run.models))  # of another machine, perhaps
            _loaded[task.id] = run
        go_on()
        run = _loaded[task.id]
        with block_recorder(run, locate(run.config.recording.path), task.stop_on_nonfinite) as recorder:
            record_block(run, recorder, cell, block, go_on)
        writer, found = recorder.writer, tuple(recorder.describe(found) for found in recorder.nonfinite)
        return _Part(writer.bytes, writer.seconds, recorder.ring.stalled, found)


def _load(task: Task, *, overwrite: bool = False, resume: bool = False) -> Run:
    """Load and check a run; the one before is let go."""
    _loaded.clear()
    config = RunConfig.model_validate_json(task.configuration)
    return prepare(config, _set_up(task), overwrite=overwrite, resume=resume)


def _set_up(task: Task) -> str:
    """Set torch up for this thread, as a run of one process has it; gives the device's name."""
    name, devices = get_worker().name, torch.cuda.device_count()
    several = task.device in ("auto", "cuda") and devices > 1 and isinstance(name, int)  # workers of this machine
    device = f"cuda:{name % devices}" if several else task.device
    set_device(device)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    return device


def _result(future: Future) -> Any:
    try:
        result = future.result()
    except KilledWorker as error:
        raise GradscopeError(f"workers died again and again at the same block, for lack of memory? {error}") from error
    except (CommClosedError, CancelledError) as error:
        raise GradscopeError(f"the scheduler is gone: {error}") from error
    if isinstance(result, GradscopeError):
        raise result
    return result
