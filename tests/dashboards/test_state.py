"""The state of a view, and its URL."""

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
import small_store
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.data.library import Library
from dashboards.state import (
    FIELDS,
    LIMITS,
    PAGE_MAX,
    PAGES,
    SAMPLE_FILTERS,
    SCALES,
    State,
    channels,
    default,
    diagnostics,
    mask,
    parse,
    unmask,
)
from gradscope.analysis.cells import cell_name


def read(url, library):
    parts = urlsplit(url)
    return parse(parts.path, dict(parse_qsl(parts.query)), library)


@pytest.mark.slow
@given(data=st.data(), page=st.sampled_from(PAGES))
@settings(max_examples=200, deadline=None)
def test_a_url_restores_the_state_of_its_page(library, data, page):
    run = library.run(None)
    cells, names = st.integers(0, len(run.cells) - 1), st.sampled_from(diagnostics(run))
    state = State(
        page=page,
        store=run.key,
        cell=data.draw(cells),
        other=data.draw(cells),
        timestep=data.draw(st.sampled_from(run.ds["timestep"].values.tolist())),
        sample=data.draw(st.integers(0, run.ds.sizes["sample"] - 1)),
        cells=tuple(sorted(data.draw(st.sets(cells, min_size=1, max_size=PAGE_MAX["cells"].get(page, 16))))),
        variables=tuple(
            data.draw(st.lists(names, min_size=1, max_size=PAGE_MAX["variables"].get(page, 3), unique=True))
        ),
        limits=data.draw(st.sampled_from(LIMITS)),
        scale=data.draw(st.sampled_from(SCALES)),
        channel=data.draw(st.sampled_from(channels(run))),
        zoom=data.draw(st.sampled_from(("", *run.tensors))),
        finding=data.draw(st.sampled_from(("", "3.unstable", "15.class_failure.2"))),
        label=data.draw(st.sampled_from([None, 0, 1, 2, 3])),
        only=data.draw(st.sampled_from(SAMPLE_FILTERS)),
    )
    restored, notices = read(state.url(), library)
    kept = {"page", "store", "cell", "timestep", "sample", *FIELDS[page]}
    usual = default(run, page)
    expected = replace(state, **{f: getattr(usual, f) for f in State.__dataclass_fields__ if f not in kept})
    assert notices == []
    assert restored == expected
    assert len(f"http://127.0.0.1:8050/{state.url()}") < 250


@pytest.mark.slow
@given(
    path=st.text(max_size=300),
    query=st.dictionaries(
        st.sampled_from(
            [
                "store",
                "cell",
                "other",
                "t",
                "sample",
                "cells",
                "variables",
                "limits",
                "scale",
                "channel",
                "zoom",
                "finding",
                "only",
                "x",
                "label",
                "other_store",
                "was",
                "other_was",
            ]
        ),
        st.text(max_size=400) | st.integers().map(str) | st.sampled_from(["nan", "1e9", "-1", "９", "0x1", "1_0", ""]),
    ),
)
@settings(max_examples=300, deadline=None)
def test_any_url_gives_a_state_that_exists(library, path, query):
    run = library.run(None)
    state, notices = parse(path, query, library)
    assert state.page in PAGES
    assert 0 <= state.cell < len(run.cells)
    assert 0 <= state.other < len(run.cells)
    assert state.timestep in run.ds["timestep"].values
    assert 0 <= state.sample < run.ds.sizes["sample"]
    assert 1 <= len(state.cells) <= 16
    assert set(state.variables) <= set(diagnostics(run))
    assert all(len(notice) < 700 for notice in notices)


def test_impossible_values_are_replaced_with_notices(library):
    run = library.run(None)
    state, notices = read("trajectory?store=gone&cell=99&t=500&sample=-3&variables=nothing&limits=wide", library)
    assert (state.cell, state.sample, state.limits) == (15, 0, "cell")
    assert state.timestep == min(run.ds["timestep"].values.tolist(), key=lambda t: abs(t - 500))
    text = " | ".join(notices)
    for part in (
        "no open store is 'gone'",
        "cell=99: not a number from 0 to 15; shown: 15",
        "sample=-3",
        "limits=wide",
    ):
        assert part in text
    assert "variables=nothing" in text


def test_an_unknown_page_is_the_overview(library):
    state, notices = read("nowhere", library)
    assert state.page == "overview"
    assert "there is no page 'nowhere'" in notices[0]


def test_the_first_cell_is_a_guided_one(library):
    run = library.run(None)
    state = default(run)
    assert run.cells[state.cell]["guidance_scale"] != 0
    assert run.cells[state.other]["guidance_scale"] != 0
    assert state.cell != state.other
    assert all(run.cells[number]["guidance_scale"] != 0 for number in state.cells)


@given(st.sets(st.integers(0, 200)))
def test_masks_of_cells(cells):
    chosen = tuple(sorted(cells))
    assert unmask(mask(chosen)) == chosen
    assert int(mask(chosen), 16) == sum(2**number for number in cells)


def test_values_of_a_map_that_are_usual_are_left_out(library):
    run = library.run(None)
    state = default(run, "trajectory")
    assert "limits=cell" in state.url()
    for key in ("scale", "channel", "zoom", "finding"):
        assert f"{key}=" not in state.url()
    assert channels(run) == ("mean", "0", "1", "2")
    changed = state.to("trajectory", scale="log", channel="1", zoom="gradient", finding="3.unstable")
    assert changed.url().endswith("&limits=cell&label=all&scale=log&channel=1&zoom=gradient&finding=3.unstable")
    _, notices = read("trajectory?channel=3&scale=sqrt&zoom=nothing&finding=<b>", library)
    assert notices == [
        "scale=sqrt: not one of linear, log; shown: linear",
        "channel=3: not one of mean, 0, 1, 2; shown: mean",
        "zoom=nothing: not one of gradient, update, x_t, pred_original_sample; shown: none",
        "finding=<b>: not a cell and a signature, such as 3.unstable; shown: none",
    ]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A store of 16 cells; one with other names, other scales and another order of cells."""
    folder = tmp_path_factory.mktemp("several")
    first = small_store.recorded()
    second = first.isel(stabilizer=[1, 0], classifier=[1]).assign_coords(guidance_scale=[0.0, 0.8])
    second = second.assign_coords(classifier_input=["x_t", "x0_detached"]).assign_attrs(run_id="second")
    return Library([small_store.save(ds, folder / f"{name}.zarr") for name, ds in (("a", first), ("b", second))])


def test_cells_survive_a_change_of_store_by_their_names(several):
    run, other = several.runs["5f0c"], several.runs["second"]
    for number, cell in enumerate(run.cells):
        state, notices = read(f"trajectory?store=second&was=5f0c&cell={number}", several)
        found = other.cells[state.cell]
        same = [cell[dim] == found[dim] for dim in ("classifier", "classifier_input", "stabilizer", "guidance_scale")]
        possible = cell["classifier"] == "non_robust" and cell["classifier_input"] == "x_t"
        if possible and not cell["guidance_scale"]:
            assert same == [True] * 4
            assert notices == []
        else:
            assert same[2]  # the stabiliser is there
            assert found["guidance_scale"] == (0.8 if cell["guidance_scale"] else 0.0)
            assert notices[0].startswith(f"b.zarr has no cell {cell_name(cell)}; shown: {cell_name(found)}")


def test_cells_shown_together_and_b_survive_too(several):
    other = several.runs["second"]
    names = [{"classifier": "non_robust", "classifier_input": "x_t", "stabilizer": s, "guidance_scale": 0.0}
             for s in ("none", "adam")]  # fmt: skip
    run = several.runs["5f0c"]
    numbers = tuple(i for i, cell in enumerate(run.cells) if cell in names)
    state, notices = read(f"trajectory?store=second&was=5f0c&cells={mask((*numbers, 15))}", several)
    assert [cell for cell in names if other.cells.index(cell) in state.cells] == names
    assert len(state.cells) == 2  # of those that the store lacks, none is shown
    assert notices == []
    state, _ = read(f"compare?store=second&was=5f0c&cell={numbers[0]}&other={numbers[1]}", several)
    assert [other.cells[i] for i in (state.cell, state.other)] == names
    state, _ = read(f"compare?store=5f0c&cell=1&other={numbers[1]}&other_store=second&other_was=5f0c", several)
    assert (state.cell, state.other_store, other.cells[state.other]) == (1, "second", names[1])
    assert "was" not in state.url()
    kept, _ = read(state.url(), several)
    assert kept == state
    moved, _ = read(f"compare?store=second&was=5f0c&cell=1&other={state.other}&other_store=second", several)
    assert (moved.other_store, moved.other) == ("", state.other)  # b's store is now that of a
    for wrong in ("compare?store=second&was=gone&cell=3", "compare?store=second&was=5f0c&cell=zz&cells=q&other=999"):
        found, _ = read(wrong, several)
        assert 0 <= found.cell < 8


def test_impossible_classes_and_stores_are_replaced_with_notices(library):
    state, notices = read("compare?label=9&other_store=gone", library)
    assert (state.label, state.other_store) == (None, "")
    assert notices == [
        "other_store=gone: not one of 5f0c; shown: none",
        "label=9: not all or one of 0, 1, 2, 3; shown: all",
    ]
