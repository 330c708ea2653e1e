"""Stores on disk that the dashboard opens."""

from pathlib import Path

import pytest
import small_store

from dashboards.data import Library


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluated store."""
    return small_store.save(small_store.evaluated(), tmp_path_factory.mktemp("stored") / "small.zarr")


@pytest.fixture
def library(stored: Path) -> Library:
    return Library([stored])
