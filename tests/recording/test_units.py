"""Cells at scale 0 are recorded together, with the same bits as one by one, and with fewer passes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from small_models import SIZE
from small_run import assert_same_recording, config
from torch import nn

import gradscope
import gradscope.recording.run as recording_run
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.methods import Method, pull
from gradscope.recording import units as recorded_units
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.recording.units import STAGED, Unit, units
from gradscope.sampling.trajectory import sample_together
from gradscope.store.locations.location import locate
from gradscope.store.progress import unfinished

STEPS = 4
BASE = {
    "classifiers": {"robust": "small_run:robust", "other": "small_run:another_judge"},
    "guidance": {"classifier_input": ["x_t", "x0", "x0_detached"], "guidance_scale": [0]},
    "stabilizers": {"none": {}, "adam": {}},
    "sampling": {"num_inference_steps": STEPS, "samples": 3, "batch_size": 2},
    "recording": {"tensor_samples": 3},
}


def settings(**changes):
    return BASE | {
        key: BASE.get(key, {}) | value if isinstance(value, dict) else value for key, value in changes.items()
    }


def alone(left, schema, probes, **options):
    return [Unit((cell,), block) for cell, block in left]


def both(tmp_path, monkeypatch, **changes):
    """Record together, then one by one."""
    made = settings(**changes)
    record_run(prepare(config(tmp_path / "together.zarr", **made), "cpu"))
    monkeypatch.setattr(recording_run, "units", alone)
    record_run(prepare(config(tmp_path / "alone.zarr", **made), "cpu"))
    return tmp_path / "together.zarr", tmp_path / "alone.zarr"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": {"guidance_scale": [0, 0.4]}},
        {"sampling": {"scheduler": "ddim"}},
        {"sampling": {"scheduler": {"ddim": {"clip_sample": False}}, "seed": 7, "samples": 3, "batch_size": 3}},
        {"sampling": {"scheduler": "euler_ancestral"}},
        {"sampling": {"scheduler": "dpm_solver_multistep", "num_inference_steps": 6}},
        {"guidance": {"normalize": "none", "weight": "variance", "objective": "logit"}},
        {"guidance": {"smoothgrad": {"samples": 3, "std": 0.1}}},
        {"guidance": {"interval": [200, 700]}},
        {"guidance": {"classifier_input": ["x0"], "method": {"freedom": {"recurrence": 2, "between": [300, 700]}}},
         "sampling": {"scheduler": "ddim"}},
        {"guidance": {"classifier_input": ["x0"], "method": {"dps": {"norm": False}}}},
        {"guidance": {"classifier_input": ["x0"], "method": {"lgd": {"draws": 2}}}},
        {"guidance": {"classifier_input": ["x0_detached"], "method": "mpgd"}},
        {"classifiers": {"robust": "small_run:robust"}},
    ],
)  # fmt: skip
def test_the_bits_are_those_of_cells_recorded_alone(tmp_path, monkeypatch, changes):
    assert_same_recording(*both(tmp_path, monkeypatch, **changes))


@pytest.mark.slow
def test_what_is_left_of_the_controls_is_recorded_together(tmp_path, monkeypatch):
    made = settings(guidance={"guidance_scale": [0, 0.4]})
    record_run(prepare(config(tmp_path / "whole.zarr", **made), "cpu"))
    run = prepare(config(tmp_path / "part.zarr", **made), "cpu")
    order = []

    def stop(cell, step):
        order.append(cell)
        if len(order) == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_run(run, on_step=stop)
    resumed = prepare(config(tmp_path / "part.zarr", **made), "cpu", resume=True)
    left = units(unfinished(locate(tmp_path / "part.zarr")), run.schema, run.probes)
    assert any(len(unit.cells) > 1 for unit in left)
    record_run(resumed, resume=True)
    assert_same_recording(tmp_path / "whole.zarr", tmp_path / "part.zarr")


def test_units_hold_the_controls_first_and_fit_into_memory(tmp_path, monkeypatch):
    run = prepare(config(tmp_path / "a.zarr", **settings(guidance={"guidance_scale": [0, 0.4]})), "cpu")
    cells = list(np.ndindex(run.grid.cells))
    left = [(cell, block) for cell in cells for block in range(2)]
    found = units(left, run.schema, run.probes)
    assert sorted((cell, unit.block) for unit in found for cell in unit.cells) == left
    assert [len(unit.cells) for unit in found[:2]] == [12, 12]
    assert {cell[3] for unit in found[:2] for cell in unit.cells} == {0}
    assert {len(unit.cells) for unit in found[2:]} == {1}
    # two samples a block: gradient and update of 3 x 8 x 8 float32, all steps in one chunk, and scalars of one number
    tensors = 2 * 2 * STEPS * 3 * 8 * 8 * 4
    monkeypatch.setattr(recorded_units, "STAGED", 5 * tensors)
    assert {len(unit.cells) for unit in units(left, run.schema, run.probes)[:4]} == {4}
    assert STAGED == 2**30


def test_a_probe_that_hooks_into_models_sees_each_cell_alone(tmp_path):
    made = settings(probes=["norms", {"layers": {"names": ["unet.mid_block"]}}])
    run = prepare(config(tmp_path / "a.zarr", **made), "cpu")
    left = [(cell, 0) for cell in np.ndindex(run.grid.cells)]
    assert all(len(unit.cells) == 1 for unit in units(left, run.schema, run.probes))


def test_the_own_hooks_of_a_sampler_see_cell_after_cell(tmp_path, unet, scheduler, classifier):
    """Samplers of a grid are copies; a hook on the first one sees every cell, whole trajectories in order."""
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))
    seen = []
    cells = {"classifier_input": ["x_t", "x0"], "stabilizer": ["none", "adam"], "guidance_scale": [0]}
    with sampler.register_step_hook(lambda step: seen.append(step.step)):
        with gradscope.record(
            sampler, tmp_path / "hooked.zarr", ["norms"], cells=cells, classifier_name="mine"
        ) as recorder:
            recorder.sample([0, 1], 3)
    assert seen == [0, 1, 2] * 4
    with gradscope.record(sampler, tmp_path / "plain.zarr", ["norms"], cells=cells, classifier_name="mine") as recorder:
        recorder.sample([0, 1], 3)
    assert_same_recording(tmp_path / "hooked.zarr", tmp_path / "plain.zarr")


def test_samplers_that_guide_do_not_share_a_trajectory(unet, scheduler, classifier):
    samplers = [GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=s)) for s in (0.0, 0.4)]
    with pytest.raises(ValueError, match=r"guidance_scale 0 share a trajectory, got 0\.4"):
        sample_together([samplers], [0], 3)


def test_a_shared_pass_frees_its_graph_after_the_step(unet, scheduler, classifier):
    """The objective of a kept step runs the denoiser again, as that of a sampler alone."""
    groups = [[GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, given, guidance_scale=0))]
              for given in ("x_t", "x0")]  # fmt: skip
    steps = []
    for ((sampler,),) in zip(groups, strict=True):
        sampler.register_step_hook(steps.append)
    final = sample_together(groups, [0, 1], 3)
    x_t = steps[-1].x_t.clone().requires_grad_()
    value = steps[-1].objective(x_t, steps[-1].label)
    (gradient,) = torch.autograd.grad(value.sum(), x_t)
    cosine = torch.cosine_similarity(gradient.flatten(1).double(), steps[-1].gradient.flatten(1).double())
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    torch.testing.assert_close(final, groups[1][0].sample([0, 1], 3), rtol=0, atol=0)


@dataclass(frozen=True)
class Curved(Method):
    """Ascends the squared norm of the objective's gradient, so that the denoiser is differentiated twice."""

    inputs: ClassVar = ("x0",)
    enters: ClassVar = "process"

    def pull(self, view):
        answer = view.ask()
        (first,) = torch.autograd.grad(answer.scores.value.sum(), view.x_t, create_graph=True)
        return pull(torch.autograd.grad(first.square().sum(), view.x_t)[0].double(), answer)


def test_a_method_of_ones_own_may_differentiate_the_denoiser_twice(scheduler, classifier):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    unet = UNet2DModel(SIZE, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, **blocks)
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4), nn.Tanh())
    guides = (classifier, other)
    groups = [[GuidedSampler(unet, scheduler, ClassifierGuidance(guide, "x0", guidance_scale=0, method=Curved()))]
              for guide in guides]  # fmt: skip
    together, alone = [], []
    for ((sampler,),) in zip(groups, strict=True):
        sampler.register_step_hook(together.append)
    sample_together(groups, [0, 1], 2)
    for ((sampler,),) in zip(groups, strict=True):
        alone += list(sampler.steps([0, 1], 2))
    found = {(step.step, step.gradient.numpy().tobytes()) for step in together}
    assert found == {(step.step, step.gradient.numpy().tobytes()) for step in alone}
