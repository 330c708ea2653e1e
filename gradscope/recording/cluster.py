"""A dask cluster: new processes on this machine, or workers of a running scheduler."""

import asyncio
import logging
import os
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import dask
import torch
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from distributed.core import connect
from distributed.security import Security

from gradscope.errors import GradscopeError

_CONNECT_SECONDS = 30
"""Time limit for connecting a client to a scheduler."""
_REACH_SECONDS = 4
"""Time limit for reaching an address, and for its server to say what it is."""
_START = "start one with `dask scheduler`"


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """Connect to the scheduler at an address, or start this many worker processes on this machine.

    Parameters
    ----------
    workers
        Number of processes to start; used if `scheduler` is None.
    scheduler
        Address of a running scheduler, ``tcp://HOST:PORT``.

    Raises
    ------
    GradscopeError
        No scheduler answers at the address, or it has no workers.
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
            silence_logs=logging.CRITICAL,  # a worker that ends between two heartbeats logs a traceback as an error
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(_IgnoreInterrupt())
        yield client


def check_gpus(client: Client) -> None:
    """Raise GradscopeError if no worker declares the resource ``GPU``."""
    if not any("GPU" in found["resources"] for found in client.scheduler_info()["workers"].values()):
        raise GradscopeError("--scheduler: no worker declares a GPU; start them with --resources GPU=1")


def threads_of(workers: int | None) -> int | None:
    """Threads of each of `workers` processes on this machine; None if there are none.

    The number is OMP_NUM_THREADS where that is set, else torch's threads divided by the number of processes.
    """
    if workers is None:
        return None
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else max(1, torch.get_num_threads() // workers)


class _IgnoreInterrupt(WorkerPlugin):
    """Makes workers ignore Ctrl-C, which a terminal sends to all processes: the parent process ends them."""

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _reach(scheduler: str) -> None:
    """Raise GradscopeError within seconds if no scheduler answers; a client would wait much longer."""
    try:
        found = urlsplit(scheduler)
        host, port = found.hostname, found.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise GradscopeError(f"--scheduler: takes tcp://HOST:PORT, got {scheduler!r}")
    try:
        socket.create_connection((host, port), _REACH_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: an impossible host name
        raise GradscopeError(f"--scheduler {scheduler}: {error}; {_START}") from error
    try:
        kind = asyncio.run(asyncio.wait_for(_kind(scheduler), _REACH_SECONDS))
    except Exception as error:  # of many types: a server of another protocol, or one that never answers
        why = f" ({error})" if isinstance(error, OSError) and str(error) else ""
        raise GradscopeError(f"--scheduler {scheduler}: no dask scheduler answers there{why}; {_START}") from error
    if kind != "Scheduler":
        raise GradscopeError(f"--scheduler {scheduler}: a dask {kind.lower()} listens there, not a scheduler; {_START}")


async def _kind(address: str) -> str:
    """Type of the dask server at an address, for example ``Scheduler``."""
    comm = await connect(address, **Security().get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        return str((await comm.read())["type"])
    finally:
        comm.abort()
