"""`ds.gradscope.show()` without a browser: where a view begins, its tiles, figures and link, and what it refuses."""

import base64
import io
import json
import subprocess
import sys
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from PIL import Image
from small_store import BAD, GOOD, SAMPLES, TENSORS, evaluated, of_points, recorded, save

import gradscope
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.images.pixels import image
from dashboards.images.planes import SIZE
from dashboards.state import parse
from gradscope.analysis.signatures import find
from gradscope.errors import GradscopeError
from gradscope.plots.curves import curves_numbers


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(evaluated(), tmp_path_factory.mktemp("notebook") / "small.zarr")


@pytest.fixture(scope="module")
def ds(path):
    return gradscope.open(path)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.slow
def test_a_finding_is_shown_where_it_is(ds):
    view = ds.gradscope.show(finding=0)
    expected = find(ds)[0]
    assert view.finding == expected
    assert view.cell == expected.cell == BAD
    assert expected.first_timestep >= view.timestep >= expected.last_timestep
    at = ds.sel(view.cursor)
    assert int(at.written) == 3
    assert float(at.gradient_lag_cosine) < expected.threshold
    assert view._about["finding"]["texts"][:2] == [expected.evidence, f"Try: {expected.advice}"]
    assert view._about["variables"][0].startswith("gradient_lag_cosine")
    span = view.figures[0].layout.shapes[-1]
    assert (span.x0, span.x1) == (expected.first_timestep, expected.last_timestep)
    assert ds.gradscope.show(gradscope.report(ds).findings[0]).cursor == view.cursor


def test_tiles_are_the_stored_tensors(ds):
    view = ds.gradscope.show(cell=GOOD, sample=2, timestep=300)
    at = ds.sel(view.cursor).load()
    assert view.cursor == {**GOOD, "sample": 2, "timestep": 300}
    assert repr(view) == "View(robust, x_t, no stabiliser, s = 0.5; sample 2; t = 300)"
    assert [tile.tensor for tile in view.tiles()] == ["gradient", "update", "x_t", "pred_original_sample"]
    for tile in view.tiles():
        tensor = at[tile.tensor].values
        assert tile.texts[0] == f"norm {np.linalg.norm(tensor):.3g}"
        assert tile.texts[1] == f"{tensor.min():.3g} to {tensor.max():.3g}"
        if tile.tensor in ("x_t", "pred_original_sample"):
            np.testing.assert_array_equal(pixels(tile.picture), image(tensor[None])[0])
        else:
            mean = tensor.mean(axis=0)
            limit = np.quantile(np.abs(mean), 0.995)
            assert tile.texts[2] == f"colours to ±{limit:.3g}"
            red_less_blue = pixels(tile.picture)[..., 0].astype(int) - pixels(tile.picture)[..., 2]
            np.testing.assert_array_equal(np.sign(red_less_blue[np.abs(mean) > 0.1 * limit]),
                                          np.sign(mean[np.abs(mean) > 0.1 * limit]))  # fmt: skip


def test_curves_are_the_figures_of_gradscope(ds):
    view = ds.gradscope.show(cell=GOOD, sample=1)
    numbers = curves_numbers(ds, view._cursor.variables[0], [GOOD], 1, GOOD)
    lines = {trace.name: np.asarray(trace.y) for trace in view.figures[0].data if trace.name}
    np.testing.assert_allclose(lines["robust, x_t, no stabiliser, s = 0.5"], numbers["mean"], rtol=1e-6)
    np.testing.assert_allclose(lines["sample 1 of robust, x_t, no stabiliser, s = 0.5"], numbers["value"], rtol=1e-6)
    assert view.figures[0].layout.showlegend is not False  # those of the page have swatches in its place
    assert json.loads(view._figures[0])["layout"]["showlegend"] is False


@pytest.mark.slow
def test_all_cells_and_moving(ds):
    view = ds.gradscope.show()
    assert [row["cell"] for row in view._frame["rows"]] == [1, 3, 5, 7, 9, 11, 13, 15]  # the guided ones
    assert view.sample == 0
    view._step = 9
    assert view._frame["timestep"] == view.timestep == float(ds.timestep[9])
    at = ds.sel(view.cursor)
    assert view._frame["rows"][0]["tiles"][0]["texts"][0] == f"norm {float(at.gradient_norm):.3g}"
    view._cell = 2  # an unguided one joins the others
    assert [row["cell"] for row in view._frame["rows"]] == [1, 2, 3, 5, 7, 9, 11, 13, 15]
    assert view.cell["guidance_scale"] == 0
    view._step, view._sample = 999, -1  # a page cannot leave the store
    assert (view._step, view._sample) == (9, 0)
    one = ds.gradscope.show(cell=GOOD)
    one._cell = 0
    assert [row["cell"] for row in one._frame["rows"]] == [0]


def test_what_has_no_tensors_says_so(ds):
    view = ds.gradscope.show(cell=GOOD, sample=SAMPLES - 1)
    assert view._frame["note"] == f"no tensors here; {TENSORS} samples have some, from 0 to {TENSORS - 1}"
    assert [tile["png"] for tile in view._frame["rows"][0]["tiles"]] == [b""] * 4
    assert view.figures
    scalars = ds.drop_vars(["gradient", "update", "x_t", "pred_original_sample"]).gradscope.show(cell=GOOD)
    assert scalars.tiles() == []
    assert scalars._frame["note"].startswith("gradient is not in this store")
    flat = ds.isel(channel=0).gradscope.show(cell=GOOD)
    assert flat._frame["note"] == "tensors are not drawn: the selection has no dimension channel"


def test_non_finite_elements_are_magenta_and_counted():
    ds = recorded()
    ds["gradient"][0, 0, 0, 1, 0, 5, :, 0, :3] = [np.nan, np.inf, -np.inf]
    view = ds.gradscope.show(cell=GOOD, sample=0, timestep=float(ds.timestep[5]))
    tile = view.tiles()[0]
    assert (pixels(tile.picture)[0, :3] == [255, 0, 255]).all()
    assert tile.texts[0] == "norm not finite"
    assert "not finite: 9 (magenta)" in tile.texts


def test_points_are_drawn_among_the_others():
    view = of_points(recorded()).gradscope.show(cell=GOOD)
    assert [pixels(tile.picture).shape for tile in view.tiles()] == [(SIZE, SIZE, 3)] * 4
    assert view.tiles()[0].texts[2].startswith("longest arrow: ")


@pytest.mark.slow
def test_selections_and_several_stores(ds, path):
    part = ds.sel(BAD).isel(sample=[3, 1], timestep=slice(2, 8))
    view = part.gradscope.show()
    assert (view.cell, view.sample) == (BAD, 3)
    view._sample = 1
    assert view.sample == 1
    assert view.tiles()[0].texts[0] == f"norm {float(ds.sel(view.cursor).gradient_norm):.3g}"
    runs = gradscope.open_many({"a": path, "b": path}).gradscope.show(cell=GOOD | {"run": "b"})
    assert runs.cell["run"] == "b"
    assert runs._about["cells"][runs._cell]["name"] == "robust, x_t, no stabiliser, s = 0.5, run b"


def test_the_link_opens_the_same_position(ds, path):
    """Also of a selection, whose cells have other numbers."""
    library = Library([path])
    run = library.run(None)
    assert isinstance(run, OpenRun)
    for part in (ds, ds.sel(classifier=["non_robust"]).isel(sample=slice(1, 4))):
        view = part.gradscope.show(cell=BAD, sample=3, timestep=200)
        url = urlsplit(view.link("http://example.test:1/prefix/"))
        assert (url.netloc, url.path) == ("example.test:1", "/prefix/trajectory")
        state, notices = parse("trajectory", dict(parse_qsl(url.query)), library)
        assert notices == []
        assert dict(run.cells[state.cell]) == BAD
        assert (state.sample, state.timestep) == (3, 200)
    with pytest.raises(GradscopeError, match="link: the dashboard shows stores of this machine"):
        evaluated().gradscope.show().link()


@pytest.mark.slow
def test_a_page_that_runs_nothing_shows_a_picture(ds):
    view = ds.gradscope.show(finding=0)
    (bundle, _) = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    html = bundle["text/html"]
    assert view.finding.evidence in html
    for tile in view.tiles():
        assert base64.b64encode(tile.picture).decode() in html
    assert "<script" not in html


def test_texts_of_a_store_are_no_markup():
    ds = recorded().sel(GOOD | {"classifier": ["robust"]})
    ds = ds.assign_coords(classifier=["<img src=x>"]).assign_attrs(classes=["<b>", "b", "c", "d"])
    (bundle, _) = ds.gradscope.show()._repr_mimebundle_()
    assert "<img src=x>" not in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"finding": 99}, "finding 99: there are [0-9]+ findings, from 0"),
        ({"finding": "unstable"}, "finding: must be a whole number"),
        ({"finding": 0, "cell": GOOD}, "takes a finding or a cell, not both"),
        ({"cell": {"classifier": "robst"}}, "unknown classifier 'robst'; did you mean 'robust'"),
        ({"cell": {"classifier": "robust"}}, "which classifier_input"),
        ({"sample": 99}, "sample: there is no 99; 0 to 15"),
        ({"timestep": 310}, "timestep: there is no 310; the nearest is 300"),
    ],
)
def test_what_is_not_there_is_refused(ds, asked, message):
    with pytest.raises(GradscopeError, match=message):
        ds.gradscope.show(**asked)


def test_no_finding_to_show():
    healthy = evaluated().sel(GOOD | {"guidance_scale": 0.0})
    with pytest.raises(GradscopeError, match="finding 0: no test of this store failed"):
        healthy.gradscope.show(finding=0)


@pytest.mark.slow
def test_without_anywidget_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "from gradscope.analysis import synthetic\n"
        "import gradscope.accessor\n"
        "try: synthetic.trajectories(samples=4).gradscope.show()\n"
        "except gradscope.GradscopeError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["show: anywidget is not installed: pip install 'gradscope[notebook]'", "False"]


@pytest.mark.slow
def test_timesteps_that_are_not_whole(tmp_path):
    """As those of flow matching: the dashboard rounds them, and the link still leads to the same step."""
    ds = evaluated()
    ds = ds.assign_coords(timestep=ds.timestep + 0.75, step=("timestep", np.arange(10)))
    path = save(ds, tmp_path / "flow.zarr")
    view = gradscope.open(path).isel(timestep=slice(2, None)).gradscope.show(finding=0)
    assert view.timestep in (ds.timestep.values[2:]).tolist()
    view._step = 3
    assert view.timestep == ds.timestep.values[5]
    library = Library([path])
    state, notices = parse("trajectory", dict(parse_qsl(urlsplit(view.link()).query)), library)
    assert notices == []
    assert library.run(None).ds["timestep"].values.tolist().index(state.timestep) == 5
