"""Addresses without a usable scheduler are refused within seconds."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from distributed import LocalCluster

from gradscope.errors import GradscopeError
from gradscope.recording import cluster as cluster_module
from gradscope.recording.cluster import cluster

pytestmark = pytest.mark.slow


def test_a_scheduler_without_workers_is_refused():
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as local,
        pytest.raises(GradscopeError, match="has no workers; start some: dask worker tcp://"),
        cluster(None, local.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:1", r"--scheduler tcp://127.0.0.1:1: .*refused; start one with `dask scheduler`"),
        ("127.0.0.1", r"--scheduler: takes tcp://HOST:PORT, got '127.0.0.1'"),
        ("tcp://[::1", r"--scheduler: takes tcp://HOST:PORT, got 'tcp://\[::1'"),
        ("tcp://a..b:80", r"--scheduler tcp://a..b:80: "),
        ("tcp://127.0.0.1:many", r"--scheduler: takes tcp://HOST:PORT, got 'tcp://127.0.0.1:many'"),
    ],
)
def test_an_address_without_a_scheduler_is_refused_at_once(address, message):
    with pytest.raises(GradscopeError, match=message), cluster(None, address):
        pass


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does not speak dask's protocol."""
    connections = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                answer(connections[-1])

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: None,
        lambda connection: connection.close(),
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    ],
    ids=["silent", "closes", "http", "ssh"],
)
def test_a_port_of_another_protocol_is_refused_within_seconds(answer, monkeypatch):
    assert cluster_module._REACH_SECONDS < 10
    monkeypatch.setattr(cluster_module, "_REACH_SECONDS", 2)
    start = time.monotonic()
    with (
        listening(answer) as address,
        pytest.raises(GradscopeError, match=rf"--scheduler {address}: no dask scheduler answers there") as refused,
        cluster(None, address),
    ):
        pass
    assert time.monotonic() - start < 10
    assert str(refused.value).endswith("start one with `dask scheduler`")
