"""A run with recurrence that is interrupted at any repetition resumes to the same arrays."""

import json

import numpy as np
import pytest
import zarr
from own_models import MODELS

import gradscope
from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

CONTENT = {
    "denoiser": "repeatedly:denoiser",
    "classifiers": {"mine": "repeatedly:robust"},
    "guidance": {
        "classifier_input": ["x0"],
        "guidance_scale": [0.3],
        "method": {"freedom": {"recurrence": 3, "between": [0, 600]}},
    },
    "sampling": {"scheduler": "ddim", "num_inference_steps": 3, "samples": 2, "batch_size": 1},
    "recording": {"tensor_samples": 2},
}  # fmt: skip
STEPS = [1, 3, 3]
"""How often the timesteps 666, 333 and 0 are taken."""


def config(path):
    return check(RunConfig, CONTENT | {"recording": CONTENT["recording"] | {"path": str(path)}}, "it")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (folder / "repeatedly.py").write_text(MODELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        record_run(prepare(config(folder / "whole.zarr")))
        yield folder, gradscope.open(folder / "whole.zarr").load()


def test_the_store_says_how_often_each_timestep_is_taken(whole):
    folder, ds = whole
    assert zarr.open_group(folder / "whole.zarr").attrs["repetitions"] == STEPS
    assert json.loads(ds.attrs["configuration"])["guidance"]["method"] == CONTENT["guidance"]["method"]
    written = (ds.written > 0).sum("repeat").squeeze().values
    np.testing.assert_array_equal(written, [STEPS, STEPS])


@pytest.mark.slow
@pytest.mark.parametrize("taken", range(1, 2 * sum(STEPS)))
def test_an_interrupted_block_is_recorded_again(whole, tmp_path, taken):
    _, expected = whole
    count = 0

    def stop(cell, step):
        nonlocal count
        count += 1
        if count == taken:
            raise KeyboardInterrupt

    path = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        record_run(prepare(config(path)), on_step=stop)
    record_run(prepare(config(path), resume=True), resume=True)
    found = gradscope.open(path).load()
    for name in expected.variables:
        assert found[name].values.tobytes() == expected[name].values.tobytes() or expected[name].dtype == object, name
