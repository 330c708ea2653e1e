"""The Compare page: its numbers against loops and scipy, and its callbacks."""

import json
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import small_store
import xarray as xr
from dash_client import ask, parts, texts
from scipy import stats

from dashboards import create_app
from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.data.two_runs import two_runs
from dashboards.pages.compare import page, selection
from dashboards.pages.compare.differences import (
    ACCURACY,
    HEADS,
    NONE,
    differences,
    differing,
    hint,
    table_texts,
    why_incomparable,
)
from dashboards.state import default, parse
from dashboards.widgets.export import Call, stamp
from gradscope.analysis.comparison import SCALARS, compare
from gradscope.analysis.synthetic import trajectories
from gradscope.analysis.verdict import p_text, verdict
from gradscope.store import CELL_DIMS

A, B = 1, 9
AT = {A: (0, 0, 0, 1), B: (1, 0, 0, 1)}


@pytest.fixture(scope="module")
def ds(evaluated):
    return evaluated


@pytest.fixture(scope="module")
def table(ds):
    return differences(ds, compare(ds, small_store.GOOD, small_store.BAD)).set_index("quantity")


@pytest.fixture(scope="module")
def many():
    """64 samples in two cells: enough for tests with p."""
    found = []
    for name, fault in {"robust": "none", "non_robust": "white_noise"}.items():
        cell = dict(zip(CELL_DIMS, (name, "x_t", "none", 0.5), strict=True))
        part = trajectories(fault, 64, 6, seed=len(found)).drop_vars(["gradient", "update", "x_t"])
        found.append(part.assign_coords({dim: [value] for dim, value in cell.items()}))
    joined = xr.combine_by_coords(found, data_vars="all", combine_attrs="override", join="outer")
    return joined.assign_coords(sample=np.arange(64)).assign_attrs(small_store.ATTRIBUTES)


def test_means_of_trajectories_are_paired_over_samples(ds, table):
    for name in ("gradient_cosine", "effective_strength", "reference_cosine"):
        pairs = []
        for sample in range(small_store.SAMPLES):
            a, b = (ds[name].values[AT[cell]][sample].astype(float) for cell in (A, B))
            both = [t for t in range(small_store.TIMESTEPS) if np.isfinite(a[t]) and np.isfinite(b[t])]
            pairs.append((sum(a[both]) / len(both), sum(b[both]) / len(both)))
        row = table.loc[name]
        assert row["mean_a"] == pytest.approx(sum(a for a, _ in pairs) / 16)
        assert row["mean_b"] == pytest.approx(sum(b for _, b in pairs) / 16)
        assert row["estimate"] == pytest.approx(sum(b - a for a, b in pairs) / 16)
        assert row["low"] <= row["estimate"] <= row["high"]
        assert row["n"] == 16


def test_the_accuracy_is_that_of_samples_judged_in_both(ds, table):
    label = ds["label"].values
    seen = {cell: ds["judge_prediction"].values[AT[cell]] for cell in (A, B)}
    both = [i for i in range(16) if min(seen[A][i], seen[B][i]) >= 0]
    right = {cell: sum(seen[cell][i] == label[i] for i in both) for cell in (A, B)}
    row = table.loc[ACCURACY]
    assert row["n"] == len(both)
    assert (row["mean_a"], row["mean_b"]) == pytest.approx((right[A] / len(both), right[B] / len(both)))
    assert row["estimate"] == pytest.approx((right[B] - right[A]) / len(both))


def test_a_sample_without_a_verdict_counts_in_neither_cell(ds):
    unguided = small_store.GOOD | {"guidance_scale": 0.0}
    row = differences(ds, compare(ds, unguided, small_store.GOOD)).set_index("quantity").loc[ACCURACY]
    seen, label = ds["judge_prediction"].values[0, 0, 0], ds["label"].values
    assert (seen[0] < 0).sum() == 1
    kept = seen[0] >= 0
    assert row["n"] == 15
    assert row["mean_b"] == pytest.approx((seen[1] == label)[kept].mean())


def test_distances_have_the_quantiles_of_paired_replicates(ds, table):
    row = table.loc["fd_extractor"]
    values = [float(ds["fd_extractor"].values[AT[cell]]) for cell in (A, B)]
    assert (row["mean_a"], row["mean_b"], row["estimate"]) == pytest.approx((*values, values[1] - values[0]))
    apart = ds["fd_extractor_replicates"].values[AT[B]] - ds["fd_extractor_replicates"].values[AT[A]]
    assert row["high"] - row["low"] == pytest.approx(np.quantile(apart, 0.975) - np.quantile(apart, 0.025), rel=0.1)
    assert np.isnan([row["p"], row["effect"]]).all()


def test_below_64_samples_there_is_no_p_and_the_table_says_so(table):
    assert table["p"].isna().all()
    shown = {row[0]: dict(zip(HEADS, row, strict=True)) for row in table_texts(table.reset_index())}
    assert shown["gradient_cosine"]["p"] == shown["gradient_cosine"]["Holm's p"] == NONE
    assert shown["gradient_cosine"]["note"] == "insufficient samples: 16 of 64"


def test_from_64_samples_there_is_a_p(many):
    cells = [
        {dim: many[dim].values.tolist()[0] for dim in CELL_DIMS} | {"classifier": c} for c in ("robust", "non_robust")
    ]
    found = differences(many, compare(many, *cells)).set_index("quantity")
    means = [many["gradient_cosine"].sel(cell).squeeze().mean("timestep").values.astype(float) for cell in cells]
    expected = stats.ttest_rel(means[1], means[0]).pvalue
    assert found.loc["gradient_cosine", "p"] == pytest.approx(expected)
    tested = found.drop(index=ACCURACY).dropna(subset="p")
    assert len(tested) > 3
    assert (tested["p_holm"] >= tested["p"]).all()
    assert tested["p_holm"].min() == pytest.approx(min(1, tested["p"].min() * len(tested)))
    right = [many["judge_prediction"].sel(cell).squeeze().values == many["label"].values for cell in cells]
    gained, lost = (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
    share = stats.binom(gained + lost, 0.5)
    p = min(1, 2 * share.sf(max(gained, lost)) + share.pmf(max(gained, lost)))  # mid-p
    assert f"McNemar's p {p_text(p)}, N = 64." in verdict(compare(many, *cells))


def test_quantities_have_their_units(ds):
    ds = ds.copy()
    ds["log_prob"] = ds["log_prob"].assign_attrs(units="nat")
    assert "final log_prob [nat]" in set(differences(ds, compare(ds, small_store.GOOD, small_store.BAD))["quantity"])


def test_the_hint_names_the_differing_dimensions():
    good, bad = small_store.GOOD, small_store.BAD
    assert differing(good, bad) == {"classifier": ("robust", "non_robust")}
    assert hint(good, bad) == "They differ in classifier: robust → non_robust."
    assert hint(good, bad | {"guidance_scale": 0.0}) == (
        "They differ in 2 ways: classifier: robust → non_robust; guidance_scale: 0.5 → 0."
    )
    assert hint(good, good) == "They are the same cell."


def test_why_cells_cannot_be_compared(ds):
    good, bad = small_store.GOOD, small_store.BAD
    assert why_incomparable(ds, good, bad) == ""
    assert why_incomparable(ds, good, good).startswith(
        "a and b are the same cell, robust, x_t, no stabiliser, s = 0.5."
    )
    partly = ds.copy(deep=True)
    partly["written"].values[AT[B]][:, -1] = 0
    assert "finished: 16 in a, 0 in b" in why_incomparable(partly, good, bad)
    partly["written"].values[AT[B]][5] = 1
    assert why_incomparable(partly, good, bad) == ""
    assert compare(partly, good, bad).samples == 1


def control(key):
    return {"type": "control", "key": key}


def view(run, **changes):
    return ("view", "data", {"store": run.key, "page": "compare", "url": default(run).to("compare", **changes).url()})


def chosen(a, b, label=None):
    label = (control("label"), "value", "all" if label is None else str(label))
    return [(control("cell"), "value", str(a)), (control("other"), "value", str(b)), label]


def slots(*names):
    each = ("frame-{}.hidden", "reason-{}.children", "title-{}.children", "menu-{}.children", "{}.figure")
    return [part.format(f"compare-{name}") for name in names for part in each]


def statistics(client, run, a, b, label=None, **changes):
    outputs = [f"compare-{part}" for part in ("hint.children", "headline.children", "reason.children", "body.style")]
    outputs += ["compare-table.children", *slots("forest")]
    return ask(client, outputs, [*chosen(a, b, label), ("version", "data", None)], [view(run, **changes)])


def drawn(client, run, samples, triggered="", a=A, b=B, label=None, **changes):
    inputs = [*chosen(a, b, label), (control("variables"), "value", "log_prob"), ("compare-samples", "value", samples)]
    outputs = slots("difference", "pairs")
    return ask(client, outputs, [*inputs, ("version", "data", None)], [view(run, **changes)], triggered)


def test_the_layout_has_its_controls_and_slots(run):
    state = default(run).to("compare", cell=A, other=B)
    made = {str(part.get("id")): part for part in parts(page.layout(run, state))}
    controls = {part["id"]["key"]: part["value"] for part in made.values() if isinstance(part.get("id"), dict)}
    assert controls == {"cell": str(A), "other": str(B), "variables": state.variables[0], "label": "all"}
    for name in ("compare-forest", "compare-difference", "compare-pairs", "compare-swap", "compare-clear"):
        assert name in made
    assert made["compare-samples"]["data"] == [str(i) for i in range(16)]
    assert made["frame-compare-forest"]["hidden"] is True


def test_statistics_follow(client, run):
    found = statistics(client, run, A, B)
    assert found["compare-hint"]["children"] == "They differ in classifier: robust → non_robust."
    sentence = verdict(compare(small_store.evaluated(), small_store.GOOD, small_store.BAD))
    assert found["compare-headline"]["children"] == sentence
    assert sentence.startswith("Too few samples: judge's accuracy −0.")
    assert found["compare-body"]["style"] == {}
    assert found["frame-compare-forest"]["hidden"] is False
    table = found["compare-table"]["children"]
    rows = [part for part in parts(table) if part["type"] == "Tr"]
    expected = {title for title, of in SCALARS.items() if of.variable in run.ds}
    distances = {n.removesuffix("_replicates") for n in run.ds if n.endswith("_replicates")}
    assert len(rows) == 1 + 1 + len(expected) + len(distances)
    assert "16 samples are finished in both cells" in texts(table)
    assert "the probe `sensitivity` records it" in texts(table)


def test_the_same_cell_twice_is_no_error(client, run):
    found = statistics(client, run, A, A)
    assert found["compare-body"]["style"] == {"display": "none"}
    assert "a and b are the same cell, robust, x_t, no stabiliser, s = 0.5" in texts(
        found["compare-reason"]["children"]
    )
    assert found["frame-compare-forest"]["hidden"] is True
    assert drawn(client, run, [], a=A, b=A)["frame-compare-pairs"]["hidden"] is True


def test_selected_samples_are_in_both_figures_and_in_their_exports(client, run):
    plain, found = drawn(client, run, []), drawn(client, run, ["7", "2"])
    assert len(found["compare-difference"]["figure"]["data"]) == 1 + len(plain["compare-difference"]["figure"]["data"])
    assert "mean of the 2 selected" in json.dumps(found["compare-difference"]["figure"])
    marked = [
        trace["customdata"][i]
        for trace in Call("pairs", PAIRS | {"selected": [2, 7]}).draw(run).data
        for i in trace.selectedpoints
    ]
    assert sorted(marked) == [2, 7]
    calls = {name: exported(found[f"menu-compare-{name}"]["children"]) for name in ("difference", "pairs")}
    assert calls["difference"] == Call("difference", PAIRS | {"highlight": [2, 7]})
    assert calls["pairs"] == Call("pairs", PAIRS | {"selected": [2, 7]})


PAIRS = {"name": "log_prob", "a": small_store.GOOD, "b": small_store.BAD}


def exported(menu):
    """The call whose numbers a menu offers."""
    link = next(part["href"] for part in parts(menu) if part["type"] == "A")
    return Call.decode(dict(parse_qsl(urlsplit(link).query))["call"])


def test_a_new_selection_leaves_the_scatter_plot_to_the_browser(client, run):
    found = drawn(client, run, ["7"], triggered="compare-samples.value")
    assert "compare-pairs" not in found
    assert "compare-difference" in found
    assert exported(found["menu-compare-pairs"]["children"]).arguments["selected"] == [7]


def images(client, run, samples, a=A, b=B, **changes):
    inputs = [("compare-samples", "value", samples), *chosen(a, b), ("version", "data", None)]
    states = [(control("variables"), "value", "log_prob"), view(run, **({"timestep": 300} | changes))]
    return ask(client, ["compare-selected.children"], inputs, states)["compare-selected"]["children"]


def test_selected_samples_have_thumbnails_that_link_to_their_trajectories(client, run, state_of):
    links = [part["href"] for part in parts(images(client, run, ["11", "4"])) if part["type"] == "A"]
    found = []
    for link in links:
        state = state_of(link)
        assert (state.page, state.cells, state.variables, state.timestep) == ("trajectory", (A, B), ("log_prob",), 300)
        found.append((state.cell, state.sample))
    assert found == [(A, 4), (A, 11), (B, 4), (B, 11)]
    assert images(client, run, []) is None


def test_of_many_selected_samples_the_first_are_shown(client, run, monkeypatch):
    monkeypatch.setattr(selection, "MOST", 2)
    found = images(client, run, ["9", "1", "5"])
    assert len([part for part in parts(found) if part["type"] == "A"]) == 4
    assert "The first 2 of 3 selected samples." in texts(found)


def test_a_store_without_verdicts_is_compared_all_the_same(opened):
    run = opened(small_store.recorded())
    found = statistics(create_app([run.path]).server.test_client(), run, A, B)
    assert "`gradscope evaluate STORE` adds it" in found["compare-headline"]["children"]
    assert "`gradscope evaluate STORE` adds it" in texts(found["compare-table"]["children"])
    assert found["frame-compare-forest"]["hidden"] is False


def test_a_store_in_which_nothing_is_written_says_so(opened):
    ds = small_store.recorded()
    ds["written"][:] = 0
    run = opened(ds)
    found = statistics(create_app([run.path]).server.test_client(), run, A, B)
    assert "No sample is finished in both cells yet" in texts(found["compare-reason"]["children"])


def seeded(ds, first=0, **attributes):
    return ds.assign_coords(seed=("sample", np.arange(ds.sizes["sample"]) + first)).assign_attrs(attributes)


@pytest.fixture(scope="module")
def several(tmp_path_factory, many):
    """Three stores: a of 16 cells, b with the same seeds but few cells and another scale, and c with other seeds."""
    folder = tmp_path_factory.mktemp("several")
    sampling = [json.dumps({"sampling": {"seed": seed, "steps": steps}}) for seed, steps in ((0, 10), (0, 6), (1, 6))]
    a = seeded(small_store.evaluated(), run_id="aaaa", configuration=sampling[0])
    many = many.drop_vars([name for name in many.variables if "coverage" in name or name == "bound"])
    b = seeded(many.assign_coords(guidance_scale=[0.8]), run_id="bbbb", configuration=sampling[1])
    c = seeded(many, 1000, run_id="cccc", configuration=sampling[2])
    return Library([small_store.save(ds, folder / f"{name}.zarr") for name, ds in zip("abc", (a, b, c), strict=True)])


@pytest.fixture(scope="module")
def across(several):
    app = app_of(several, "/")
    app.server.test_client().get("/_dash-dependencies")
    return app.server.test_client()


@pytest.mark.slow
def test_cells_of_two_stores_are_compared(across, several):
    run, other = several.runs["aaaa"], several.runs["bbbb"]
    found = statistics(across, run, A, 0, other_store="bbbb")
    expected = compare(run.scalars(), run.cell(A), other.cell(0), other.scalars())
    assert expected.samples == 16  # pairs by seed
    assert found["compare-headline"]["children"] == verdict(expected)
    assert found["compare-hint"]["children"].startswith("They differ in 2 ways: classifier: robust → non_robust;")
    assert found["frame-compare-forest"]["hidden"] is False
    mean = expected.scalars.set_index("diagnostic").loc["gradient_cosine"]
    row = f"gradient_cosine {mean['mean_a']:.3g} {mean['mean_b']:.3g} {mean['estimate']:+.3g} "
    assert row in texts(found["compare-table"]["children"])
    call = exported(found["menu-compare-forest"]["children"])
    assert call.arguments == {"a": dict(run.cell(A)), "b": dict(other.cell(0))}
    pair = two_runs(several, "aaaa~bbbb")
    np.testing.assert_array_equal(call.numbers(pair)["estimate"][1:], expected.scalars["estimate"])


def test_other_samples_are_compared_as_such(across, several):
    found = statistics(across, several.runs["bbbb"], 0, 1, other_store="cccc")
    sentence = found["compare-headline"]["children"]
    assert sentence.startswith("b is better: judge's accuracy +")
    assert "Newcombe's p below 0.0001, N = 64 and 64; unpaired: other samples" in sentence
    assert "Samples are not pairs" in texts(found["compare-table"]["children"])
    figures = drawn(across, several.runs["bbbb"], ["3"], a=0, b=1, other_store="cccc")
    assert figures["frame-compare-pairs"]["hidden"] is True
    assert "samples are not pairs" in texts(figures["reason-compare-pairs"]["children"])
    assert figures["frame-compare-difference"]["hidden"] is False
    assert "are not pairs" in texts(images(across, several.runs["bbbb"], ["3"], a=0, b=1, other_store="cccc"))


def test_thumbnails_of_two_stores_are_of_partners(across, several):
    shown = images(across, several.runs["aaaa"], ["3", "5"], a=A, b=A, other_store="aaaa")
    assert len([part for part in parts(shown) if part["type"] == "A"]) == 4  # its own store is no other store
    links = images(across, several.runs["bbbb"], ["3", "5"], a=0, b=A, other_store="aaaa")
    states = [parse(*address(part["href"]), several) for part in parts(links) if part["type"] == "A"]
    found = [(state.store, state.cell, state.sample) for state, notices in states if not notices]
    assert found == [("bbbb", 0, 3), ("bbbb", 0, 5), ("aaaa", A, 3), ("aaaa", A, 5)]


def address(url):
    found = urlsplit(url)
    return found.path, dict(parse_qsl(found.query))


def test_the_page_offers_other_stores_and_lists_settings_that_differ(across, several):
    outputs = ["compare-other-store.data", control_output("other", "data"), "compare-settings.children"]
    states = [view(several.runs["aaaa"], other_store="bbbb")]
    found = ask(across, outputs, [("compare-body", "id", "compare-body")], states)
    options = found["compare-other-store"]["data"]
    assert [option["value"] for option in options] == ["same", "bbbb", "cccc"]
    (cells,) = (value["data"] for key, value in found.items() if "other" in key and "store" not in key)
    assert [cell["label"] for cell in cells] == [
        "non_robust, x_t, no stabiliser, s = 0.8", "robust, x_t, no stabiliser, s = 0.8"
    ]  # fmt: skip
    assert "sampling.steps 10 6" in texts(found["compare-settings"]["children"])
    same = ask(across, outputs, [("compare-body", "id", "compare-body")], [view(several.runs["aaaa"])])
    assert same["compare-settings"]["children"] is None


def control_output(key, property):
    return json.dumps(control(key), separators=(",", ":"), sort_keys=True) + f".{property}"


def test_figures_of_two_stores_are_exported_with_both(across, several):
    pair = two_runs(several, "aaaa~cccc")
    call = Call("difference", {"name": "gradient_norm", "a": small_store.GOOD, "b": {"classifier": "robust"}})
    answer = across.get(f"/numbers/{pair.key}.csv?call={call.encode()}")
    assert answer.status_code == 200
    assert "# store of b: c.zarr" in answer.text
    assert "b: run cccc" in stamp(pair)
    ran = {}
    exec(call.python(pair).replace("figure.show(config=PLOTLY_CONFIG)", ""), ran)  # noqa: S102
    assert ran["figure"] == call.draw(pair)
    for wrong in ("aaaa~gone", "aaaa~", "~", "aaaa~bbbb~cccc"):
        assert across.get(f"/numbers/{wrong}.csv?call={call.encode()}").status_code == 404
    hostile = Call("difference", dict(call.arguments) | {"other": "b.zarr"})
    assert "unexpected argument 'other'" in across.get(f"/numbers/aaaa.csv?call={hostile.encode()}").text


@pytest.mark.parametrize("label", [0, 3])
def test_a_class_alone_is_compared(client, run, evaluated, label):
    found = statistics(client, run, A, B, label)
    one = evaluated.isel(sample=np.flatnonzero(evaluated["label"].values == label))
    right = [(one["judge_prediction"] == one["label"]).values[AT[cell]] for cell in (A, B)]
    assert "N = 4" in found["compare-headline"]["children"]
    estimate = float(right[1].mean() - right[0].mean())
    assert f"{estimate:+.2f}".replace("-", "−") in found["compare-headline"]["children"]
    table = texts(found["compare-table"]["children"])
    assert "4 samples are finished in both cells" in table
    assert "distances are those of all classes together" in table
    figures = drawn(client, run, [], label=label)
    numbers = exported(figures["menu-compare-pairs"]["children"]).numbers(run)
    assert numbers["sample"].tolist() == one["sample"].values.tolist()
    assert set(numbers["class"]) == {small_store.CLASSES[label]}
