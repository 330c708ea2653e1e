"""Stores on disk that the dashboard opens, and what all its tests assert."""

import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import small_store
import xarray as xr
from dash import Dash
from flask.testing import FlaskClient

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.state import State, parse
from gradscope.store.locations.location import locate

ROOM = 256 * 2**20
"""Bytes by which this process may grow in a test with `bounded`."""


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluated store, which no test changes."""
    return small_store.save(small_store.evaluated(), tmp_path_factory.mktemp("stored") / "small.zarr")


@pytest.fixture(scope="session")
def library(stored: Path) -> Library:
    return Library([stored])


@pytest.fixture(scope="session")
def run(library: Library) -> OpenRun:
    found = library.run(None)
    assert isinstance(found, OpenRun)
    return found


@pytest.fixture(scope="session")
def state_of(library: Library) -> Callable[[str], State]:
    """Gives the state that a URL opens; nothing in the URL may be impossible."""

    def go(url: str) -> State:
        parts = urlsplit(url)
        state, notices = parse(parts.path, dict(parse_qsl(parts.query)), library)
        assert state is not None
        assert notices == []
        return state

    return go


@pytest.fixture(scope="session")
def app(library: Library) -> Dash:
    app = app_of(library, "/")
    app.server.test_client().get("/_dash-dependencies")  # Dash knows its callbacks from the first request on
    return app


@pytest.fixture(scope="session")
def client(app: Dash) -> FlaskClient:
    return app.server.test_client()


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    """A copy of `stored` that the test may change."""
    return shutil.copytree(stored, tmp_path / "s.zarr")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., OpenRun]:
    """Saves a dataset as a store and opens it: ``opened(ds, name="a.zarr")``."""
    return lambda ds, name="a.zarr": OpenRun(small_store.save(ds, tmp_path / name))


@pytest.fixture(scope="session")
def evaluated() -> xr.Dataset:
    """The content of `stored`, which no test changes."""
    return small_store.evaluated()


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Path]]:
    """Locks a store until the test ends, as the process does that records into it."""
    with ExitStack() as held:

        def go(path: Path) -> Path:
            held.enter_context(locate(path).lock())
            return path

        yield go


@pytest.fixture
def bounded(usual_garbage) -> Iterator[None]:
    """The process never grows by more than `ROOM` in this test."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of earlier tests
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 1024 * grown < ROOM


@pytest.fixture
def silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of this test leaves a traceback in the server's log."""
    caplog.set_level(logging.WARNING)
    yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
