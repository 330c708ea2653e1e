"""`from_config` keeps settings that the new class does not have; they mean nothing there."""

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler

from gradscope.models.schedulers import SCHEDULERS, make_scheduler
from gradscope.sampling.process import Schedule
from gradscope.watching.process import Process

VP = [name for name in SCHEDULERS if not name.startswith(("edm", "flow"))]


@pytest.mark.parametrize("name", VP)
def test_every_scheduler_is_made_of_a_ddpm_that_clamps(name):
    trained = DDPMScheduler(clip_sample=True, clip_sample_range=1.5, variance_type="learned_range")
    schedule = Schedule(make_scheduler(name, {}, trained), 6)
    assert schedule.clip_range == (1.5 if name in ("ddpm", "ddim", "heun") else None)
    assert schedule.learns_variance == (name == "ddpm")
    x_t = 100 * torch.ones(1, 3, 2, 2)
    clamped = schedule.predict(torch.zeros_like(x_t), x_t, schedule.times[-1]).pred_original_sample.abs().max() <= 1.5
    assert bool(clamped) == (schedule.clip_range is not None)


def test_a_watched_scheduler_clamps_only_if_its_class_does():
    """Euler's step never clamps."""
    left_over = EulerDiscreteScheduler.from_config(DDPMScheduler(clip_sample=True, thresholding=True).config)
    assert Process(left_over).clip_range is None
    assert not Process(left_over).thresholds
    assert Process(DDPMScheduler(clip_sample=True)).clip_range == 1.0


def test_settings_of_flow_matching_left_over_in_ddpm():
    scheduler = DDPMScheduler.from_config({**DDPMScheduler().config, "use_flow_sigmas": True})
    assert Schedule(scheduler, 4).prediction_type == "epsilon"
