"""The notebooks under runs/examples: what is committed, and the numbers of an execution against the recorded stores."""

import re
import runpy
import socket
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans

from gradscope.analysis.signatures import CURVES

EXAMPLES = Path(__file__).parent.parent / "runs" / "examples"
FIRST, OWN, QUESTIONS = NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SHOWN = {"image/png", "text/html", "text/plain"}
"""What code hosts show without running anything."""


class Outputs:
    """What an executed notebook shows, and the folder in which it ran."""

    def __init__(self, notebook: nbformat.NotebookNode, folder: Path) -> None:
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.folder = folder

    def store(self, name: str) -> xr.Dataset:
        """A store by plain xarray, without cell dimensions of size one."""
        (path,) = self.folder.rglob(name)
        return xr.open_zarr(path).load().squeeze()

    def printed(self) -> str:
        return "".join(output.text for cell in self.cells for output in cell.outputs if output.output_type == "stream")

    def table(self, start: str) -> np.ndarray:
        """The numbers of the table that the cell whose source has `start` in it shows."""
        (cell,) = [cell for cell in self.cells if start in cell.source]
        (html,) = [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]
        rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
        found = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
        return np.array([[float(value) for value in row] for row in found if row])

    def numbers(self, pattern: str) -> list[float]:
        """Those that a pattern finds in what is printed; `#` stands for a number."""
        number = r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
        (found,) = re.finditer(re.escape(pattern).replace(r"\#", number).replace(r"\ ", r"\s+"), self.printed())
        return [float(value) for value in found.groups()]


def run(path: Path, folder: Path) -> Outputs:
    return Outputs(runpy.run_path(str(EXAMPLES / "execute.py"))["executed"](path, folder), folder)


def interval(successes: int, n: int) -> tuple[float, float]:
    return proportion_confint(successes, n, method="wilson")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_are_executed_and_light(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    assert path.read_text() == nbformat.writes(notebook) + "\n"  # sorted keys
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata["language_info"] == {"name": "python"}  # no version
    code = Outputs(notebook, path.parent).cells
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.metadata == {} for cell in notebook.cells)  # no times
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    assert {kind for output in outputs for kind in output.get("data", {})} == SHOWN
    texts = "".join(output.get("text", "") + str(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert "<script" not in texts
    assert not re.search(r"(?<![\w.<])/(tmp|home|root|usr|work|Users|var)\b|[A-Z]:\\", texts)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", texts)


@pytest.mark.slow
def test_from_nothing_to_a_finding(tmp_path):
    shown = run(FIRST, tmp_path)
    ds = shown.store("first.zarr")
    for classifier, given in product(ds.classifier.values, ds.classifier_input.values):
        cell = ds.sel(classifier=classifier, classifier_input=given)
        own, judged = ((cell[name] == cell.label).values for name in ("own_prediction", "judge_prediction"))
        found = shown.numbers(f" {classifier} {given} none 0.75 # # #-#")
        expected = [own.mean(), judged.mean(), *interval(judged.sum(), len(judged))]
        assert found == pytest.approx(expected, abs=0.0051)

    ds = ds.sel(classifier="non_robust")
    right = {given: (ds.judge_prediction.sel(classifier_input=given) == ds.label).values for given in ("x_t", "x0")}
    n = len(right["x_t"])
    expected = [n]
    for given in ("x_t", "x0"):
        expected += [right[given].mean(), *interval(right[given].sum(), n)]
    found = shown.numbers(
        "N = # paired samples, guided by non_robust. The judge sees the target class in "
        "# [#, #] of them at x_t and in # [#, #] at x0-hat: a change of # [#, #]."
    )
    assert found[:7] == pytest.approx(expected, abs=0.0051)
    assert found[7] == pytest.approx(right["x0"].mean() - right["x_t"].mean(), abs=0.0051)
    assert found[8] < found[7] < found[9]

    cosine = ds.gradient_cosine.transpose("classifier_input", "sample", "timestep").values.astype(float)
    assert ds.classifier_input.values.tolist() == ["x_t", "x0"]
    both = np.isfinite(cosine).all(axis=0)
    means = [[np.mean(row[keep]) for row, keep in zip(given, both, strict=True)] for given in cosine]
    change = np.subtract(means[1], means[0])
    student = stats.ttest_1samp(change, 0).confidence_interval()
    found = shown.numbers("The cosine of successive gradients changes from # to #, by # [#, #].")
    assert found == pytest.approx([*np.mean(means, axis=1), change.mean(), *student], abs=0.0051)

    (unstable,) = [signature for signature in CURVES if signature.name == "unstable"]
    (line,) = [re.search(r"axhline\((.*?),", cell.source) for cell in shown.cells if "axhline" in cell.source]
    assert float(line[1]) == unstable.threshold
    assert "unstable" in shown.printed()


@pytest.mark.slow
def test_your_own_models(tmp_path):
    shown = run(OWN, tmp_path)
    names = list(product(("x_t", "x0", "x0_detached"), ("none", "adam", "agreeing")))
    recorded = shown.store("mine.zarr")
    stores = {name: recorded.sel(classifier_input=name[0], stabilizer=name[1]) for name in names}
    right, rows = {}, []
    for name, ds in stores.items():
        image = ds.image.values.astype(float)  # (sample, height, width)
        down, across = ((np.diff(image, axis=axis) ** 2).mean(axis=(1, 2)) for axis in (1, 2))
        right[name] = (across > down) == ds.label.values
        means = [float(np.nanmean(ds[cosine].values, axis=1).mean()) for cosine in ("gradient_cosine", "update_cosine")]
        rows.append([right[name].mean(), *interval(right[name].sum(), len(image)), *means])
    assert shown.table("gradscope.summary(ds)") == pytest.approx(np.array(rows), abs=0.0051)

    before, after = right["x_t", "none"], right["x0", "none"]
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    pairs = stats.binom(gained + lost, 0.5)
    p = min(1, 2 * (pairs.cdf(min(gained, lost)) - pairs.pmf(min(gained, lost)) / 2))
    found = shown.numbers("x0 less x_t, N = # pairs: the judge's accuracy changes by # [#, #], p = #")
    assert found[:2] == pytest.approx([64, (gained - lost) / 64], abs=0.00051)
    assert found[4] == pytest.approx(p, rel=0.06)

    error, agree = (shown.numbers(pattern)[0] for pattern in ("of the stored gradients by # at", "#% of the elements"))
    assert error < 1e-5
    assert agree == 100
    ds = stores["x_t", "agreeing"]
    gradient, update = ds.gradient.values, ds["update"].values
    for k in range(1, ds.sizes["timestep"]):
        keep = np.sign(gradient[:, k].astype(float)) * np.sign(gradient[:, k - 1]) > 0
        np.testing.assert_array_equal(update[:, k], np.where(keep, gradient[:, k], 0))
    g = gradient[5, 7].astype(float).ravel()
    share = sum(g**2) ** 2 / (len(g) * sum(g**4))
    assert float(ds.gradient_participation[5, 7]) == pytest.approx(share, rel=1e-5)
    assert ds.gradient_participation.attrs["equation"] == "(sum g^2)^2 / (d sum g^4)"


@pytest.mark.slow
def test_questions_to_a_store(tmp_path):
    shown = run(QUESTIONS, tmp_path)
    ds = shown.store("run.zarr")
    cells = [ds.sel(classifier=c, stabilizer=s) for c, s in product(ds.classifier.values, ds.stabilizer.values)]
    label, n = ds.label.values, ds.sizes["sample"]

    cosine = [[np.mean(cell.gradient_cosine[:, k]) for k in range(1, ds.sizes["timestep"], 4)] for cell in cells]
    assert shown.table("cosine.stack") == pytest.approx(np.array(cosine), abs=0.0051)

    final = [cell.log_prob[:, -1].values.astype(float) for cell in cells if cell.stabilizer == "none"]
    by_class = [[values[label == k].mean() for k in range(4)] for values in final]
    assert shown.table("by_class.round") == pytest.approx(np.array(by_class), abs=0.0051)

    shares, differences = [], []
    for cell in cells:
        failed = np.array([cell.judge_prediction[i] != label[i] for i in range(n)])
        shares.append([failed.sum(), n, failed.mean(), *interval(failed.sum(), n)])
        early = {
            "entropy": cell.entropy.values[:, :5].mean(axis=1),
            "gradient_lag_cosine": np.nanmean(cell.gradient_lag_cosine.values[:, :5], axis=1),
            "sees_target": (cell.predicted_class.values[:, :5] == label[:, None]).mean(axis=1),
        }
        for values in early.values():
            bad, good = values[failed].astype(float), values[~failed].astype(float)
            welch = CompareMeans.from_data(bad, good).tconfint_diff(usevar="unequal")
            differences.append([len(bad), len(good), bad.mean() - good.mean(), *welch])
    assert shown.table("shares = ") == pytest.approx(np.array(shares), abs=0.0051)
    assert shown.table("groups = ") == pytest.approx(np.array(differences), abs=0.0051)

    none, adam = ((cell.judge_prediction == cell.label).values.mean() for cell in cells[:2])
    change, low, high, pairs = shown.numbers("judge's accuracy: # [#, #], N = # pairs;")
    assert (change, pairs) == (pytest.approx(adam - none, abs=0.0051), n)
    assert low <= change <= high

    stored = [cell.gradient.values[:8].reshape(8 * ds.sizes["timestep"], -1).astype(float) for cell in cells]
    norms = np.linalg.norm(np.concatenate(stored), axis=1)
    count, error = shown.numbers("# norms, relative difference from the recorded ones at most #")
    assert count == (norms > 1e-30).sum()
    assert error < 1e-6

    assert re.findall(r"sound: (\w+)", shown.printed()) == ["True", "False"]
    assert "its checksum does not match its bytes" in shown.printed()
    (exported,) = tmp_path.rglob("scalars.nc")
    with xr.open_dataset(exported) as back:
        np.testing.assert_array_equal(back.gradient_norm.squeeze(), ds.gradient_norm)
        assert shown.numbers("# variables in # MB")[0] == len(back.data_vars)
    assert shown.table("plain.judge_prediction") == pytest.approx(1 - np.array(shares)[:, 2].reshape(2, 2), abs=0.0051)
