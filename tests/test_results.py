"""The tables of docs/results: collected from stores, and computed again from the committed tables by other means."""

import json
import re
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from documentation import ROOT
from scipy import stats
from small_store import CELLS, SAMPLES, evaluated, recorded, save
from statsmodels.stats.proportion import proportion_confint

RUNS = ROOT / "runs"
COMMITTED = sorted((RUNS / "results").glob("*.csv"))
OUTCOMES = [path for path in COMMITTED if "judge" in pd.read_csv(path, nrows=0).columns]
CONFIGURATION = {
    "denoiser": "zoo:sportballs32/ddpm",
    "sampling": {"scheduler": "ddpm", "num_inference_steps": 10},
    "guidance": {"objective": "log_prob", "normalize": "l2", "weight": "one", "interval": None},
}


@pytest.fixture(scope="module", autouse=True)
def _generators():
    """The modules of docs/generate, found as mkdocs finds them."""
    sys.path.insert(0, str(ROOT / "docs" / "generate"))
    yield
    sys.path.remove(str(ROOT / "docs" / "generate"))


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """A store and the table that was collected from it, as docs/generate reads it."""
    import results

    ds = evaluated().assign_attrs(configuration=json.dumps(CONFIGURATION), device="cpu (x86_64)")
    store, out = save(ds, tmp_path / "small.zarr"), tmp_path / "small.csv"
    monkeypatch.setattr(sys, "argv", ["collect.py", str(out), str(store)])
    runpy.run_path(str(RUNS / "collect.py"), run_name="__main__")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return ds, results.read("small")


@pytest.mark.slow
def test_rows_of_other_stores_stay_as_they_are(tmp_path):
    collect = runpy.run_path(str(RUNS / "collect.py"))["collect"]
    out, lines = tmp_path / "table.csv", (RUNS / "results" / "steps.csv").read_text().splitlines()
    out.write_text("\n".join(lines[:3]) + "\n")
    ds = evaluated().assign_attrs(configuration=json.dumps(CONFIGURATION), device="cpu")
    for _ in range(2):  # the second time in place of the first
        collect(out, [str(save(ds, tmp_path / f"{len(list(tmp_path.iterdir()))}" / "a.zarr"))])
        found = pd.read_csv(out, dtype=str, keep_default_na=False)
        assert found["store"].tolist() == ["steps_400_x0_non_robust"] * 2 + ["a"] * 16
        old = pd.read_csv(RUNS / "results" / "steps.csv", dtype=str, keep_default_na=False)[:2]
        pd.testing.assert_frame_equal(found.loc[:1, old.columns], old)


@pytest.mark.slow
def test_a_row_for_each_cell_with_what_was_seen(collected):
    ds, table = collected
    assert len(table) == 2 * 2 * 2 * 2
    for _, row in table.iterrows():
        cell = ds.sel({dim: row[dim] for dim in CELLS})
        for who in ("own", "judge"):
            found = [-1 if letter == "-" else int(letter, 36) for letter in row[who]]
            np.testing.assert_array_equal(found, cell[f"{who}_prediction"])
        assert row["label"] == "".join(map(str, ds["label"].values))
        assert (row["samples"], row["steps"], row["objective"]) == (SAMPLES, 10, "log_prob")
        per_sample = np.nanmean(cell["gradient_cosine"].values, axis=1)
        half = stats.t.ppf(0.975, SAMPLES - 1) * per_sample.std(ddof=1) / SAMPLES**0.5
        found = [float(row[f"gradient_cosine{end}"]) for end in ("", "_low", "_high")]
        np.testing.assert_allclose(found, per_sample.mean() + np.array([0, -half, half]), rtol=2e-5)
        assert float(row["saturated"]) == pytest.approx((cell["log_prob"].values > np.log(0.999)).mean(), abs=1e-6)
        assert float(row["coverage"]) == pytest.approx(float(cell["coverage"]), rel=1e-5)


def test_the_backgrounds_share_of_the_energy(tmp_path):
    rows = runpy.run_path(str(RUNS / "collect.py"))["rows"]
    ds = evaluated().assign_attrs(configuration=json.dumps(CONFIGURATION), device="cpu")
    ds["image"][:] = np.where(np.arange(ds.sizes["width"]) < 3, 1.0, 0.5)
    ds["image"][0, 0, 0, 1, 1, 0] = 0  # one channel that is not white
    row = next(r for r in rows([str(save(ds, tmp_path / "a.zarr"))]) if r["guidance_scale"] == 0.5)
    kept = [i for i in range(SAMPLES) if (ds["written"].values[0, 0, 0, 1, i] == 3).any()]
    assert row["tensor_samples"] == len(kept)
    for name in ("gradient", "update"):
        shares = []
        for i in kept:
            g = ds[name].values[0, 0, 0, 1, i].astype(float)
            energy = (g[..., :3] ** 2).sum(axis=(1, 2, 3)) / (g**2).sum(axis=(1, 2, 3))
            shares.append(0 if i == 1 else energy.mean())
        assert row[f"background_{name}"] == pytest.approx(np.mean(shares), rel=1e-5)


@pytest.mark.slow
def test_a_store_without_verdicts_and_an_unfinished_cell(tmp_path):
    rows = runpy.run_path(str(RUNS / "collect.py"))["rows"]
    ds = recorded().assign_attrs(configuration=json.dumps(CONFIGURATION), device="cpu")
    ds["written"][0, 0, 0, 1, 3, -1] = 0
    found = list(rows([str(save(ds, tmp_path / "a.zarr"))]))
    assert len(found) == 15
    assert all(row["judge"] == row["own"] == "" and np.isnan(row["coverage"]) for row in found)


def numbers(text):
    """The rows of a Markdown table, by its head."""
    lines = [[cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
             for line in text.splitlines() if line]  # fmt: skip
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_the_guided_timesteps_are_a_column_where_cells_differ_in_them():
    import results

    rows = results.read("interval")
    shown = [row["guided timesteps"] for row in numbers(results.cells(rows))]
    assert shown == ["0 to 1000", "700 to 1000", "400 to 700", "0 to 400"]
    same = rows.assign(interval="[0, 1000]")
    assert all("guided timesteps" not in row for row in numbers(results.cells(same)))


def seen(row, who="judge"):
    return np.array([a == b for a, b in zip(row[who], row["label"], strict=True)])


def check_cells(results, table):
    unguided = table[table["guidance_scale"].astype(float) == 0]
    table = table.drop(index=unguided.index[unguided["judge"].duplicated()])
    for shown, (_, row) in zip(numbers(results.cells(table)), table.iterrows(), strict=True):
        if not row["judge"]:
            continue
        right = seen(row)[np.array(list(row["judge"])) != "-"]
        low, high = proportion_confint(right.sum(), len(right), method="wilson")
        assert shown["judge"] == f"{right.mean():.3f} [{low:.3f}, {high:.3f}]"
        assert int(shown["N"]) == len(row["label"])
        shares = [seen(row)[np.array(list(row["label"])) == c].mean() for c in sorted(set(row["label"]))]
        assert shown["by class"] == " ".join(f"{share:.2f}" for share in shares)


def check_stabilizers(results, table):
    """Changes are those of the same samples; p is McNemar's mid-p, corrected by Holm."""
    shown = numbers(results.stabilizers(table))
    keys = ["classifier", "classifier_input", "steps", "guidance_scale", "objective", "normalize", "weight"]
    plain = {tuple(map(str, row[keys])): row for _, row in table[table["stabilizer"] == "none"].iterrows()}
    expected = []
    for _, row in table.iterrows():
        base = plain.get(tuple(map(str, row[keys])))
        if row["stabilizer"] == "none" or base is None or float(row["guidance_scale"]) == 0:
            continue
        a, b = seen(base), seen(row)
        gained, lost = int((~a & b).sum()), int((a & ~b).sum())
        n, k = gained + lost, min(gained, lost)
        p = min(1.0, 2 * stats.binom.cdf(k, n, 0.5) - stats.binom.pmf(k, n, 0.5)) if n else 1.0
        expected.append((row["classifier"], row["classifier_input"], row["stabilizer"], b.mean() - a.mean(), p, len(a)))
    assert len(shown) == len(expected)
    found = {(r["guide"], r["input"], r["stabiliser"], r["change"].split()[0], r["N"]) for r in shown}
    assert found == {(*names, f"{change:+.3f}", str(n)) for *names, change, _, n in expected}
    if expected and expected[0][-1] >= 64:
        smallest = min(p for *_, p, _ in expected) * len(expected)
        assert min(float(r["Holm's p"]) for r in shown) == pytest.approx(min(1, smallest), rel=0.06)


def test_changes_over_guides_have_students_interval_or_the_wider_one_of_their_samples():
    import results

    from gradscope.analysis.statistics import mcnemar

    rows = results.read("frontier").query("guidance_scale == 0.32 and classifier == 'non_robust'")
    others = [rows.assign(classifier=name, judge=rows["judge"].str[::-1]) for name in ("b", "c")]
    others[0]["judge"] = rows["label"]
    several = pd.concat([rows, *others])
    shown = numbers(results.guides(several))
    assert [row["stabiliser"] for row in shown] == ["adam_paper", "ema", "adam_rms"]
    for row in shown:
        alone = {name: seen(rows.set_index("stabilizer").loc[name]).mean() for name in ("none", row["stabiliser"])}
        mirrored = {
            name: np.mean([a == b for a, b in zip(r["judge"][::-1], r["label"], strict=True)])
            for name, r in rows.set_index("stabilizer").iterrows()
        }
        changes = [alone[row["stabiliser"]] - alone["none"], 0, mirrored[row["stabiliser"]] - mirrored["none"]]
        low, high = stats.ttest_1samp(changes, 0).confidence_interval()
        assert row["change, 95 % over guides"] == f"{np.mean(changes):+.3f} [{low:+.3f}, {high:+.3f}]"
        assert row["of each guide"] == ", ".join(f"{change:+.3f}" for change in changes)
        assert (row["input"], row["guides"]) == ("x0", "3")
    same = pd.concat([rows, rows.assign(classifier="b")])
    twice = {name: np.tile(seen(row), 2) for name, row in rows.set_index("stabilizer").iterrows()}
    for row in numbers(results.guides(same)):
        pooled = mcnemar(twice["none"], twice[row["stabiliser"]])
        assert row["change, 95 % over guides"] == f"{pooled.estimate:+.3f} [{pooled.low:+.3f}, {pooled.high:+.3f}]"


@pytest.mark.slow
def test_tables_of_a_small_store(collected):
    import results

    _, table = collected
    check_cells(results, table)
    check_stabilizers(results, table)
    against = numbers(results.inputs(table))
    assert {row["input"] for row in against} == {"x0"}
    assert all(row["Holm's p"] == f"insufficient samples: {SAMPLES} of 64" for row in against)


@pytest.mark.parametrize("path", OUTCOMES, ids=lambda path: path.stem)
def test_the_committed_tables_give_the_printed_numbers(path):
    import results

    table = results.read(path.stem)
    check_cells(results, table)
    check_stabilizers(results, table)


def test_every_table_of_the_pages_is_generated_from_a_committed_one():
    """No page has a table of results that was typed, and no committed table is shown nowhere."""
    pages = {path: path.read_text() for path in (ROOT / "docs" / "results").glob("*.md")}
    markers = re.findall(r"<!-- generated: results \w+ (\w+) -->", "\n".join(pages.values()))
    assert {path.stem for path in OUTCOMES} == set(markers)
