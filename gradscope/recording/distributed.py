"""Record a run with several processes or machines: each `Unit` of the run is one task of a dask cluster.

Each task owns the chunks of its blocks, so no two processes write the same chunk. Blocks are the same as in a run in
one process, so with equal numbers of threads the bytes are the same. A worker that dies is replaced, and its unit is
recorded again from the first step.
"""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from distributed import Client, Future, KilledWorker, as_completed, get_worker
from distributed.comm import CommClosedError

from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.models.device import set_device
from gradscope.models.weights import weights
from gradscope.recording.cluster import check_gpus
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import Run, moved, prepare
from gradscope.recording.resume import advice, refuse_other_weights
from gradscope.recording.run import Outcome, begin_run, block_recorder, record_cells
from gradscope.recording.units import Cell, Unit, units
from gradscope.store import Grid
from gradscope.store.locations.location import locate
from gradscope.store.progress import unfinished
from gradscope.store.session import recording

OnBlock = Callable[[Cell], None]
_one_at_a_time = threading.Lock()  # threads of one worker would share torch's settings and the device
_loaded: dict[str, Run] = {}
"""The run whose models this process holds, by `Task.id`."""
_stopped: set[str] = set()
"""`Task.id` of each run that this process must not continue."""


@dataclass(frozen=True)
class Task:
    """What every task of a run gets."""

    id: str
    """Identifies one recording: the same configuration may be recorded again with other weights."""
    configuration: str
    """`RunConfig` as JSON."""
    device: str
    threads: int | None
    """Number of torch's threads; None: the worker's default."""
    stop_on_nonfinite: bool


@dataclass(frozen=True)
class Begun:
    """A store that is ready for its blocks."""

    task: Task
    path: str
    grid: Grid
    units: list[Unit]
    """What is left to record."""
    bytes: int
    files: int
    device: str
    deviation: dict[str, dict[str, float]]


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
    """Let one worker load and check everything that a run needs, and create its store.

    All workers must reach the store at its path, and the models under their names in the configuration.

    Parameters
    ----------
    client
        A client of the cluster.
    config, device, overwrite, resume, stop_on_nonfinite, command
        See `gradscope.recording.prepare.prepare` and `gradscope.recording.run.record_run`.
    threads
        See `Task`.

    Raises
    ------
    GradscopeError
        The same errors as `prepare`; or this process does not see the store that the worker created.
    """
    if locate(config.recording.path).path is not None:  # workers may run in other folders
        config = moved(config, str(Path(config.recording.path).absolute()))
    task = Task(uuid.uuid4().hex, config.model_dump_json(), device, threads, stop_on_nonfinite)
    begun = _result(client.submit(_begin, task, overwrite, resume, tuple(command), pure=False))
    if not locate(begun.path).exists():
        raise GradscopeError(f"{begun.path}: a worker created the store, but it is not visible here; share the folder")
    return begun


def record_blocks(client: Client, begun: Begun, on_block: OnBlock = lambda cell: None) -> Outcome:
    """Record all blocks that a store lacks.

    A worker with a GPU records one block at a time: start it with ``--resources GPU=1``.

    Parameters
    ----------
    client
        A client of the cluster.
    begun
        The store, as `begin` returned it.
    on_block
        Called after each block with its cell.

    Raises
    ------
    GradscopeError
        The same errors as `record_run`; or no worker could record a block.
    """
    location, parts = locate(begun.path), []
    resources = {"GPU": 1} if begun.device == "cuda" else None
    if resources:
        check_gpus(client)
    with recording(location, advice(location)):
        pending, recorded = {}, {}
        for unit in begun.units:
            future = client.submit(_record, begun.task, unit, pure=False, resources=resources)
            pending[future.key], recorded[future.key] = future, unit
        try:
            for future in as_completed(list(pending.values()), loop=client.loop):
                parts.append(_result(future))
                del pending[future.key]
                future.release()  # otherwise dask records the block again if its worker dies
                for cell in recorded[future.key].cells:
                    on_block(cell)
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
    """Stop a run in all workers: once its lock is released, another process may write into the store."""
    with suppress(OSError, TimeoutError, CancelledError):  # the scheduler is gone: then its workers end too
        client.cancel(list(futures), force=True)
        if client.status == "running":
            client.run(_stop_here, task.id, on_error="ignore")


async def _stop_here(run: str) -> None:
    _stopped.add(run)
    while run in _loaded and _one_at_a_time.locked():
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class _Part:
    """The share of one unit in `Outcome`."""

    bytes: int
    write_seconds: float
    stalled: float
    nonfinite: tuple[str, ...]


def _returns_errors(work: Callable[..., Any]) -> Callable[..., Any]:
    """Make a task return its GradscopeError: dask would print a raised one with a traceback in every worker."""

    @wraps(work)
    def returning(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except GradscopeError as error:
            return error

    return returning


@_returns_errors
def _begin(task: Task, overwrite: bool, resume: bool, command: Sequence[str]) -> Begun:
    with _one_at_a_time:
        run = _loaded[task.id] = _load(task, overwrite=overwrite, resume=resume)
        load_judge(run)
        location = locate(run.config.recording.path)
        deviation = begin_run(run, location, overwrite=overwrite, resume=resume, command=command)
        schema, left = run.schema, unfinished(location)
        divided = units(left, schema, run.probes)
        return Begun(task, str(location), run.grid, divided, schema.bytes(), schema.files(), run.device.type, deviation)


@_returns_errors
def _record(task: Task, unit: Unit) -> _Part:
    def go_on(*_: Any) -> None:
        if task.id in _stopped:
            raise GradscopeError("the run was stopped")

    with _one_at_a_time:
        if task.id in _loaded:
            _set_up(task)
        else:
            run = _load(task, resume=True)
            refuse_other_weights(run.config.recording.path, weights(run.models))  # another machine may have others
            _loaded[task.id] = run
        go_on()
        run = _loaded[task.id]
        with block_recorder(run, locate(run.config.recording.path), task.stop_on_nonfinite) as recorder:
            record_cells(run, recorder, unit, go_on)
        writer, found = recorder.writer, tuple(recorder.describe(found) for found in recorder.nonfinite)
        return _Part(writer.bytes, writer.seconds, recorder.ring.stalled, found)


def _load(task: Task, *, overwrite: bool = False, resume: bool = False) -> Run:
    """Load and check a run, after releasing the models of the previous one."""
    _loaded.clear()
    config = RunConfig.model_validate_json(task.configuration)
    return prepare(config, _set_up(task), overwrite=overwrite, resume=resume)


def _set_up(task: Task) -> str:
    """Set torch's device and threads in this thread; return the name of the device."""
    name, devices = get_worker().name, torch.cuda.device_count()
    several = task.device in ("auto", "cuda") and devices > 1 and isinstance(name, int)  # workers of this machine
    device = f"cuda:{name % devices}" if several else task.device
    set_device(device)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    return device


def _result(future: Future) -> Any:
    """Wait for a task; raise the GradscopeError that it returned, or one in place of dask's errors."""
    try:
        result = future.result()
    except KilledWorker as error:
        raise GradscopeError(f"several workers died at the same block; is there enough memory? {error}") from error
    except (CommClosedError, CancelledError) as error:
        raise GradscopeError(f"the scheduler is gone, or cancelled the task: {error}") from error
    if isinstance(result, GradscopeError):
        raise result
    return result
