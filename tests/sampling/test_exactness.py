"""The documentation's table of what is exact, measured again."""

import json

import pytest
from exactness import TABLE, table

BOUND = 3e-7
"""Schedulers hold their factors in float32, and some cast samples to it, which rounds by 6e-8."""


@pytest.mark.slow
def test_the_documented_table_is_measured():
    """Every combination runs exactly, or is refused in the same words."""
    documented, now = json.loads(TABLE.read_text(encoding="utf-8")), table()
    assert list(documented) == list(now)
    for key, found in now.items():
        assert found["refused"] == documented[key]["refused"], key
        if not found["refused"]:
            assert found["unguided_equal"], key
            assert found["deviation"] < BOUND, key
            assert documented[key]["deviation"] < BOUND, key
            assert found["evaluations"] == documented[key]["evaluations"], key
