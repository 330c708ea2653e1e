"""Stores on disk that the dashboard opens."""

import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import small_store

from dashboards.data.library import Library
from gradscope.store.locations.location import locate

ROOM = 256 * 2**20
"""Bytes by which this process may grow while `bounded` looks at it."""


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluated store."""
    return small_store.save(small_store.evaluated(), tmp_path_factory.mktemp("stored") / "small.zarr")


@pytest.fixture
def library(stored: Path) -> Library:
    return Library([stored])


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Path]]:
    """Hold a store, as the process does that records into it, until the test ends."""
    with ExitStack() as held:

        def go(path: Path) -> Path:
            held.enter_context(locate(path).lock())
            return path

        yield go


@pytest.fixture
def bounded() -> Iterator[None]:
    """At no time of the test does this process take more than `ROOM` on top of what it took."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of earlier tests
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 1024 * grown < ROOM


@pytest.fixture
def silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No refusal leaves more than a line, and none with a stack, in the server's log."""
    caplog.set_level(logging.WARNING)
    yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
