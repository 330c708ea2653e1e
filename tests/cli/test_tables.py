"""The tables of the terminal: all numbers are there, in 80 columns, and what is not independent is said."""

import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from gradscope.cli.display import tables as console
from gradscope.store import CELL_DIMS

FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def summary(classes: list[str], names=("robust", "non_robust")) -> xr.Dataset:
    """As `gradscope.analysis.summary` gives it, with made-up accuracies that tell the cells and classes apart."""
    shape = (len(names), 2, 2, 2)
    cell = np.arange(np.prod(shape)).reshape(shape)
    by_class = (cell[..., None] / 100 + np.linspace(0.1, 0.8, len(classes))).round(2)
    mean = by_class.mean(axis=-1)
    bounds = np.stack([mean - 0.05, mean + 0.05], axis=-1)
    return xr.Dataset(
        {
            "samples": (CELL_DIMS, np.full(shape, 640)),
            "own_accuracy": (CELL_DIMS, mean),
            "judge_accuracy": (CELL_DIMS, mean),
            "judge_accuracy_interval": ((*CELL_DIMS, "bound"), bounds),
            "class_accuracy": ((*CELL_DIMS, "class"), by_class),
            "gradient_cosine": (CELL_DIMS, mean),
        },
        coords={
            "classifier": list(names),
            "classifier_input": ["x_t", "x0"],
            "stabilizer": ["none", "adam"],
            "guidance_scale": [0.0, 0.5],
            "class": classes,
        },
    )


def printed(tables, width: int) -> str:
    made = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables:
        made.print(table)
    return made.export_text()


def numbers_by_class(text: str, classes: int) -> np.ndarray:
    """Read back from the tables called after the classes: ``(cell, class)``."""
    blocks = re.split(r"The judge, by class\s*\n", text)[1:]
    found = {}
    for block in blocks:
        head, *rows = block.split("\n")
        numbers = [int(word) for word in head.split()[4:]]
        for i, row in enumerate(rows[:16]):
            for k, value in zip(numbers, row.split()[4:], strict=True):
                found[i, k] = float(value)
    return np.array([[found[i, k] for k in range(classes)] for i in range(16)])


def test_ten_classes_are_read_at_80_columns():
    rows = summary(FASHION)
    text = printed(console.summary_tables(rows, width=80), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    expected = rows["class_accuracy"].values.reshape(16, 10)
    np.testing.assert_array_equal(numbers_by_class(text, 10), expected)
    words = " ".join(text.split())
    for k, name in enumerate(FASHION):
        assert f"{k} {name}" in words
    main = text.split("What came out")[1].splitlines()
    for row, mean in zip(main[2:18], rows["judge_accuracy"].values.ravel(), strict=True):
        assert row.split()[4:] == [f"{mean:.2f}"] * 2 + [f"{mean - 0.05:.2f}-{mean + 0.05:.2f}"]


@pytest.mark.parametrize(("classes", "width"), [(FASHION, 160), (FASHION[:4], 80)])
def test_where_they_fit_they_stand_beside_the_cells(classes, width):
    rows = summary(classes)
    text = printed(console.summary_tables(rows, width=width), width)
    assert "The judge, by class" not in text
    assert f"by class: {', '.join(classes)}" in " ".join(text.split())
    for row in rows["class_accuracy"].values.reshape(16, -1):
        assert " ".join(f"{value:.2f}" for value in row) in text


def test_of_a_thousand_classes_the_range_is_shown():
    rows = summary([f"n{k:04}" for k in range(1000)])
    text = printed(console.summary_tables(rows, width=80), 80)
    assert "the judge, over the 1000 classes" in " ".join(text.split())
    first = rows["class_accuracy"].values[0, 0, 0, 0]
    wanted = [f"{value:.2f}" for value in (first.min(), np.median(first), first.max())]
    assert text.split("What came out")[1].splitlines()[2].split()[-3:] == wanted
    assert len(text.splitlines()) < 60


def test_where_room_is_short_names_break_and_numbers_do_not():
    rows = summary(FASHION[:4], names=("a_classifier_with_quite_a_long_name_of_its_own", "another_one_of_that_kind"))
    text = printed(console.summary_tables(rows, width=80), 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for mean in rows["gradient_cosine"].values.ravel():
        assert f"{mean:.3f}" in text


def test_a_judge_that_guides_is_said_below_its_numbers():
    rows = summary(FASHION[:4])
    warning = "the judge is no independent one"
    for classes in (FASHION[:4], FASHION, [str(k) for k in range(100)]):
        text = printed(console.summary_tables(summary(classes), warning, 80), 80)
        assert f"warning: {warning}" in " ".join(text.split())
    assert "warning" not in printed(console.summary_tables(rows, width=80), 80)
