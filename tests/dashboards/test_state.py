"""The state of a view, and its URL."""

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

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


def read(url, library):
    parts = urlsplit(url)
    return parse(parts.path, dict(parse_qsl(parts.query)), library)


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
        only=data.draw(st.sampled_from(SAMPLE_FILTERS)),
    )
    restored, notices = read(state.url(), library)
    kept = {"page", "store", "cell", "timestep", "sample", *FIELDS[page]}
    usual = default(run, page)
    expected = replace(state, **{f: getattr(usual, f) for f in State.__dataclass_fields__ if f not in kept})
    assert notices == []
    assert restored == expected
    assert len(f"http://127.0.0.1:8050/{state.url()}") < 250


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
    assert changed.url().endswith("&limits=cell&scale=log&channel=1&zoom=gradient&finding=3.unstable")
    _, notices = read("trajectory?channel=3&scale=sqrt&zoom=nothing&finding=<b>", library)
    assert notices == [
        "scale=sqrt: not one of linear, log; shown: linear",
        "channel=3: not one of mean, 0, 1, 2; shown: mean",
        "zoom=nothing: not one of gradient, update, x_t, pred_original_sample; shown: none",
        "finding=<b>: not a cell and a signature, such as 3.unstable; shown: none",
    ]
