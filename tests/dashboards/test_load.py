"""Fifty clients scrub through one server for a minute: no error, no growth, and no starved client."""

import http.client
import json
import random
import statistics
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import dash_client
import psutil
import pytest
import small_store
from chromium import command

from dashboards.pages.trajectory.figures import ON_EVERY_PAGE

CLIENTS, SECONDS = 50, 60
ROUND = small_store.TIMESTEPS + 2
"""Requests of one round of a client: each timestep, figures with numbers, thumbnails."""
GROWTH = 48 * 2**20
"""Bytes by which the warm server may grow."""
FAIR = 0.5
"""The slowest client gets at least this share of the fastest client's answers."""
VIEW = {"store": "5f0c", "page": "trajectory", "url": "trajectory?store=5f0c&cell=1&t=400&sample=0"}
PARTS = ("frame-{}.hidden", "title-{}.children", "caption-{}.children", "menu-{}.children", "{}.figure", "{}.style")
FIGURES = [*(part.format(id) for id in ON_EVERY_PAGE for part in PARTS), "trajectory-numbers.data"]
ALL_CLASSES = ({"type": "control", "key": "label"}, "value", "all")


@dataclass
class Client:
    """Scrubs as the Trajectory page does: pictures step by step, then curves and numbers where the cursor rests."""

    url: str
    seed: int
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def scrub(self, until: float) -> None:
        rng, host = random.Random(self.seed), urlsplit(self.url)
        with closing(http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)) as connection:
            while time.monotonic() < until:
                sample, cells = rng.randrange(small_store.TENSORS), rng.randrange(1, 1 << 16)
                for step in range(small_store.TIMESTEPS):
                    self._ask(connection, "GET", f"/frames/5f0c/{sample}/{step}.png?cells={cells:x}&limits=cell")
                numbers = [i for i in range(16) if cells >> i & 1]
                at = {"cell": numbers[0], "sample": sample, "cells": numbers, "variables": ["gradient_cosine"]}
                cursor, version = ("trajectory-cursor", "data", at), ("version", "data", None)
                inputs, states = [cursor, ALL_CLASSES, version], [("view", "data", VIEW)]
                body = dash_client.body(FIGURES, inputs, states, "trajectory-cursor.data")
                self._ask(connection, "POST", "/_dash-update-component", json.dumps(body))
                first = rng.randrange(8)
                self._ask(connection, "GET", f"/thumbnails/5f0c/{numbers[0]}.png?samples={first}-{first + 7}")

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> None:
        headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
        started = time.monotonic()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(f"{path}: {error!r}")
            connection.close()
            return
        self.latencies.append(time.monotonic() - started)
        if answer.status != 200 or b"did not work" in content:
            self.errors.append(f"{path}: {answer.status} {content[:200]!r}")


@dataclass
class Use:
    """Resources of a process."""

    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Use":
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


def load(store: Path, clients: int, seconds: float) -> tuple[list[Client], Use, Use]:
    """The clients, and the server's resources when it was warm and at the end, with all clients connected."""
    with command(store) as (url, pid):
        until = time.monotonic() + seconds
        asking = [Client(url, seed) for seed in range(clients)]
        threads = [threading.Thread(target=client.scrub, args=(until,)) for client in asking]
        for thread in threads:
            thread.start()
        while min(len(client.latencies) for client in asking) < ROUND and time.monotonic() < until - seconds / 2:
            time.sleep(0.2)
        warm = Use.of(pid)  # each client finished a round: everything is loaded
        time.sleep(max(0, until - time.monotonic() - 1))
        end = Use.of(pid)
        for thread in threads:
            thread.join(90)
    assert not [thread for thread in threads if thread.is_alive()]
    return asking, warm, end


def summary(clients: list[Client], warm: Use, end: Use, seconds: float) -> str:
    latencies = sorted(latency for client in clients for latency in client.latencies)
    counts = sorted(len(client.latencies) for client in clients)
    late = latencies[int(0.99 * len(latencies))]
    return (
        f"{len(clients)} clients: {len(latencies) / seconds:.0f} requests/s, median "
        f"{1e3 * statistics.median(latencies):.0f} ms, 99 % {1e3 * late:.0f} ms; slowest client {counts[0]} answers, "
        f"fastest {counts[-1]}; MiB {warm.memory / 2**20:.0f} to {end.memory / 2**20:.0f}, files {warm.files} to "
        f"{end.files}, threads {warm.threads} to {end.threads}"
    )


@pytest.mark.slow
def test_a_client_is_answered(tmp_path):
    store = small_store.save(small_store.evaluated(), tmp_path / "small.zarr")
    clients, _, _ = load(store, 1, 2)
    assert clients[0].errors == []
    assert len(clients[0].latencies) >= ROUND


@pytest.mark.slow
def test_fifty_clients_that_scrub_for_a_minute(tmp_path):
    store = small_store.save(small_store.evaluated(), tmp_path / "small.zarr")
    clients, warm, end = load(store, CLIENTS, SECONDS)
    print(summary(clients, warm, end, SECONDS))
    assert [error for client in clients for error in client.errors] == []
    counts = [len(client.latencies) for client in clients]
    assert min(counts) >= ROUND
    assert min(counts) >= FAIR * max(counts)
    assert end.memory - warm.memory < GROWTH
    assert end.files <= warm.files + 4
    assert end.files < CLIENTS + 40
    # Pools of libraries start their threads when they need them, six in one of two cores: not one for each client.
    assert end.threads < CLIENTS
