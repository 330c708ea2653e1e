"""Elements of a gradient that float64 holds and float32 does not."""

import any_sample
import torch

import gradscope
from gradscope.recording.recorder import Recorder
from probes import Fractions, GuidedStep, Tensor


def test_an_element_that_is_stored_as_zero_is_no_damage(tmp_path):
    """The probe counts it as not zero, and the stored tensor has a zero there."""
    grid = any_sample.grid("trajectory")
    path = tmp_path / "a.zarr"
    with Recorder(path, grid, [Tensor("gradient"), Fractions()], device=torch.device("cpu")) as recorder:
        for cell in ((i, 0, 0, j) for i in range(2) for j in range(2)):
            for first in range(0, any_sample.SAMPLES, 4):
                record, x = recorder.trajectory(cell, first), torch.zeros(4, 16, 3)
                gradient = torch.ones(4, 16, 3, dtype=torch.float64)
                gradient[0, 0, 0] = 1e-60
                for step, t in enumerate(grid.timestep):
                    record(
                        GuidedStep(
                            step=step,
                            timestep=int(t),
                            x_t=x,
                            gradient=gradient,
                            pred_original_sample=x,
                            clip_range=None,
                            prev_sample=x,
                        )
                    )
    ds = gradscope.open(path)
    assert float(ds.zero_fraction.max()) == 0
    assert float((ds.gradient == 0).max()) == 1
    assert gradscope.verify(path).findings == ()
