"""The sampler's steps against two plain steps of the scheduler, and the documentation's table of them."""

import json

import pytest
from exactness import TABLE, kinds, measured, table

BOUND = 3e-7
"""Schedulers hold their factors in float32, and some cast samples to it, which rounds by 6e-8."""


@pytest.mark.parametrize(("name", "prediction"), list(kinds()))
def test_shift_and_sample_are_those_of_two_plain_steps(name, prediction):
    found = measured(name, prediction)
    assert found.refused == ""
    assert found.unguided_equal
    assert found.deviation < BOUND


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
