"""The Loop page against counts by hand, and against a loop that is watched here."""

import io
import json

import numpy as np
import pytest
import watched_store
from dash_client import ask, parts, show, texts
from PIL import Image

import gradscope
from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Tiles
from dashboards.pages.loop import page
from dashboards.pages.loop.rows import columns, rows
from dashboards.pages.samples import page as samples
from dashboards.state import default
from gradscope.analysis.seen import counted, problems, seen, unseen
from gradscope.plots.seen import what_was_seen_numbers


@pytest.fixture
def run(opened):
    return opened(watched_store.classifier())


def by_hand(ds, name, at):
    """Steps of one cell that show a field."""
    count = 0
    for sample in range(ds.sizes["sample"]):
        for step in range(ds.sizes["timestep"]):
            if ds["written"].values[at][sample, step] == 0:
                continue
            count += name is None or not np.isnan(ds[name].values[at][sample, step])
    return count


def test_counts_are_those_of_a_loop_over_steps(run):
    ds = watched_store.classifier()
    made = rows(run, default(run, "loop"))
    assert len(made) == 16
    for row, at in zip(made, np.ndindex(2, 2, 2, 2), strict=True):
        assert row["all"] == 160
        assert row["gradient"] == by_hand(ds, None, at)
        assert row["shift"] == by_hand(ds, "effective_strength", at)
        assert row["target classes"] == by_hand(ds, "log_prob", at)
        assert row["shift"] == seen(ds)["shift"].values[at].sum()
        assert (row["update"], row["x0-hat"]) == (0, 0)
        assert "two predictions" not in row
    assert len({row["shift"] for row in made}) > 5
    whole = sum(row["gradient"] for row in made)
    assert page.headline(run, default(run, "loop")) == (
        f"A loop guided by a classifier: a gradient at {whole:,} of 2,560 steps"
    )


def test_the_figure_counts_samples_at_each_timestep(run):
    ds = watched_store.classifier()
    cell = dict(run.cell(5))
    numbers = what_was_seen_numbers(run.scalars("written", "effective_strength", "log_prob"), cell)
    assert numbers["field"].unique().tolist() == ["gradient", "update", "shift", "x0-hat", "target classes"]
    at = (0, 1, 0, 1)
    for field, name in {"gradient": None, "shift": "effective_strength", "target classes": "log_prob"}.items():
        found = numbers[numbers["field"] == field]
        assert found["timestep"].tolist() == ds["timestep"].values.tolist()
        for step, count in enumerate(found["seen"]):
            there = ds["written"].values[at][:, step] > 0
            if name:
                there &= ~np.isnan(ds[name].values[at][:, step])
            assert count == there.sum()


def test_reasons_problems_and_counts_are_said_with_what_to_do(run):
    said = texts(page.layout(run, default(run, "loop")))
    assert watched_store.PROBLEM in said
    assert "40 evaluations, 80 calls of the denoiser, 39 steps of the scheduler, 37 gradients" in said
    assert "what follows was not seen What to do:  Give the object whose step the loop calls" in said
    assert "x0-hat why not What to do:  Give the scheduler, or alphas_cumprod= and prediction_type=." in said


def test_a_field_that_no_probe_measured_has_no_number(opened):
    ds = watched_store.classifier().drop_vars("log_prob")
    assert "target classes" not in seen(ds)
    run = opened(ds)
    (grid,) = [part for part in parts(page.layout(run, default(run, "loop"))) if "rowData" in part]
    assert "target classes" in [column["field"] for column in grid["columnDefs"]]
    assert "target classes" not in grid["rowData"][0]


@pytest.mark.parametrize(
    ("kind", "there", "not_there"),
    [
        ("classifier_free", "two predictions", "target classes"),
        ("energy", "x0-hat", "target classes"),
        ("classifier", "target classes", "two predictions"),
    ],
)
def test_columns_are_those_of_the_kind_of_guidance(opened, kind, there, not_there):
    names = [column["field"] for column in columns(opened(watched_store.classifier().assign_attrs(guidance_kind=kind)))]
    assert there in names
    assert not_there not in names


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "5", "null", "[" * 100_000])
def test_attributes_of_a_stranger_are_read_as_far_as_they_go(text):
    ds = watched_store.classifier().assign_attrs(seen=text, unseen=text, problems=text)
    assert counted(ds) == {}
    assert [each.what for each in unseen(ds)][:1] == ["update"]
    assert all(isinstance(each, str) for each in problems(ds))


def test_a_store_may_hold_as_many_texts_as_it_likes():
    many = json.dumps(["x" * 10**5] * 1000)
    assert len(problems(watched_store.classifier().assign_attrs(problems=many))) == 100
    assert max(map(len, problems(watched_store.classifier().assign_attrs(problems=many)))) == 2000


def test_the_callbacks_answer(run):
    client = app_of(Library([run.path]), "/").server.test_client()
    client.get("/_dash-dependencies")
    view = show(client, "loop")["view"]["data"]
    assert view["page"] == "loop"
    assert "loop" in view["pages"]
    assert "guidance" not in view["pages"]
    outputs = ["frame-{}.hidden", "reason-{}.children", "title-{}.children", "menu-{}.children", "{}.figure"]
    cell = ({"type": "control", "key": "cell"}, "value", "5")
    found = ask(
        client, [text.format("what-was-seen") for text in outputs], [cell, ("version", "data", None)],
        [("view", "data", view)],
    )  # fmt: skip
    assert found["title-what-was-seen"]["children"] == "What was seen along t"


def test_a_loop_that_is_watched_here(tmp_path):
    """The last shift is seen where the loop gives its final samples."""
    from watched_loops import Plain

    loop, path = Plain(), tmp_path / "plain.zarr"
    with gradscope.watch(path, **loop.watched) as watched:
        final, _ = loop()
        watched.final(final)
        loop(seed=6)
    run = OpenRun(path)
    (row,) = rows(run, default(run, "loop"))
    batch, steps = 4, 6
    assert row["all"] == row["gradient"] == row["x0-hat"] == row["target classes"] == 2 * batch * steps
    assert row["shift"] == 2 * batch * steps - batch
    assert counted(run.ds)["evaluations"] == 2 * steps
    assert {"update", "shift", "final samples"} == {each.what for each in unseen(run.ds)}


def test_a_final_sample_is_drawn_where_the_last_step_has_no_gradient(opened):
    ds = watched_store.classifier()
    ds["image"] = ds["image"].fillna(0.5)
    ds["written"] = ds["written"].where(ds["timestep"] != ds["timestep"][-1], 0)
    ds["written"][0, 0, 0, 0, 3] = 0
    ds["written"] = ds["written"].astype(np.uint8)
    for watched, there in ((1, 15), (0, 0)):
        run = opened(ds.assign_attrs(watched=watched), f"{watched}.zarr")
        picture = np.asarray(Image.open(io.BytesIO(Tiles().thumbnails(run, 0, 0, 15).png)).convert("RGBA"))
        height, width = ds["image"].shape[-2:]
        opaque = [
            bool(picture[row * height, column * width, 3])
            for row in range(picture.shape[0] // height)
            for column in range(picture.shape[1] // width)
        ]
        assert sum(opaque) == there
        assert not opaque[3]


def test_final_samples_that_were_not_seen_are_blank_and_it_is_said_why(opened):
    ds = watched_store.classifier()
    ds["image"][..., 4:, :, :, :] = np.nan
    ds["image"][0, 0, 0, 0, 0, 0, 0, 0] = np.nan
    reason = "the loop's final samples were not seen; call watched.final(x)"
    run = opened(ds.assign_attrs(unseen=json.dumps({"image": reason})))
    picture = np.asarray(Image.open(io.BytesIO(Tiles().thumbnails(run, 0, 0, 7).png)).convert("RGBA"))
    height, width = ds["image"].shape[-2:]
    assert picture.shape[:2] == (height, 8 * width)
    assert [bool(picture[0, i * width, 3]) for i in range(8)] == [True] * 4 + [False] * 4
    said = texts(samples.layout(run, default(run, "samples")))
    assert "Blank: the loop's final samples were not seen. Call watched.final(x) right after the loop." in said
