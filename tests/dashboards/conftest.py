"""Stores on disk that the dashboard opens."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import small_store

from dashboards.data import Library
from gradscope.store.location import locate


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
