"""Pictures of one sample along t: their numbers by plain NumPy, and that the figure draws these."""

import numpy as np
import pytest
from small_store import BAD, GOOD, TENSORS

from gradscope import plots
from gradscope.errors import GradscopeError

AT_GOOD, AT_BAD = (0, 0, 0, 1), (1, 0, 0, 1)


def test_trajectories_are_unit_gradients_and_images(ds):
    numbers = plots.trajectory_numbers(ds, [BAD, GOOD], sample=2, steps=4)
    assert numbers["cell"].values.tolist() == [
        "non_robust, x_t, no stabiliser, s = 0.5",
        "robust, x_t, no stabiliser, s = 0.5",
    ]
    assert numbers["timestep"].values.tolist() == ds["timestep"].values[[0, 3, 6, 9]].tolist()
    seen = []
    for i, at in enumerate((AT_BAD, AT_GOOD)):
        for j, k in enumerate((0, 3, 6, 9)):
            g = ds["gradient"].values[at][2, k]
            norm = np.linalg.norm(g.ravel())
            assert float(numbers["gradient_norm"][i, j]) == pytest.approx(norm)
            unit = (g / norm).mean(axis=0)
            np.testing.assert_allclose(numbers["gradient"][i, j], unit)
            seen.append(np.abs(unit))
            x = ds["x_t"].values[at][2, k].transpose(1, 2, 0)
            np.testing.assert_allclose(numbers["x_t"][i, j], np.clip((x + 1) / 2, 0, 1))
    assert float(numbers["limit"]) == pytest.approx(np.quantile(seen, 0.99))


def test_trajectories_are_drawn_as_one_picture(ds):
    numbers = plots.trajectory_numbers(ds, [BAD, GOOD], sample=2, steps=4)
    figure = plots.draw_trajectories(numbers)
    picture, maps = figure.data
    z, g = np.asarray(picture.z), np.asarray(maps.z)
    assert z.shape[:2] == g.shape
    assert (maps.zmin, maps.zmax) == (-float(numbers["limit"]), float(numbers["limit"]))
    centres = dict(zip(figure.layout.yaxis.ticktext[3:], figure.layout.yaxis.tickvals[3:], strict=True))
    for j, x in enumerate(figure.layout.xaxis.tickvals):
        columns = slice(int(x - 3.5), int(x + 4.5))
        rows = slice(int(centres["gradient"] - 3.5), int(centres["gradient"] + 4.5))
        np.testing.assert_allclose(g[rows, columns], numbers["gradient"][1, j])
        assert not z[rows, columns].any()  # transparent
        rows = slice(int(centres["x0-hat"] - 3.5), int(centres["x0-hat"] + 4.5))
        expected = np.round(255 * numbers["pred_original_sample"][1, j].values)
        np.testing.assert_array_equal(z[rows, columns, :3], expected)
        assert (z[rows, columns, 3] == 255).all()
        assert np.isnan(g[rows, columns]).all()
    assert np.isfinite(g).sum() == 2 * 4 * 64
    assert (z[..., 3] > 0).sum() == 2 * 2 * 4 * 64
    assert sum("norm" in annotation.text for annotation in figure.layout.annotations) == 8


def test_one_channel_no_gradients_and_a_gradient_of_zero_are_drawn(ds):
    grey = ds.isel(channel=[0])
    grey["gradient"][(*AT_GOOD, 0, 0)] = 0
    numbers = plots.trajectory_numbers(grey, [GOOD], sample=0)
    assert numbers["x_t"].sizes["channel"] == 1
    assert not numbers["gradient"][0, 0].values.any()
    assert len(plots.draw_trajectories(numbers).data) == 2
    (picture,) = plots.trajectories(grey.drop_vars("gradient"), [GOOD], sample=0).data
    assert np.asarray(picture.z)[..., 3].any()


def test_a_sample_without_tensors_is_refused(ds):
    with pytest.raises(GradscopeError, match=f"sample {TENSORS}: its tensors are not kept in these cells; recording"):
        plots.trajectories(ds, [GOOD], sample=TENSORS)
    with pytest.raises(GradscopeError, match="sample: there is no 99; 0 to 15"):
        plots.trajectories(ds, [GOOD], sample=99)
    with pytest.raises(GradscopeError, match="cell: unknown classifier 'robst'; did you mean 'robust'"):
        plots.trajectories(ds, [GOOD | {"classifier": "robst"}], sample=0)
    with pytest.raises(GradscopeError, match="gradient is not in this store; the probe `gradient` records it"):
        plots.trajectories(ds.drop_vars(["gradient", "x_t", "pred_original_sample"]), [GOOD], sample=0)
