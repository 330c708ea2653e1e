"""Names that cannot be shown on one line, and runs with too many files, are refused before a store is created."""

import time

import numpy as np
import pytest
from small_run import config

from gradscope.config import RunConfig, check
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.store import Grid
from gradscope.text import size

NAMES = {
    "": "empty",
    "  ": "empty",
    "a\nb": "U\\+000A",
    "a\u202eb": "U\\+202E",
    "a\x1b[31m": "U\\+001B",
    "x" * 201: "201",
}


@pytest.mark.parametrize(("name", "message"), NAMES.items())
def test_names_that_cannot_be_shown_are_refused(tmp_path, name, message):
    for key in ("classifiers", "stabilizers"):
        content = config(tmp_path / "a.zarr").model_dump(mode="json")
        content[key] = {name: next(iter(content[key].values()))}
        with pytest.raises(GradscopeError, match=None if "\x1b" in name else message):
            check(RunConfig, content, "run.yaml")
    one = np.zeros(1)
    with pytest.raises(GradscopeError, match=f"classifier: a name.*{message}"):
        Grid((name,), ("x_t",), ("none",), (1.0,), one.astype(int), one, one, one, one, (3, 8, 8), 1)


def test_names_of_any_language_are_taken():
    one = np.zeros(1)
    for name in ("résumé 2", "分類器", "p(y|x)", "<b>", "a/b"):
        Grid((name,), ("x_t",), ("none",), (1.0,), one.astype(int), one, one, one, one, (3, 8, 8), 1)


def test_a_run_of_ten_million_samples_is_refused_at_once(tmp_path):
    """Computing all seeds first took two minutes."""
    settings = config(tmp_path / "a.zarr", judge="none", sampling={"samples": 10**7})
    start = time.perf_counter()
    with pytest.raises(GradscopeError, match=r"the store would have [0-9,]{11} files, at most 1,000,000 are allowed"):
        prepare(settings, "cpu")
    assert time.perf_counter() - start < 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_estimated_number_of_files_is_that_of_the_store(tmp_path):
    from gradscope.recording.run import record_run

    run = prepare(config(tmp_path / "a.zarr", judge="none", stabilizers={"none": {}}), "cpu")
    record_run(run)
    arrays = {array.name for array in run.schema.arrays} | {"written"}
    made = [file for file in (tmp_path / "a.zarr").rglob("*") if file.is_file() and file.parent.name in arrays]
    assert len(made) == run.schema.files()


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (94_400_000, "94.4 MB"),
                                            (2e9, "2 GB"), (5e12, "5 TB")])  # fmt: skip
def test_sizes_are_readable(count, text):
    assert size(count) == text
