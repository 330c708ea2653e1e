"""Schedulers that clamp x0-hat: once, before guidance, never after it."""

import pytest
import torch
from diffusers import DDIMScheduler
from hand_guidance import without_clipping
from solvers import Case, Classifier, Denoiser, plain_loop, started

from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler

LABELS, STEPS, SCALE = [0, 3, 1], 6, 2.0
CASES = [
    Case("ddpm", {}, {}),
    Case("ddim", {}, {}),
    Case("ddim", {}, {"use_clipped_model_output": True}),
    Case("ddim", {}, {"use_clipped_model_output": True, "eta": 0.7}),
    Case("heun", {"clip_sample": True, "clip_sample_range": 0.8}, {}),
]


class Silent(Denoiser):
    """Predicts little noise, so that x0-hat lies far outside its range nearly everywhere."""

    def forward(self, x, t):
        return 0.01 * super().forward(x, t)


def steps_of(case, scale=SCALE, classifier_input="x0"):
    guidance = ClassifierGuidance(Classifier(), classifier_input, guidance_scale=scale)
    return list(GuidedSampler(Silent(), case.scheduler(), guidance, **case.options).steps(LABELS, STEPS))


def reach(case):
    return case.settings.get("clip_sample_range", 1.0)


def unclamped_x_0(step):
    return (step.x_t - step.noise * step.model_output) / step.signal


@pytest.mark.parametrize("case", CASES)
def test_x0_hat_is_clamped_once(case):
    for step in steps_of(case)[:3]:
        x_0 = unclamped_x_0(step)
        assert float((x_0.abs() > reach(case)).float().mean()) > 0.5
        torch.testing.assert_close(
            step.pred_original_sample, x_0.clamp(-reach(case), reach(case)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("case", CASES)
def test_the_unguided_run_is_the_clamping_schedulers(case):
    expected = plain_loop(case.scheduler(), Silent(), 3, STEPS, 0, **case.options)
    for step, theirs in zip(steps_of(case, 0.0), expected, strict=True):
        assert torch.equal(step.prev_sample, theirs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("classifier_input", ["x0", "x0_detached", "x_t"])
def test_the_shift_is_no_clamped_one(case, classifier_input):
    """It is the direction times one factor, for elements inside and outside of the range alike."""
    for step in steps_of(case, classifier_input=classifier_input):
        shift, direction = step.shift.double().flatten(1), step.direction.double().flatten(1)
        is_pulled = direction.norm(dim=1) > 0  # x0_detached has no gradient where all of x0-hat is clamped
        assert torch.equal(shift.norm(dim=1) > 0, is_pulled)
        cosine = torch.cosine_similarity(shift, direction)[is_pulled]
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-5, atol=0)


def test_a_gradient_is_0_where_x0_hat_is_clamped():
    """For x0_detached, whose gradient passes the clamp alone."""
    for case in CASES[:2]:
        step = steps_of(case, classifier_input="x0_detached")[0]
        outside = unclamped_x_0(step).abs() > 1
        assert outside.any()
        assert not step.gradient[outside].any()
        assert (step.gradient[~outside] != 0).all()


def test_a_clamp_after_guidance_would_turn_the_shift():
    """The reason: clamped after guidance, too, DDIM's step goes against the gradient; the recorded one does not."""
    case = CASES[1]
    step = steps_of(case, classifier_input="x_t")[0]
    solver = DDIMScheduler()
    solver.set_timesteps(STEPS)
    pushed = step.model_output - step.noise * SCALE * step.direction

    def cosine(scheduler):
        guided, unguided = (
            scheduler.step(e, int(step.timestep), step.x_t).prev_sample for e in (pushed, step.model_output)
        )
        return torch.cosine_similarity((guided - unguided).flatten(1), step.direction.flatten(1))

    assert (cosine(solver) < 0).all()
    assert (cosine(without_clipping(solver)) > 0.999).all()
    torch.testing.assert_close(
        torch.cosine_similarity(step.shift.flatten(1), step.direction.flatten(1)), torch.ones(3), rtol=1e-5, atol=0
    )


def test_heun_remembers_the_guided_derivative():
    """Its second stage averages two derivatives: of x0-hat clamped, then moved by noise^2 * scale * direction."""
    case = CASES[-1]
    first, second, *_ = steps_of(case)
    sigmas = started(case.scheduler(), STEPS).sigmas
    moved = [s.pred_original_sample.double() + s.noise**2 * SCALE * s.direction.double() for s in (first, second)]
    slopes = [(s.x_t.double() - x_0) / s.noise for s, x_0 in zip((first, second), moved, strict=True)]
    down = float(sigmas[1] - sigmas[0])
    after_first = first.x_t.double() + slopes[0] * down
    after_second = first.x_t.double() + (slopes[0] + slopes[1]) / 2 * down
    torch.testing.assert_close(first.prev_sample.double(), after_first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.prev_sample.double(), after_second, rtol=1e-3, atol=1e-3)


def test_ddpms_mean_is_moved_beyond_the_range():
    """The last step's mean is the clamped x0-hat; the shift comes on top."""
    step = steps_of(CASES[0])[-1]
    torch.testing.assert_close(step.prev_sample - step.shift, step.pred_original_sample, rtol=1e-5, atol=1e-5)
    assert float(step.pred_original_sample.abs().max()) <= 1
