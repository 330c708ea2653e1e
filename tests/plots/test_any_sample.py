"""Figures of samples that are no images: what they draw is what the store holds."""

import any_sample
import numpy as np
import pytest
from any_sample import CELLS, SAMPLES, SHAPES, TIMESTEPS

import gradscope
from gradscope import plots
from gradscope.errors import GradscopeError
from gradscope.plots.magnitudes import magnitudes_numbers
from gradscope.plots.paths import draw_paths, paths_numbers
from gradscope.plots.spectrum import spectrum_numbers
from gradscope.reporting.html import to_html
from gradscope.reporting.report import report
from gradscope.store import CELL_DIMS

GOOD = {"classifier": "robust", "guidance_scale": 0.5}
BAD = {"classifier": "non_robust", "guidance_scale": 0.5}
AT = {"robust": (0, 0, 0, 1), "non_robust": (1, 0, 0, 1)}
LOST = (AT["non_robust"], 2, 0, np.inf)
"""The first elements of gradient and x_t of sample 2 at step 0 in the cell BAD."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Opens a store of a kind, recorded once: ``stores("signal")``."""
    made = {}

    def go(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp("kinds") / f"{kind}.zarr"
            made[kind] = gradscope.open(any_sample.save(path, kind, marred=[LOST])).load()
        return made[kind]

    return go


@pytest.mark.parametrize("kind", ["signal", "series", "trajectory"])
def test_curves_along_t_are_those_of_the_store(stores, kind):
    ds = stores(kind)
    figure = plots.trajectories(ds, [GOOD, BAD], sample=1, steps=3)
    panels = {}
    for trace in figure.data:
        panels.setdefault((trace.yaxis, trace.xaxis), []).append(np.asarray(trace.y))
    steps, names = (0, 4, TIMESTEPS - 1), ("x_t", "pred_original_sample", "gradient")
    expected = []
    for at in AT.values():
        for name in names:
            for step in steps:
                values = ds[name].values[at][1, step].astype(np.float64)
                values = values / np.linalg.norm(values) if name == "gradient" else values
                expected.append(values.T if kind == "trajectory" else np.atleast_2d(values))
    assert len(panels) == len(expected) == 18
    for drawn, values in zip(panels.values(), expected, strict=True):
        np.testing.assert_allclose(drawn, values, rtol=1e-5)
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert [text for text in texts if text.startswith("t = ")] == ["t = 990", "t = 430", "t = 10"]
    norm = np.linalg.norm(ds["gradient"].values[AT["robust"]][1, 4])
    assert f"norm {norm:.1e}" in {axis.title.text for axis in figure.select_xaxes()}
    lines = {trace.name for trace in figure.data if trace.showlegend}
    words = {"signal": {"channel 0", "channel 1"}, "series": set(), "trajectory": {f"action {i}" for i in range(3)}}
    assert lines == words[kind]


def test_values_that_are_not_finite_are_counted(stores):
    figure = plots.trajectories(stores("signal"), [BAD], sample=2, steps=2)
    assert sum(annotation.text == "1 not finite" for annotation in figure.layout.annotations) == 2
    assert "norm not finite" in {axis.title.text for axis in figure.select_xaxes()}
    assert np.isnan(figure.data[0].y[0])
    assert np.isfinite(figure.data[0].y[1:]).all()


def test_more_lines_than_colours_are_said(stores):
    ds = stores("signal").isel(channel=[0, 1] * 5)
    figure = plots.trajectories(ds, [GOOD], sample=1, steps=1)
    assert figure.layout.title.text == "the first 7 of 10 lines"
    assert sum(trace.showlegend for trace in figure.data) == 7


def test_sets_of_points_are_scattered_with_their_gradients(stores):
    ds = stores("cloud")
    numbers = plots.trajectory_numbers(ds, [GOOD], sample=1, steps=2)
    figure = plots.draw_trajectories(numbers)
    markers = [trace for trace in figure.data if trace.mode == "markers"]
    for trace, (name, step) in zip(
        markers[:4], [("x_t", 0), ("x_t", -1), ("pred_original_sample", 0), ("pred_original_sample", -1)], strict=True
    ):
        np.testing.assert_allclose(np.stack([trace.x, trace.y], axis=1), ds[name].values[AT["robust"]][1, step])
    ends = [trace for trace in figure.data if trace.mode == "lines+markers"]
    for trace, step in zip(ends, (0, -1), strict=True):
        path = np.stack([trace.x, trace.y], axis=1).reshape(-1, 3, 2)
        np.testing.assert_allclose(path[:, 0], ds["x_t"].values[AT["robust"]][1, step], rtol=1e-6)
        shift, gradient = path[:, 1] - path[:, 0], ds["gradient"].values[AT["robust"]][1, step].astype(np.float64)
        np.testing.assert_allclose(shift / np.linalg.norm(shift), gradient / np.linalg.norm(gradient), atol=1e-6)


@pytest.mark.parametrize("kind", ["point", "space", "number"])
def test_the_path_of_a_point_is_that_of_the_store(stores, kind):
    ds = stores(kind)
    axes = SHAPES[kind][0][0]
    numbers = paths_numbers(ds, [GOOD, BAD], sample=1)
    assert len(numbers) == 2 * TIMESTEPS
    for name, at in AT.items():
        rows = numbers[numbers["classifier"] == name]
        for tensor in ("x_t", "pred_original_sample", "gradient"):
            stored = ds[tensor].values[at][1].astype(np.float64)
            norm = np.linalg.norm(stored, axis=1, keepdims=True)
            expected = stored / norm if tensor == "gradient" else stored
            columns = [f"{tensor}_{axis}" for axis in range(min(axes, 2))]
            np.testing.assert_allclose(rows[columns], expected[:, :2], rtol=1e-5)
        norm = np.linalg.norm(ds["gradient"].values[at][1].astype(np.float64), axis=1)
        np.testing.assert_allclose(rows["gradient_norm"], norm, rtol=1e-5)
    figure = plots.trajectories(ds, [GOOD, BAD], sample=1)
    assert figure == draw_paths(paths_numbers(ds, [GOOD, BAD], sample=1, steps=8))
    path = next(trace for trace in figure.data if trace.name == "robust, x_t, no stabiliser, s = 0.5")
    x = ds["x_t"].values[AT["robust"]][1]
    np.testing.assert_allclose(path.y, x[:, min(1, axes - 1)])
    np.testing.assert_allclose(path.x, ds["timestep"].values if axes == 1 else x[:, 0])
    arrow = next(trace for trace in figure.data if trace.name.startswith("gradient"))
    shift = np.diff(np.stack([arrow.x, arrow.y], axis=1).reshape(-1, 3, 2)[:, :2], axis=1)[:, 0]
    gradient = ds["gradient"].values[AT["robust"]][1, :, :2]
    across = np.zeros(TIMESTEPS) if axes == 1 else gradient[:, 0]
    cosine = (shift * np.stack([across, gradient[:, -1]], axis=1)).sum(axis=1)
    np.testing.assert_allclose(cosine / np.linalg.norm(shift, axis=1) / np.hypot(across, gradient[:, -1]), 1, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), np.linalg.norm(shift[0]), rtol=1e-4)


def test_a_path_says_how_many_values_are_not_finite(stores):
    figure = draw_paths(paths_numbers(stores("point"), [BAD], sample=2))
    assert [annotation.text for annotation in figure.layout.annotations] == ["2 values are not finite and not drawn"]


def test_frames_of_a_video_are_side_by_side(stores):
    ds = stores("video")
    numbers = plots.trajectory_numbers(ds, [GOOD], sample=1)
    assert numbers.sizes["timestep"] == 4
    shown = numbers["pred_original_sample"].values[0, -1]
    stored = ds["pred_original_sample"].values[AT["robust"]][1, -1]
    for i, frame in enumerate((0, 3, 6, 9)):
        picture = np.clip((np.moveaxis(stored[:, frame], 0, -1) + 1) / 2, 0, 1)
        np.testing.assert_allclose(shown[:, 9 * i : 9 * i + 8], picture)
    assert np.isnan(shown[:, 8::9]).all()
    unit = ds["gradient"].values[AT["robust"]][1, -1].astype(np.float64)
    unit = unit / np.linalg.norm(unit)
    np.testing.assert_allclose(numbers["gradient"][0, -1, :, :8], unit[:, 0].mean(axis=0), rtol=1e-5)
    assert plots.draw_trajectories(numbers).data


def with_verdicts(ds):
    """The judge is right but in samples 1 and 2; the guide sees the target in all but 2. No verdict on sample 3."""
    seen = {who: np.broadcast_to(ds["label"].values, (*CELLS, SAMPLES)).copy() for who in ("own", "judge")}
    seen["judge"][..., 1:3] += 1
    seen["own"][..., 2] += 1
    seen["judge"][..., 3] = -1
    return ds.assign({f"{who}_prediction": ((*CELL_DIMS, "sample"), values) for who, values in seen.items()})


@pytest.mark.parametrize("kind", ["point", "number", "space"])
def test_finals_lie_where_they_are_with_their_verdicts(stores, kind):
    ds = with_verdicts(stores(kind))
    figure = plots.finals(ds, BAD)
    drawn = {trace.name: trace for trace in figure.data}
    samples = {
        "judge right (9)": [0, *range(4, SAMPLES)],
        "guide fooled (1)": [1],
        "judge wrong (1)": [2],
        "no verdict (1)": [3],
    }
    assert set(drawn) == set(samples)
    image = ds["image"].values[AT["non_robust"]]
    for name, rows in samples.items():
        assert list(drawn[name].customdata) == rows
        np.testing.assert_allclose(drawn[name].x, image[rows, 0])
        np.testing.assert_allclose(drawn[name].y, rows if kind == "number" else image[rows, 1])
    titles = {"point": "axis 1", "number": "sample", "space": "axis 1 of 5"}
    assert figure.layout.yaxis.title.text == titles[kind]


def test_without_a_judge_the_guide_and_without_both_the_classes_are_shown(stores):
    judged = with_verdicts(stores("point"))
    names = [trace.name for trace in plots.finals(judged.drop_vars("judge_prediction"), BAD).data]
    assert names == ["guide right (11)", "guide wrong (1)"]
    assert [trace.name for trace in plots.finals(stores("point"), BAD).data] == ["0 (4)", "1 (4)", "2 (4)"]


def test_finals_that_are_not_finite_or_not_finished(stores):
    ds = stores("point").copy(deep=True)
    ds["image"][(*AT["robust"], 4, 1)] = np.nan
    ds["written"][(*AT["robust"], 5, -1)] = 0
    figure = plots.finals(ds, GOOD)
    assert sum(len(trace.x) for trace in figure.data) == SAMPLES - 1
    assert figure.layout.annotations[0].text == "1 sample is not finite and not drawn"


def test_other_samples_are_refused_by_name(stores):
    for draw in (lambda ds: plots.finals(ds, GOOD), lambda ds: plots.paths(ds, [GOOD], 0)):
        with pytest.raises(GradscopeError, match="only points .* a sample here is over channel, time"):
            draw(stores("signal"))
    with pytest.raises(GradscopeError, match="a sample of shape 3 x 4 over row, column cannot be drawn"):
        plots.trajectories(stores("table"), [GOOD], 0)
    with pytest.raises(GradscopeError, match="frequencies over height and width are those of images"):
        spectrum_numbers(stores("signal"), GOOD)


@pytest.mark.parametrize("kind", SHAPES)
def test_magnitudes_count_the_elements_of_any_sample(stores, kind):
    ds = stores(kind)
    numbers = magnitudes_numbers(ds, BAD)
    for step in (0, 5):
        rows = numbers[numbers["timestep"] == ds["timestep"].values[step]]
        elements = ds["gradient"].values[AT["non_robust"]][: any_sample.TENSORS, step].ravel()
        lost = (~np.isfinite(elements)).mean()
        assert rows["not_finite"].iloc[0] == pytest.approx(lost)
        assert (lost > 0) == (step == 0)
        finite = np.abs(elements[np.isfinite(elements)]).astype(np.float64)
        assert rows["median"].iloc[0] == pytest.approx(np.median(np.log10(finite)))
        assert rows["share"].sum() == pytest.approx(1 - lost)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_the_report_shows_an_example_or_says_why_not(stores, kind):
    ds = stores(kind)
    page = to_html(report(ds), ds)
    assert ("A sample of shape 3 x 4 over row, column cannot be drawn" in page) == (kind == "table")
    assert ("Both cells start from the same noise" in page) == (kind != "table")
