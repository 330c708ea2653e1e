"""Without guidance the sampler is diffusers' own loop, bit for bit; the noise that it says is added is measured."""

import copy
import inspect

import pytest
import torch
from solvers import SHAPE, Case, Classifier, Denoiser, cases, given_to_denoiser, plain_loop, started, takes_generator

from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ALL = cases()
DEFAULTS = [Case(name, {}, {}) for name in SCHEDULERS]


def assert_is_the_plain_loop(case, steps, count, seed, denoiser=None):
    denoiser = Denoiser() if denoiser is None else denoiser
    sampler = GuidedSampler(
        denoiser, case.scheduler(), ClassifierGuidance(Classifier(), guidance_scale=0.0), **case.options
    )
    got = list(sampler.steps([i % 4 for i in range(count)], steps, seed=seed))
    expected = plain_loop(case.scheduler(), denoiser, count, steps, seed, **case.options)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.isfinite(theirs).all()
        assert torch.equal(ours.prev_sample, theirs)
        assert not ours.shift.any()


@pytest.mark.parametrize(("case", "number"), ALL)
def test_an_unguided_run_is_diffusers_own_loop_to_the_bit(case, number):
    steps = 30 if number == 1 else (7, 12)[number % 2]
    assert_is_the_plain_loop(case, steps, count=1 + 2 * (number % 2), seed=number)


@pytest.mark.parametrize("case", DEFAULTS, ids=lambda case: case.name)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_so_are_runs_of_few_steps(case, steps):
    if case.name == "pndm":
        case = case._replace(settings={"skip_prk_steps": True})
    assert_is_the_plain_loop(case, steps, count=2, seed=1)


def test_a_scheduler_that_was_used_starts_afresh():
    scheduler = SCHEDULERS["dpm_solver_multistep"]()
    sampler = GuidedSampler(Denoiser(), scheduler, ClassifierGuidance(Classifier(), guidance_scale=0.1))
    expected = sampler.sample([0, 1], 5)
    scheduler.set_timesteps(3)
    scheduler.step(torch.ones(1, *SHAPE), scheduler.timesteps[0], torch.ones(1, *SHAPE))
    assert torch.equal(sampler.sample([0, 1], 5), expected)


def measured_noise(case, steps):
    """The spread of each of the scheduler's own steps: two from one state, of 12,288 elements, with other noise."""
    scheduler, x = started(case.scheduler(), steps), torch.randn(1, 3, 64, 64)
    noise = torch.Generator().manual_seed(3)
    for t in scheduler.timesteps:
        given = given_to_denoiser(scheduler, x, t)
        other = copy.deepcopy(scheduler)
        made, again = (
            solver.step(torch.tanh(given), t, x, **case.options, generator=noise).prev_sample
            for solver in (scheduler, other)
        )
        yield float((made.double() - again.double()).std()) / 2**0.5
        x = made


@pytest.mark.parametrize(("case", "number"), [p for p in ALL if takes_generator(SCHEDULERS[p.values[0].name])])
def test_noise_added_is_the_spread_of_the_schedulers_steps(case, number):
    steps = 6 + number % 3
    schedule = Schedule(case.scheduler(), steps, **case.options)
    for times, spread in zip(schedule.times, measured_noise(case, steps), strict=True):
        assert times.noise_added == pytest.approx(spread, rel=0.03, abs=1e-9)


ADDS_NOISE = [
    Case("ddpm", {}, {}),
    Case("ddim", {}, {"eta": 1.0}),
    Case("dpm_solver_multistep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    Case("dpm_solver_singlestep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    Case("sa_solver", {}, {}),
    Case("euler_ancestral", {}, {}),
    Case("kdpm2_ancestral", {}, {}),
    Case("edm_dpm_solver_multistep", {"algorithm_type": "sde-dpmsolver++"}, {}),
    Case("flow_match_euler", {"stochastic_sampling": True}, {}),
]


@pytest.mark.parametrize("case", ADDS_NOISE, ids=lambda case: case.name)
def test_schedulers_that_add_noise_say_so(case):
    assert any(times.noise_added > 0.01 for times in Schedule(case.scheduler(), 10, **case.options).times)


@pytest.mark.parametrize("case", DEFAULTS[2:], ids=lambda case: case.name)
@pytest.mark.parametrize("settings", [{}, {"final_sigmas_type": "sigma_min"}, {"use_karras_sigmas": True}])
def test_the_level_of_prev_sample_is_that_of_the_next_evaluation(case, settings):
    """And the last one is the scheduler's: not clean for `sigma_min`, SA-Solver, DEIS and PNDM."""
    known = inspect.signature(SCHEDULERS[case.name]).parameters
    if not set(settings) <= set(known):
        settings = {}
    scheduler = case._replace(settings=settings).scheduler()
    schedule = Schedule(scheduler, 5)
    assert [times.following for times in schedule.times[:-1]] == schedule.levels[1:]
    scheduler = started(scheduler, 5)
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[-1])
        is_scaled = case.name.startswith(("dpm", "unipc", "deis", "sa_"))
        noise = sigma / (1 + sigma**2) ** 0.5 if is_scaled else sigma
    else:
        noise = (1 - float(scheduler.final_alpha_cumprod)) ** 0.5
    assert schedule.times[-1].following.noise == pytest.approx(noise, abs=1e-7)
    assert (noise > 0) == (
        settings.get("final_sigmas_type") == "sigma_min" or case.name in ("pndm", "deis_multistep", "sa_solver")
    )
