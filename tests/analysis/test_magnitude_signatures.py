"""Signatures of the size and the content of gradients."""

import json

import numpy as np
import xarray as xr
from faulty_cells import found

from gradscope.analysis.magnitude_signatures import leverage
from gradscope.analysis.synthetic import trajectories


def test_leverage_is_the_norm_in_units_of_the_steps_noise():
    cell = xr.Dataset(
        {"gradient_norm": ("timestep", [2.0, 2.0])}, coords={"sigma": ("timestep", [0.5, 0.0])}, attrs={"elements": 9}
    )
    np.testing.assert_array_equal(leverage(cell).values, [3.0, np.nan])


def test_one_pixel_is_not_blamed_on_the_clamp():
    assert "dead_by_clipping" not in found(trajectories("one_pixel").assign_coords(classifier_input=["x0"]))
    assert "sparse" not in found(trajectories("clipped"))


def test_a_convinced_guide_gives_a_remark_and_not_vanishing():
    remark = found(trajectories("convinced"))
    assert {name: f.severity for name, f in remark.items()} == {"convinced": "remark"}
    assert "convinced" not in found(trajectories("vanishing"))


def test_exploding_begins_where_the_norm_has_grown_a_thousandfold():
    ds = trajectories("exploding")
    norm = ds["gradient_norm"].squeeze().values
    growth = np.log10(norm / np.median(norm[:, :12], axis=1, keepdims=True)).mean(axis=0)
    finding = found(ds)["exploding"]
    begins = ds["timestep"].values[np.argmax(growth > 3)]
    assert finding.first_timestep in (begins, begins - 20)  # the lower bound may cross it one step later
    assert finding.last_timestep == 0


def test_the_gradient_of_a_guide_that_loses_its_belief_does_not_explode():
    """The factor 1 - p of log p grows by eleven orders of magnitude; the gradient of the margin does not."""
    ds = trajectories().load()
    margin = np.linspace(25, 0, 50)
    ds["margin"][:] = margin
    ds["log_prob"][:] = -np.logaddexp(0, -margin)
    ds["gradient_norm"][:] = 3 / (1 + np.exp(margin))
    assert "exploding" in found(ds)  # the store does not say that the objective is log p
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob"}})
    assert "exploding" not in found(ds)


def test_smoothgrad_has_no_factor_to_divide_out():
    """Its gradient is a mean over noised inputs, and their beliefs are not recorded."""
    ds = trajectories().load()
    margin = np.linspace(0, 49, 50)
    ds["margin"][:] = margin
    ds["gradient_norm"][:] = 12 * 10 ** (-0.1 * margin)
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob"}})
    assert "exploding" in found(ds)
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob", "smoothgrad": {"samples": 8}}})
    assert "exploding" not in found(ds)
