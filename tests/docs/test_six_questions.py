"""The ten lines of docs/how-to/notebooks.md give the right answers on a store with a planted fault."""

import ast
import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from documentation import ROOT, blocks
from nbclient import NotebookClient
from small_store import BAD, CLASSES, GOOD, SAMPLES, TIMESTEPS, evaluated, save

from dashboards.data.library import Library
from dashboards.state import parse
from gradscope.store import CELL_DIMS

LINES = blocks(ROOT / "docs" / "how-to" / "notebooks.md", "python")[0]


def planted() -> xr.Dataset:
    """White noise in the non-robust cells; at x_t the judge is right in 14 of 16 samples, and in 4 of 16."""
    ds = evaluated().isel(stabilizer=[0])
    for cell, right in ((GOOD, np.arange(SAMPLES) >= 2), (BAD, np.arange(SAMPLES) < 4)):
        seen = np.where(right, ds.label, (ds.label + 1) % len(CLASSES))
        ds["judge_prediction"].loc[cell] = seen
    return ds


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "runs").mkdir()
    save(planted(), tmp_path / "runs" / "both.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_at_most_ten_lines():
    assert len(ast.parse(LINES).body) <= 10


@pytest.mark.slow
def test_the_answers(folder):
    names: dict = {}
    exec(LINES, names)
    ds = planted()
    kept = ds.sel(BAD).isel(sample=slice(4))

    # 1. Every guided non-robust cell was planted with white noise; no robust cell was.
    noisy = {("non_robust", "x_t", "none", 0.5), ("non_robust", "x0", "none", 0.5)}
    unstable = {tuple(f.cell.values()) for f in names["report"].findings if f.signature == "unstable"}
    assert unstable == noisy
    assert all(f.advice and f.evidence for f in names["report"].findings)

    # 2. The noise is there at every step: gradients of successive steps have no common direction from the second on.
    gradient = kept.gradient.values.reshape(4, TIMESTEPS, -1)
    unit = gradient / np.linalg.norm(gradient, axis=2, keepdims=True)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(axis=2)
    low = ds.timestep.values[1:][cosine.mean(axis=0) < 0.4]
    assert names["when"] == (low.max(), low.min())

    # 3. The view is at a place where the gradient is unstable, and shows it beside x0-hat.
    at = names["view"].cursor
    step = ds.timestep.values.tolist().index(at["timestep"])
    assert {dim: at[dim] for dim in CELL_DIMS} == names["unstable"].cell
    own = ds.sel(names["unstable"].cell).gradient.values[at["sample"]].reshape(TIMESTEPS, -1)
    assert own[step] @ own[step - 1] / np.linalg.norm(own[step]) / np.linalg.norm(own[step - 1]) < 0.4
    tiles = {tile.tensor: tile for tile in names["view"].tiles()}
    assert tiles["gradient"].texts[0] == f"norm {np.linalg.norm(own[step]):.3g}"
    assert tiles["pred_original_sample"].picture.startswith(b"\x89PNG")

    # 4. The robust cell is better: the difference of the shares, and an interval around it.
    test = names["better"].accuracy
    assert (names["better"].a, names["better"].b) == (BAD, GOOD)
    assert (test.estimate, test.n) == (14 / 16 - 4 / 16, SAMPLES)
    assert 0 < test.low < test.estimate < test.high <= 1

    # 5. The link leads the dashboard to the same place.
    url = urlsplit(names["link"])
    library = Library([folder / "runs" / "both.zarr"])
    state, notices = parse(url.path, dict(parse_qsl(url.query)), library)
    assert notices == []
    cell = dict(library.run(None).cells[state.cell])
    assert {**cell, "sample": state.sample, "timestep": state.timestep} == at

    # 6. The figure and the numbers are files.
    assert "gradient_lag_cosine" in (folder / "unstable.html").read_text(encoding="utf-8")
    table = pd.read_csv(folder / "samples.csv")
    assert len(table) == 8 * SAMPLES
    rows = table[(table[list(GOOD)] == pd.Series(GOOD)).all(axis=1)]
    seen = [CLASSES[k] if k >= 0 else np.nan for k in ds.sel(GOOD).judge_prediction.values.tolist()]
    pd.testing.assert_series_equal(rows["seen"], pd.Series(seen, rows.index, name="seen"))


@pytest.mark.slow
def test_the_same_in_a_notebook(folder):
    """The lines as cells of a notebook: what shows itself does."""
    shows = ("report", "unstable", "better", "view")
    cells = [nbformat.v4.new_code_cell(LINES), *(nbformat.v4.new_code_cell(name) for name in shows)]
    cells.append(nbformat.v4.new_code_cell("import json; print(json.dumps([when, link, better.accuracy.estimate]))"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", timeout=300, resources=place).execute()
    data = {name: cell.outputs[-1].data for name, cell in zip(shows, notebook.cells[1:], strict=False)}
    assert "non_robust, x_t, no stabiliser, s = 0.5" in data["report"]["text/html"]
    assert "<b>alarm: unstable</b>" in data["unstable"]["text/html"]
    assert "judge_accuracy" in data["better"]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data["view"]
    assert data["view"]["text/html"].count("<img ") == 4
    (first, last), link, estimate = json.loads(notebook.cells[-1].outputs[0].text)
    assert (first, last, estimate) == (800, 0, 14 / 16 - 4 / 16)
    assert link.startswith("http://127.0.0.1:8050/trajectory?store=")
