"""The report of a small store: its numbers by loops, strict JSON, and a complete page that is safe and offline."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_store import BAD, CELLS, CLASSES, GOOD, SAMPLES, SHAPE, accuracy, evaluated, recorded

import gradscope
from gradscope.analysis import compare_all
from gradscope.analysis.findings import Finding
from gradscope.analysis.in_memory import in_memory
from gradscope.analysis.signatures import CURVES, OTHERS, find, untested
from gradscope.reporting.html import example_sample, to_html, worst_and_best
from gradscope.reporting.report import grouped, headline, report, to_json
from gradscope.store import CELL_DIMS

ONE_INPUT = {"classifier_input": [0]}
FEW = {"classifier": [1], "classifier_input": [0], "stabilizer": [0]}


@pytest.fixture(scope="module")
def ds():
    return evaluated()


@pytest.fixture(scope="module")
def made(ds):
    return report(ds)


@pytest.fixture(scope="module")
def page(ds, made):
    return to_html(made, ds)


def finding(signature, severity="alarm", **cell):
    fields = GOOD | cell | {"signature": signature, "severity": severity}
    numbers = {"first_timestep": 9, "last_timestep": 1, "affected": 3, "samples": 4, "effect": 0.1, "low": 0.0}
    return Finding(**fields, **numbers, high=0.2, threshold=0.4, evidence="seen", advice="rest")


def strictly(text):
    """Parse strict JSON, which has no NaN."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
def test_findings_and_comparisons_are_those_of_the_analysis(ds, made):
    assert made.findings == find(ds)
    assert made.untested == untested(ds)
    assert made.tests == 8 * (len(CURVES) + len(OTHERS) - len(made.untested))
    assert {"unstable", "ineffective"} <= {f.signature for f in made.findings if f.classifier == "non_robust"}
    pd.testing.assert_frame_equal(made.comparisons, compare_all(ds))


def test_the_table_has_one_row_per_cell(ds, made):
    assert made.cells[list(CELL_DIMS)].to_dict("records")[1] == GOOD
    for row, at in zip(made.cells.to_dict("records"), np.ndindex(SHAPE), strict=True):
        assert row["samples"] == SAMPLES
        for who in ("own", "judge"):
            assert (row[who], row[f"{who}_low"], row[f"{who}_high"]) == pytest.approx(accuracy(ds, who, at))
        for name in ("fd_extractor", "kd_extractor", "coverage", "recall"):
            low, high = ds[f"{name}_interval"].values[at]
            assert (row[name], row[f"{name}_low"], row[f"{name}_high"]) == (ds[name].values[at], low, high)
        cosine = [np.nanmean(trajectory) for trajectory in ds["gradient_cosine"].values[at]]
        assert row["gradient_cosine"] == pytest.approx(np.mean(cosine))
        assert row["nonfinite_steps"] == 0
    assert made.floors == {"fd_extractor": 0.3, "coverage": 0.95}
    assert np.isnan(made.cells["transfer_ratio"][0])


def test_provenance_and_remarks(made):
    assert made.provenance["run_id"] == "5f0c"
    assert made.provenance["configuration"] == {"judge": "none"}
    assert made.provenance["evaluation"]["N"] == SAMPLES
    assert made.written.complete
    assert made.remarks == ["the evaluation left out 1 samples that are not finite at the end"]


def test_json_is_strict_and_complete(made):
    content = strictly(to_json(made))
    assert sorted(content) == [
        *("cells", "comparisons", "findings", "floors", "provenance"),
        *("remarks", "tests", "untested", "version", "written"),
    ]
    assert content["version"] == 1
    assert content["written"] == {"share": 1.0, "samples": SAMPLES, "complete": True, "text": str(made.written)}
    assert len(content["cells"]) == 16
    assert content["cells"][0]["transfer_ratio"] is None
    assert content["cells"][1]["fd_extractor"] == made.cells["fd_extractor"][1]
    assert content["findings"][0]["signature"] == made.findings[0].signature
    assert [row["accuracy"] for row in content["comparisons"]] == made.comparisons["accuracy"].tolist()
    assert {row["p"] for row in content["comparisons"]} == {None}  # fewer than 64 samples


def test_findings_are_grouped_in_their_order():
    found = [finding("b"), finding("a"), finding("b", stabilizer="adam"), finding("b", "warning")]
    groups = [(severity, signature, len(group)) for severity, signature, group in grouped(found)]
    assert groups == [("alarm", "b", 2), ("alarm", "a", 1), ("warning", "b", 1)]


def test_the_headline_counts(made):
    few = [finding("b"), finding("a"), finding("b", "warning", classifier="non_robust")]
    assert headline(few, len(made.cells)) == "2 alarms and 1 warning in 2 of 16 cells"
    assert headline([], len(made.cells)) == "no finding in 16 cells"


@pytest.mark.slow
def test_before_an_evaluation_the_report_says_what_adds_judged_numbers():
    ds = recorded().isel(ONE_INPUT | {"classifier": [0]})
    made = report(ds)
    assert made.remarks == ["`gradscope evaluate STORE` adds judged numbers"]
    assert not {"own", "judge", "fd_extractor"} & set(made.cells)
    assert made.floors == {}
    assert "gradscope evaluate STORE" in made.untested["adversarial"]
    assert made.comparisons["accuracy"].isna().all()
    assert "gradient_cosine" in made.cells
    text = to_html(made, ds)
    assert "<code>gradscope evaluate STORE</code> adds judged numbers" in text
    assert "Change of the judge" not in text
    assert "There is nothing to compare yet: judge_prediction is not in this store; <code>gradscope" in text
    strictly(to_json(made))


def test_a_judged_store_without_distances_says_what_adds_them():
    ds = evaluated()
    names = [name for name in ds.data_vars if str(name).startswith(("fd_", "kd_", "coverage", "recall"))]
    ds = ds.isel(FEW).drop_vars(names).assign_attrs(evaluation=json.dumps({"distances": []}))
    assert report(ds).remarks == ["`gradscope evaluate STORE` adds distances to real images and coverage"]


@pytest.mark.slow
def test_the_written_part_of_a_store_is_analysed():
    ds = evaluated().isel(ONE_INPUT)
    ds["written"][1:] = 0  # nothing of non_robust is written
    ds["written"][(0, 0, 0, 1, slice(8, None))] = 0
    floats = [name for name, v in ds.data_vars.items() if "timestep" in v.dims and v.dtype.kind == "f"]
    ds = ds.assign({name: ds[name].where(ds["written"] > 0) for name in floats})
    ds["judge_prediction"] = ds["judge_prediction"].where((ds["written"] > 0).all("timestep"), -1)
    made = report(ds)
    assert made.remarks[0].startswith("44 % written: 3 of 8 cells complete, 0 to 16 of 16 samples finished per cell;")
    assert made.cells["samples"].tolist() == [16, 8, 16, 16] + [0] * 4
    assert {f.classifier for f in made.findings} <= {"robust"}
    content = strictly(to_json(made))
    assert content["cells"][-1]["judge"] is None
    assert content["cells"][-1]["gradient_cosine"] is None
    assert {cell["classifier"] for cell in worst_and_best(made, ds)} == {"robust"}
    assert "44 % written" in to_html(made, ds)


def test_a_store_with_hardly_any_variable_has_a_report():
    ds = recorded()[["written", "finite_fraction", "image"]]
    made = report(ds)
    assert list(made.cells) == [*CELL_DIMS, "samples", "nonfinite_steps"]
    assert "unstable" in made.untested
    text = to_html(made, ds)
    assert "The store has none of the diagnostics that this section shows." in text
    assert "The store has no tensors of guided cells" in text
    assert "plotly" not in text.lower().split("<body>")[1]
    strictly(to_json(made))


@pytest.mark.slow
def test_a_store_without_guided_cells_or_without_the_baseline():
    control = evaluated().isel(FEW | {"guidance_scale": [0]})
    assert "There is nothing to compare" in to_html(report(control), control)
    others = evaluated().isel(classifier=[0], guidance_scale=[1]).assign_coords(stabilizer=["ema", "adam"])
    table = report(others).comparisons
    assert {"ema", "x_t", "x_t, ema"} == set(table["against"])


def test_only_small_variables_are_read_at_once():
    lazy = evaluated().chunk()
    read = in_memory(lazy)
    assert read["gradient_cosine"].chunks is None
    assert read["gradient"].chunks is not None


def test_the_worst_and_the_best_cell(ds, made):
    guided = made.cells[made.cells["guidance_scale"] > 0]
    worst, best = worst_and_best(made, ds)
    for cell, share in ((worst, guided["judge"].min()), (best, guided["judge"].max())):
        at = tuple(CELLS[dim].index(cell[dim]) for dim in CELL_DIMS)
        assert accuracy(ds, "judge", at)[0] == share
        assert cell["guidance_scale"] > 0
    bare = recorded().isel(ONE_INPUT)
    cosines = (unjudged := report(bare)).cells
    expected = cosines[cosines["guidance_scale"] > 0]["gradient_cosine"]
    ends = worst_and_best(unjudged, bare)
    assert [cosines.loc[i, list(CELL_DIMS)].to_dict() for i in (expected.idxmin(), expected.idxmax())] == ends


def test_the_example_is_the_first_sample_that_differs_between_the_cells(ds):
    ds = ds.copy(deep=True)
    label, bad, good = ds["label"].values, (1, 0, 0, 1), (0, 0, 0, 1)
    ds["judge_prediction"][bad] = label
    ds["judge_prediction"][good] = label
    assert example_sample(ds, [BAD, GOOD]) == 0  # no sample differs
    ds["judge_prediction"][(*bad, 2)] = (label[2] + 1) % 4
    assert example_sample(ds, [BAD, GOOD]) == 2
    ds["judge_prediction"][(*bad, 1)] = (label[1] + 1) % 4
    ds["judge_prediction"][(*good, 1)] = (label[1] + 1) % 4
    assert example_sample(ds, [BAD, GOOD]) == 2
    assert example_sample(ds.drop_vars("judge_prediction"), [BAD, GOOD]) == 0


class Page(HTMLParser):
    """Collects the tags and the text of a page; fails if tags do not close in order."""

    EMPTY = ("meta", "link", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.code = [], [], "", ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("th", "td") else ""
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.code += data
        else:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.mark.slow
def test_the_page_requests_nothing_from_the_network(page):
    seen = Page(page)
    assert not seen.all("link")
    assert not seen.all("img")
    assert not seen.all("iframe")
    for tag, attrs in seen.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith("#"), (tag, attrs)
    styles = "".join(re.findall("<style>(.*?)</style>", page.split("<body>")[0], re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = [m["content"] for m in seen.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert page.count("* plotly.js v") == 1
    assert "cdn.plot.ly/plotly" not in page
    assert page.count("Plotly.newPlot(") >= 9
    assert "plotlyServerURL" not in re.sub(r"<script>[^<]*plotly\.js v.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_is_accessible(page, made):
    seen = Page(page)
    assert seen.all("html") == [{"lang": "en"}]
    assert len(seen.all("h1")) == len(seen.all("title")) == 1
    assert headline(made.findings, len(made.cells)) in seen.text
    assert all(attrs.get("scope") in ("col", "row") for attrs in seen.all("th"))
    ids = [attrs["id"] for attrs in seen.all("h2")]
    assert ids == ["findings", "untested", "cells", "effects", "curves", "trajectories", "provenance"]
    assert {attrs["href"][1:] for attrs in seen.all("a")} == set(ids)
    for region in (attrs for _, attrs in seen.tags if attrs.get("role") == "region"):
        assert region["aria-label"]
    for text in ("prefers-color-scheme: dark", "@media (max-width"):
        assert text in seen.code


def test_the_page_shows_the_numbers(page, made):
    text = " ".join(Page(page).text.split())
    for found in made.findings:
        assert f"{found.affected} of {found.samples}" in text
        assert " ".join(found.evidence.replace("`", "").split()) in text
    for reason in made.untested.values():
        assert reason.replace("`", "") in text
    for row in made.cells.to_dict("records"):
        assert f"{row['fd_extractor']:.2f} [{row['fd_extractor_low']:.2f}, {row['fd_extractor_high']:.2f}]" in text
    for row in made.comparisons.to_dict("records"):
        assert f"{row['accuracy']:+.3f} [{row['accuracy_low']:+.3f}, {row['accuracy_high']:+.3f}]" in text
    assert "robust 0.5 x0 + adam x_t, none 16" in text
    for name in ("5f0c", "abcd", "gradscope record --config both.yaml", "gradscope 0.1.0"):
        assert name in text


@pytest.mark.slow
def test_nothing_in_a_store_becomes_markup_or_script():
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    ds = evaluated().isel(ONE_INPUT | {"guidance_scale": [1]})
    ds = ds.assign_coords({"classifier": [evil, "`<b>`"], "class": [evil, *CLASSES[1:]]})
    ds = ds.assign_attrs(
        command=evil,
        configuration=json.dumps({"judge": evil, "</pre>": 1}),
        versions={evil: evil},
        classes=[evil, *CLASSES[1:]],
    )
    ds["log_prob"].attrs["long_name"] = evil
    text = to_html(report(ds), ds)
    seen = Page(text)
    assert "<script>alert" not in text
    assert not seen.all("img")
    assert not [attrs for _, attrs in seen.tags if "onerror" in attrs]
    assert len(seen.all("b")) == text.count("<b>Try:</b>")
    assert evil in seen.text


def test_the_report_has_public_names():
    assert gradscope.report is report
    assert isinstance(gradscope.signatures(evaluated().isel(FEW)), pd.DataFrame)
    assert gradscope.open  # registers the accessor
    assert isinstance(xr.Dataset().gradscope, gradscope.accessor.Accessor)
