"""Where the exact gradient is zero: the share of a background's elements in gradients and updates."""

import numpy as np
import pytest

from gradscope.config import OracleConfig
from gradscope.oracle.methods import load_method_at, load_stabilizers
from gradscope.oracle.place import Place


@pytest.mark.slow
def test_division_by_past_magnitudes_fills_the_background_and_a_floor_or_memory_does_not():
    name = "images-separated-4"
    settings = {"mixtures": [name], "guides": ["clean"], "methods": {"classifier": {}}}
    config = OracleConfig(**settings, num_inference_steps=25, samples=16)
    place = Place(name, config)
    background = place.mixture.means.std(dim=0) == 0
    assert float(background.double().mean()) == pytest.approx(1 - np.pi * 0.25 / 4, abs=0.03)
    stabilizers = load_stabilizers({"none": {}, "ema": {}, "adam": {}, "adam_rms": {}, "rmsprop": {}})
    sampler = place.sampler(place.guide("clean", 0), load_method_at("classifier@x0", {}))
    states = {key: made.init(place.control.x_t[0].double()) for key, made in stabilizers.items()}
    shares = {key: [] for key in stabilizers}
    for times, x_t, exact in zip(place.schedule.times, place.control.x_t, place.control.exact, strict=True):
        assert (exact * background).abs().max() < 1e-12 * exact.abs().max()
        gradient = sampler.evaluate(x_t, place.label, times, place.schedule, range(16)).gradient
        for key, stabilizer in stabilizers.items():
            update, states[key] = stabilizer.update(gradient, states[key])
            energy = update.square()
            share = (energy * background).flatten(1).sum(dim=1) / energy.flatten(1).sum(dim=1)
            shares[key].append(float(share.mean()))
    found = {key: np.mean(values) for key, values in shares.items()}
    assert found["adam"] > found["none"] + 0.4
    assert found["rmsprop"] > found["none"] + 0.4
    assert found["adam_rms"] < 0.2
    assert found["ema"] < 0.1
