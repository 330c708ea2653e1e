"""A newcomer's six questions in at most eight clicks: the answers on the screen are those of the store."""

import re
from collections.abc import Mapping
from io import StringIO
from itertools import product
from urllib.parse import urlsplit

import chromium
import numpy as np
import pandas as pd
import pytest
import small_store
import xarray as xr
from playwright.sync_api import Locator, Page
from scipy import stats

from gradscope.analysis.synthetic import trajectories
from gradscope.store import CELL_DIMS

SAMPLES, TIMESTEPS, MOST = 64, 20, 8
RIGHT = {
    ("robust", "x_t"): np.arange(SAMPLES) % 8 < 6,
    ("robust", "x0"): np.arange(SAMPLES) % 8 < 5,
    ("non_robust", "x_t"): np.arange(SAMPLES) % 4 == 0,
    ("non_robust", "x0"): np.arange(SAMPLES) % 5 == 0,
}
"""Whether the judge sees the target in each sample of a cell."""
FAULTS = {("non_robust", "x_t"): "white_noise", ("non_robust", "x0"): "vanishing"}
WHY = {("non_robust", "x_t"): "unstable", ("non_robust", "x0"): "vanishing"}
"""The signatures of these faults."""


def named(cell: tuple[str, str]) -> dict[str, object]:
    return dict(zip(CELL_DIMS, (*cell, "none", 0.5), strict=True))


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """Four cells, of which the two of the non-robust guide fail."""
    parts = []
    for seed, cell in enumerate(RIGHT):
        part = trajectories(FAULTS.get(cell, "none"), SAMPLES, TIMESTEPS, seed, cosine=0.9)
        part = part.drop_vars(["coverage", "coverage_interval", "coverage_floor", "bound"])
        parts.append(part.assign_coords({dim: [value] for dim, value in named(cell).items()}))
    ds = xr.combine_by_coords(parts, combine_attrs="override", join="outer", data_vars="all")
    guides, inputs = ["robust", "non_robust"], ["x_t", "x0"]
    ds = ds.sel(classifier=guides, classifier_input=inputs).assign_coords(sample=range(SAMPLES))
    for cell in product(guides, inputs):
        ds["judge_prediction"].loc[named(cell)] = np.where(RIGHT[cell], ds.label, (ds.label + 1) % 4)
    return ds.assign_attrs(small_store.ATTRIBUTES | {"run_id": "51c5"})


class Newcomer:
    """Clicks, and counts what the page receives."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.evaluate("() => { window.clicks = 0; addEventListener('click', (e) => (clicks += e.isTrusted), true); }")

    def click(self, what: Locator) -> None:
        what.click()
        chromium.settle(self.page)

    def save(self, what: Locator) -> str:
        with self.page.expect_download() as download:
            self.click(what)
        return download.value.path().read_text(encoding="utf-8")

    @property
    def clicks(self) -> int:
        return self.page.evaluate("() => clicks")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


def successive(ds: xr.Dataset, cell: tuple[str, str]) -> np.ndarray:
    """Cosines of each gradient with the one before, from the tensors, ``(sample, timestep - 1)``."""
    flat = ds.gradient.sel(named(cell)).values.reshape(SAMPLES, TIMESTEPS, -1).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=2, keepdims=True)
    return (unit[:, 1:] * unit[:, :-1]).sum(axis=2)


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """Difference of two shares of the same samples, b - a; 95 % interval by resampling; McNemar's mid-p."""
    change = b.astype(float) - a
    means = np.random.default_rng(0).choice(change, (20_000, len(change))).mean(axis=1)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    tail = stats.binom(gained + lost, 0.5)
    p = 2 * tail.sf(max(gained, lost)) + tail.pmf(max(gained, lost))
    return change.mean(), *np.quantile(means, [0.025, 0.975]), p


def alarms(page: Page) -> list[Mapping[str, str]]:
    """The alarms of the table of findings, by column."""
    rows = page.locator("#findings-table .ag-row").evaluate_all(
        "(all) => all.map((row) => Object.fromEntries([...row.querySelectorAll('[col-id]')].map("
        "(each) => [each.getAttribute('col-id'), each.innerText.trim()])))"
    )
    return [row for row in rows if row["severity"] == "▲ alarm"]


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_six_questions_in_eight_clicks(ds, tmp_path, serve, visit):
    store = small_store.save(ds, tmp_path / "both.zarr")
    page = visit(serve(store), permissions=["clipboard-read", "clipboard-write"])
    newcomer = Newcomer(page)

    # 1. Which cells fail, and why? The table names them; the text beside it gives the reason of the selected one.
    found = {(row["classifier"], row["classifier_input"]): row for row in alarms(page)}
    assert {cell: row["signature"] for cell, row in found.items()} == WHY
    noisy, faint = WHY
    cosine = successive(ds, noisy)
    effect = re.match(r"(\S+) \[(\S+), (\S+)\]", found[noisy]["effect"])
    within = cosine.mean(axis=1)
    half = stats.t.ppf(0.975, SAMPLES - 1) * stats.sem(within)
    expected = [within.mean(), within.mean() - half, within.mean() + half]
    np.testing.assert_allclose([number(part) for part in effect.groups()], expected, atol=1e-4)
    assert f"is {within.mean():.3g} [" in newcomer.text("#finding-evidence")
    assert "show the guide x0-hat" in newcomer.text("#finding-advice")
    newcomer.click(page.locator("#findings-table .ag-row", has_text="vanishing").locator("[col-id=signature]"))
    norms = {cell: np.sqrt((ds.gradient.sel(named(cell)) ** 2).sum(["channel", "height", "width"])) for cell in RIGHT}
    assert float(norms[faint].median()) < 1e-9 * float(norms["robust", "x0"].median())
    low = stats.binomtest(SAMPLES, SAMPLES).proportion_ci(method="wilson").low  # it concerns all samples
    assert f"is 1 [{low:.3g}, 1]" in newcomer.text("#finding-evidence")

    # 2. When is the gradient unstable? The table says it; so does the reason.
    unstable = ds.timestep.values[1:][cosine.mean(axis=0) < 0.4]
    first, last = unstable.max(), unstable.min()
    assert found[noisy]["first_timestep"] == f"{first} to {last}"
    newcomer.click(page.locator("#findings-table .ag-row", has_text="unstable").locator("[col-id=signature]"))
    assert f"from timestep {first} to {last}, {len(unstable)} of {TIMESTEPS - 1} steps" in newcomer.text(
        "#finding-evidence"
    )

    # 3. Its tensor beside x0-hat, at such a step.
    newcomer.click(page.locator("#finding-link"))
    at = chromium.query(page)
    step = ds.timestep.values.tolist().index(int(at["t"]))
    assert int(at["t"]) in unstable
    assert cosine[int(at["sample"]), step - 1] < 0.4
    here = ds.sel(named(noisy)).isel(sample=int(at["sample"]), timestep=step)
    gradient, guess = (
        page.locator(f'.focus-maps .map[data-tensor="{name}"]') for name in ("gradient", "pred_original_sample")
    )
    assert chromium.differs(gradient, here.gradient.values, "signed") < 0.1
    assert chromium.differs(guess, here.pred_original_sample.values, "image") < 0.02
    assert abs(gradient.bounding_box()["y"] - guess.bounding_box()["y"]) < 2
    norm = np.linalg.norm(here.gradient.values.astype(np.float64))
    assert f"norm {norm:.3g}" in newcomer.text('.focus-maps figure:has([data-tensor="gradient"])')

    # 4. Which of two cells is better, and how sure? The banner names the cells next to this one that do not fail.
    newcomer.click(page.locator("#finding-banner").get_by_role("link", name="robust, x_t, no stabiliser, s = 0.5"))
    verdict = newcomer.text("#compare-headline")
    estimate, low, high, p = paired(RIGHT[noisy], RIGHT["robust", "x_t"])
    said = re.fullmatch(
        r"b is better: judge's accuracy (\S+) \[(\S+), (\S+)\] \(b − a\), McNemar's p (\S.*), N = 64\.", verdict
    )
    assert number(said[1]) == pytest.approx(estimate, abs=0.005)
    assert [number(said[2]), number(said[3])] == pytest.approx([low, high], abs=0.05)
    assert said[4] == ("below 0.0001" if p < 1e-4 else f"{p:.2g}")
    for key, guide in {"a": "non_robust", "b": "robust"}.items():
        shown = page.get_by_role("textbox", name=key, exact=True).input_value()
        assert shown == f"{guide}, x_t, no stabiliser, s = 0.5"

    # 5. A link shows the same to another reader.
    newcomer.click(page.get_by_role("button", name="Copy link"))
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert urlsplit(link).path == "/compare"

    # 6. The figure and its numbers, as files.
    newcomer.click(page.locator("[id='menu-compare-forest'] summary"))
    drawn = newcomer.save(page.locator("[id='menu-compare-forest']").get_by_text("SVG", exact=True))
    assert "judge's accuracy" in drawn
    assert "both.zarr" in drawn
    text = newcomer.save(page.locator("[id='menu-compare-forest']").get_by_text("CSV", exact=True))
    table = pd.read_csv(StringIO(text), comment="#").set_index("diagnostic")
    assert table.loc["judge's accuracy", "estimate"] == pytest.approx(estimate)
    assert newcomer.clicks <= MOST

    other = visit(link, color_scheme="dark")
    assert other.locator("#compare-headline").inner_text() == verdict
