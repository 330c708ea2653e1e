"""Guided runs of every scheduler in float64, against guidance by hand: two steps, one with each prediction."""

import pytest
import torch
from hand_guidance import hand_loop
from solvers import Case, Classifier, Denoiser, cases, float64

from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ALL = cases()
INPUTS = ("x_t", "x0", "x0_detached")
LABELS = [0, 3, 1]


def guided(case, classifier_input, steps, scale, seed=0, denoiser=None, classifier=None):
    guidance = ClassifierGuidance(classifier or Classifier(), classifier_input, guidance_scale=scale)
    sampler = GuidedSampler(denoiser or Denoiser(), case.scheduler(), guidance, **case.options)
    return list(sampler.steps(LABELS, steps, seed=seed))


def largest(a):
    return float(a.abs().max())


def deviations(got, expected):
    """Largest deviation of each kind, relative to the largest element at its step.

    A shift is a difference of two samples by hand, which rounding limits where the sample is much larger than it.
    """
    worst = dict.fromkeys(("gradient", "direction", "shift", "prev_sample"), 0.0)
    for step, by_hand in zip(got, expected, strict=True):
        for name in worst:
            theirs = getattr(by_hand, name)
            lost = 1e-13 * max(largest(by_hand.x_t), largest(by_hand.prev_sample)) if name == "shift" else 0.0
            error = max(largest(getattr(step, name) - theirs) - lost, 0.0)
            worst[name] = max(worst[name], error / largest(theirs) if error else 0.0)
    return worst


@pytest.mark.parametrize(("case", "number"), ALL)
def test_a_guided_run_is_the_one_by_hand(case, number):
    """Gradients are plain autograd's; the shift is the difference of two steps; the samples are those by hand."""
    classifier_input, steps, scale = INPUTS[number % 3], (5, 8)[number % 2], (0.05, -0.2)[number % 2]
    with float64():
        got = guided(case, classifier_input, steps, scale, seed=number)
        expected = hand_loop(
            case.scheduler(), Denoiser(), Classifier(), LABELS, classifier_input, scale, steps, number, **case.options
        )
        found = deviations(got, expected)
    assert got[0].x_t.dtype == torch.float64
    assert found["gradient"] < 1e-9, found
    assert found["direction"] < 1e-9, found
    assert found["shift"] < 1e-8, found
    assert found["prev_sample"] < 1e-10, found
    assert any(step.shift.any() for step in got)


@pytest.mark.parametrize(("case", "number"), ALL)
def test_the_shift_points_along_the_direction(case, number):
    """In float32: cosine(shift, direction) is the sign of the scale wherever the shift is not 0."""
    sign = (1, -1)[number % 2]
    for step in guided(case, "x0_detached", 4, 0.3 * sign):
        shift, direction = step.shift.double().flatten(1), step.direction.double().flatten(1)
        is_moved = shift.norm(dim=1) > 0
        cosine = torch.cosine_similarity(shift, direction, dim=1, eps=1e-30)
        torch.testing.assert_close(cosine[is_moved], sign * torch.ones(3).double()[is_moved], rtol=1e-5, atol=0)
        assert not (step.unguided & is_moved).any()


@pytest.mark.parametrize(("case", "number"), ALL[::3])
def test_gains_in_float32_are_those_in_float64(case, number):
    """What schedulers compute in float32 leaves the factors of the shift exact to rounding, with the same tables."""
    narrow = Schedule(case.scheduler(), 12, **case.options)
    with float64():
        wide = Schedule(case.scheduler(), 12, **case.options)
    scale = max(abs(times.gains["process"] or 0.0) for times in narrow.times)
    for times, other in zip(narrow.times, wide.times, strict=True):
        assert (times.gains["process"] is None) == (other.gains["process"] is None)
        if times.gains["process"] is not None:
            assert times.gains["process"] == pytest.approx(other.gains["process"], rel=5e-3, abs=1e-6 * scale)


@pytest.mark.parametrize(
    "case",
    [
        Case("pndm", {}, {}),
        Case("ddim", {"set_alpha_to_one": False}, {}),
        Case("deis_multistep", {"use_karras_sigmas": True}, {}),
        *[Case(name, {"final_sigmas_type": "sigma_min"}, {}) for name in ("euler", "edm_euler")],
        Case("edm_dpm_solver_multistep", {"final_sigmas_type": "sigma_min"}, {}),
    ],
)
def test_a_last_step_that_moves_nothing_has_no_shift_of_rounding(case):
    """Its factor is of the order of 1e-13 in float64, and of either sign."""
    with float64():
        assert Schedule(case.scheduler(), 7, **case.options).times[-1].gains["process"] == 0
    assert not guided(case, "x_t", 7, 0.3)[-1].shift.any()


ZERO_SIGNAL = [
    Case("flow_match_euler", {}, {}),
    Case("flow_match_euler", {"stochastic_sampling": True}, {}),
    Case("flow_match_heun", {}, {}),
    Case("unipc_multistep", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, {}),
    *[
        Case("ddim", {"rescale_betas_zero_snr": True, "prediction_type": kind, "timestep_spacing": "trailing"}, options)
        for kind in ("v_prediction", "sample")
        for options in ({}, {"eta": 0.5})
    ],
]


@pytest.mark.parametrize("case", ZERO_SIGNAL)
@pytest.mark.parametrize("classifier_input", INPUTS)
def test_at_signal_0_the_first_step_is_unguided_and_the_run_goes_on(case, classifier_input):
    first, *others = guided(case, classifier_input, 6, 0.2)
    unguided = guided(case, classifier_input, 6, 0.0)[0]
    assert first.signal == pytest.approx(0, abs=2e-6)
    assert first.unguided.all()
    assert not first.shift.any()
    assert torch.equal(first.prev_sample, unguided.prev_sample)
    assert torch.isfinite(first.gradient).all()
    assert first.gradient.any() == (classifier_input != "x0_detached" or first.signal > 0)
    for step in others:
        assert not step.unguided.any()
        assert step.shift.any()
        assert torch.isfinite(step.prev_sample).all()


def test_ddpm_is_guided_at_signal_0():
    """Its mean is shifted, which needs no x0-hat; but x0_detached has no gradient there."""
    case = Case(
        "ddpm", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, {}
    )
    for classifier_input in INPUTS:
        first = guided(case, classifier_input, 6, 0.2)[0]
        assert first.signal == 0
        assert bool(first.unguided.all()) == (classifier_input == "x0_detached")
        assert bool(first.shift.any()) == (classifier_input != "x0_detached")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_sigma_of_a_step_is_ddpms_posterior(name):
    """Equation 7 of arXiv 2006.11239 for the shares of signal of two levels, times the scale of the lower one."""
    for times in Schedule(Case(name, {}, {}).scheduler(), 6).times:
        before, now = times.following, times.level
        if not before.noise < now.noise:
            continue
        a, b = (level.signal**2 / (level.signal**2 + level.noise**2) for level in (now, before))
        expected = ((1 - a / b) * (1 - b) / (1 - a)) ** 0.5 * (before.signal**2 + before.noise**2) ** 0.5
        assert times.sigma == pytest.approx(expected, rel=1e-4, abs=1e-9)
