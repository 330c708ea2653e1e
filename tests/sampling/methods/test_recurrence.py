"""Recurrence: x_t drawn again by the forward process, the solver's memory, and the solvers that cannot repeat."""

import copy

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from linear_models import GaussianDenoiser, HandLoop, Logits, close, log_prob, sampler_of, steps_of

from gradscope import methods, stabilizers
from gradscope.errors import GradscopeError
from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.guidance.methods import renoised
from gradscope.sampling.noise import own_noise
from gradscope.sampling.process import Schedule, Walk

GOES_BACK = {
    "pndm",
    "dpm_solver_singlestep",
    "unipc_multistep",
    "sa_solver",
    "heun",
    "kdpm2",
    "kdpm2_ancestral",
    "flow_match_heun",
}


@pytest.mark.parametrize("kind", [DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
def test_x_t_drawn_again_has_the_variance_of_the_forward_process(kind):
    """From x_s = signal_s x_0 + noise_s e, it is signal_t x_0 + noise_t e', whatever the process."""
    generator = torch.Generator().manual_seed(0)
    x_0, one, two = torch.randn(3, 40_000, generator=generator) + 0.5
    for times in Schedule(kind(), 5).times:
        now, following = times.level, times.following
        x_t = renoised(following.signal * x_0 + following.noise * one, times, two)
        left = x_t - now.signal * x_0
        assert float((left - left.mean()).square().mean()) == pytest.approx(now.noise**2, rel=0.03, abs=1e-6)
        assert float((left * x_0).mean() - left.mean() * x_0.mean()) == pytest.approx(0, abs=0.02 * now.noise)


def test_the_noise_of_each_repetition_is_its_own():
    steps = steps_of(methods.FreeDoM(recurrence=4), DDIMScheduler(clip_sample=False), Logits(), count=3)
    seeds, seen = HandLoop(DDIMScheduler()).seeds, []
    for one, other in zip(steps, steps[1:], strict=False):
        if other.repeat:
            a, before = one.alphas_cumprod, (HandLoop(DDIMScheduler(), 3).before(one.step))
            noise = (other.x_t - (a / before) ** 0.5 * one.prev_sample) / (1 - a / before) ** 0.5
            close(noise, own_noise(seeds, (one.step, one.repeat, 2**20), noise), rtol=1e-6, atol=1e-6)
            seen.append(noise)
        else:
            assert torch.equal(other.x_t, one.prev_sample)
    flat = torch.stack(seen).flatten(1)
    correlated = torch.corrcoef(torch.cat(list(flat.view(-1, 3, 6).transpose(0, 1)), dim=0))
    assert float((correlated - torch.eye(len(correlated))).abs().max()) < 0.999


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, DEISMultistepScheduler])
@pytest.mark.parametrize("method", [methods.FreeDoM(recurrence=3), methods.Universal(recurrence=3)])
def test_the_memory_of_a_solver_is_restored_before_each_repetition(kind, method):
    """Every repetition steps from the memory of the step before, as a solver that is copied before the step does."""
    guide, loop, x_t = Logits(gain=2.0), HandLoop(kind()), None
    x_t, adds = loop.x_t, isinstance(method, methods.FreeDoM)
    found = iter(steps_of(method, kind(), guide))
    for i, t in enumerate(loop.scheduler.timesteps):
        before = state_of(loop.scheduler)
        for repeat in range(3):
            restore(loop.scheduler, before)
            x, a = x_t.detach().requires_grad_(), loop.share(t)
            epsilon = loop.epsilon(x, t)
            (gradient,) = torch.autograd.grad(log_prob(guide, (x - (1 - a) ** 0.5 * epsilon) / a**0.5).sum(), x)
            given = epsilon.detach() - (0 if adds else (1 - a) ** 0.5 * 0.3 * gradient)
            prev = loop.scheduler.step(given, t, x.detach()).prev_sample + (0.3 * gradient if adds else 0)
            step = next(found)
            close(step.prev_sample, prev, rtol=1e-4, atol=1e-4)
            last = i + 1 == len(loop.scheduler.timesteps)  # DEIS ends above noise 0
            before_it = 1 / (1 + float(loop.scheduler.sigmas[-1]) ** 2) if last else loop.before(i)
            ratio = (a / before_it) ** 0.5
            noise = own_noise(loop.seeds, (i, repeat, 2**20), prev)
            x_t = ratio * prev + (1 - ratio**2) ** 0.5 * noise
        x_t = prev


def state_of(scheduler):
    """The memory of a multistep solver; its lists are copied."""
    return {key: list(value) if isinstance(value, list) else value for key, value in vars(scheduler).items()}


def restore(scheduler, state):
    vars(scheduler).update({key: list(value) if isinstance(value, list) else value for key, value in state.items()})


@pytest.mark.parametrize("name", SCHEDULERS)
def test_solvers_that_step_on_from_a_kept_sample_are_known(name):
    """At fixed x0-hat, prev_sample gains some of what x_t gains; at a step of these solvers it gains nothing, or less.

    Many steps: then multistep solvers differ little from Euler, whose factor is noise_s / noise_t.
    """
    torch.set_default_dtype(torch.float32)  # UniPC of diffusers fails with float64
    kind = SCHEDULERS[name]
    schedule = Schedule(kind(), 100)
    least = 1.0
    if not schedule.is_ddpm:
        walk = schedule.scheduler
        for step in range(40):
            level = schedule.levels[step]
            x_t = torch.tensor([[0.0], [1.0]])
            x_0 = torch.zeros(2, 1)
            native = level.prediction(x_0, x_t / level.noise, schedule.prediction_type)
            if schedule.is_edm:
                native = (x_0 - walk.precondition_outputs(x_t, torch.zeros(2, 1), level.noise)) / (
                    walk.precondition_outputs(torch.zeros(1), torch.ones(1), level.noise)
                )
            walk.is_scale_input_called = True
            noise = {"generator": [torch.Generator().manual_seed(1) for _ in range(2)]}
            if "generator" not in walk.step.__code__.co_varnames:
                noise = {}
            before, after = walk.step(native, walk.timesteps[step], x_t, **noise).prev_sample[:, 0]
            least = min(least, float(after - before))
            # the memory must not know of the changed sample: every row goes on as the first
            for key, value in vars(walk).items():
                if isinstance(value, torch.Tensor) and value.shape == (2, 1):
                    setattr(walk, key, value[:1].expand(2, 1).clone())
                elif isinstance(value, list):
                    same = [
                        v[:1].expand(2, 1).clone() if isinstance(v, torch.Tensor) and v.shape == (2, 1) else v
                        for v in value
                    ]
                    setattr(walk, key, same)
    assert schedule.goes_back == (name in GOES_BACK)
    assert (least <= 1e-6) == (name in GOES_BACK)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GOES_BACK))
def test_such_solvers_are_refused_by_name(name):
    torch.set_default_dtype(torch.float32)
    scheduler = SCHEDULERS[name]()
    given = type(scheduler).__name__
    for method, does in [
        (methods.FreeDoM(recurrence=2), "recurrence draws x_t again"),
        (methods.Universal(recurrence=2), "recurrence draws x_t again"),
        (methods.DPS(), "DPS adds to prev_sample"),
        (methods.TFG(), "TFG adds to prev_sample"),
    ]:
        message = (
            f"^guidance.method: {does}, but {given} steps on from an earlier sample that it keeps, so it would be "
            "lost; take another scheduler, for example ddim, euler or dpm_solver_multistep$"
        )
        with pytest.raises(GradscopeError, match=message):
            sampler_of(method, scheduler, Logits()).schedule(6)
    sampler_of(methods.Universal(steps=2), scheduler, Logits()).schedule(6)
    sampler_of(methods.LGD(), scheduler, Logits()).schedule(6)


def test_a_corrector_would_drop_what_was_added_to_prev_sample():
    """Why they are refused: UniPC's next sample is the same, whatever x_t it gets, if x0-hat is."""
    torch.set_default_dtype(torch.float32)
    ends = []
    for added in (0.0, 5.0):
        scheduler = UniPCMultistepScheduler(prediction_type="sample")
        scheduler.set_timesteps(6)
        first = scheduler.step(torch.ones(1, 2), scheduler.timesteps[0], torch.ones(1, 2)).prev_sample
        ends.append(scheduler.step(torch.ones(1, 2), scheduler.timesteps[1], first + added).prev_sample)
    assert torch.equal(*ends)


@pytest.mark.parametrize("between", [(200, 600), (332, 600), (332, 664)])
def test_repeats_between_timesteps_alone(between):
    """The first is repeated, the end is not."""
    steps = steps_of(methods.FreeDoM(3, between), DDPMScheduler(clip_sample=False), Logits())
    counts = {step.timestep: step.repeat + 1 for step in steps}
    assert counts == {830: 1, 664: 1, 498: 3, 332: 3, 166: 1, 0: 1}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_walk_goes_back_to_its_saved_memory(name):
    """After a step elsewhere, the next step from the saved memory is that of an untouched copy, bit for bit."""
    torch.set_default_dtype(torch.float32)  # UniPC of diffusers fails with float64
    schedule = Schedule(SCHEDULERS[name](), 6)
    generators = [torch.Generator().manual_seed(k) for k in range(2)]

    def draw():
        return torch.stack([torch.randn(4, generator=generator) for generator in generators])

    def step(walk, times, x_t):
        for k, generator in enumerate(generators):
            generator.manual_seed(100 * times.step + k)
        return walk.step(schedule.predict(x_t.sin(), x_t, times), x_t, times)

    walk = Walk(schedule, generators, draw)
    x_t = draw()
    for times in schedule.times[:4]:
        shared = {id(generator): generator for generator in generators}
        saved, untouched = walk.save(x_t.shape), copy.deepcopy(walk, shared)
        step(walk, times, 5 * x_t)
        walk.restore(saved, x_t.shape)
        found = step(walk, times, x_t)
        assert torch.equal(found, step(untouched, times, x_t))
        x_t = found


def test_an_interval_without_timesteps_is_refused():
    sampler = sampler_of(methods.FreeDoM(3, between=(840, 900)), DDPMScheduler(), Logits())
    message = r"guidance.method: between: no timestep lies in \[840, 900\); the 6 steps go from 830 to 0"
    with pytest.raises(GradscopeError, match=message):
        sampler.schedule(6)
    sampler_of(methods.FreeDoM(between=(840, 900)), DDPMScheduler(), Logits()).schedule(6)  # nothing is repeated


def test_the_stabilisers_state_goes_on_over_repetitions():
    """EMA over all gradients in the order in which they were taken."""
    method, scheduler = methods.FreeDoM(recurrence=3), DDIMScheduler(clip_sample=False)
    steps = steps_of(method, scheduler, Logits(), count=3, stabilizer=stabilizers.EMA(beta=0.6))
    expected = torch.zeros_like(steps[0].gradient)
    for step in steps:
        expected = 0.6 * expected + 0.4 * step.gradient
        close(step.update, expected)


def test_a_sample_does_not_depend_on_its_block():
    sampler = sampler_of(methods.TFG(recurrence=2, std=0.5), DDPMScheduler(clip_sample=False), Logits())
    whole = sampler.sample([0, 1, 2], 4, seed=4)
    parts = [sampler.sample([k], 4, seed=4, first_sample=k) for k in range(3)]
    close(whole, torch.cat(parts), rtol=1e-9, atol=1e-9)


def test_guidance_holds_with_recurrence_on_any_other_scheduler():
    """No method fails on a scheduler that is not refused, and the target's log-probability rises."""
    torch.set_default_dtype(torch.float32)
    for name in sorted(set(SCHEDULERS) - GOES_BACK):
        scheduler = SCHEDULERS[name]()
        denoiser = GaussianDenoiser().float()
        if not isinstance(scheduler, diffusers.DDPMScheduler | diffusers.DDIMScheduler) and name.startswith(
            ("edm", "flow")
        ):
            denoiser = _Contracting()
        ends = []
        for scale in (0.0, 0.05):
            sampler = sampler_of(methods.FreeDoM(2), scheduler, Logits(2.0), scale=scale, denoiser=denoiser)
            end = sampler.sample([0, 1, 2], 10)
            assert bool(end.isfinite().all()), name
            ends.append(float(log_prob(Logits(2.0), end).detach().mean()))
        assert ends[1] > ends[0], name


class _Contracting(torch.nn.Module):
    """A denoiser of any parametrisation, of whose output nothing is asked but to depend on x_t."""

    config = GaussianDenoiser.config

    def forward(self, x, t):
        return 0.5 * x
