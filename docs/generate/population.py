"""Tables of docs/results/population.md, as `python runs/population.py table` and `predict` print them."""

import runpy
from pathlib import Path

import pandas as pd

RUNS = Path(__file__).parents[2] / "runs"


def text(kind: str) -> str:
    """The table ``accuracies`` or ``prediction`` of runs/results/population.csv."""
    script = runpy.run_path(str(RUNS / "population.py"))
    rows = pd.read_csv(RUNS / "results" / "population.csv")
    return {"accuracies": lambda: script["accuracies"](rows), "prediction": lambda: script["assess"](rows)[1]}[kind]()
