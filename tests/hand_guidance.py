"""Guidance by hand: epsilon and x0-hat of each prediction, the guided one, and two steps on copied schedulers."""

import copy
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from solvers import SHAPE, given_to_denoiser, own_generators, started, takes_generator
from torch import Tensor, nn

SCALED = ("DPMSolver", "UniPC", "DEIS", "SASolver")
"""Beginnings of the names of schedulers with a table of sigma, whose x_t has unit variance."""


class HandStep(NamedTuple):
    """What a step gives, by hand."""

    x_t: Tensor
    gradient: Tensor
    direction: Tensor
    shift: Tensor
    prev_sample: Tensor


def level_of(scheduler: Any, x: Tensor, given: Tensor, t: Tensor, i: int) -> tuple[float, float]:
    """Factors of x_0 and of noise in x_t, from what the scheduler tells the denoiser wherever it does."""
    name = type(scheduler).__name__
    if name.startswith("EDM"):  # timesteps are log(sigma) / 4
        return 1.0, float(torch.exp(4 * t))
    if "FlowMatch" in name:
        sigma = float(t) / scheduler.config.num_train_timesteps
        return 1 - sigma, sigma
    if name.startswith(SCALED):
        sigma = float(scheduler.sigmas[i])
        if scheduler.config.use_flow_sigmas:
            return 1 - sigma, sigma
        return (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
    if hasattr(scheduler, "sigmas"):  # the denoiser gets x_t / sqrt(1 + sigma^2)
        ratio = float(x.flatten()[0] / given.flatten()[0])
        return 1.0, (ratio**2 - 1) ** 0.5
    share = float(scheduler.alphas_cumprod[int(t)])
    return share**0.5, (1 - share) ** 0.5


def kind_of(scheduler: Any) -> str:
    if "FlowMatch" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas"):
        return "flow"
    return "edm" if type(scheduler).__name__.startswith("EDM") else scheduler.config.prediction_type


def _edm(scheduler: Any, noise: float) -> tuple[float, float]:
    """c_skip and c_out of arXiv 2206.00364; for v_prediction diffusers has the opposite sign."""
    data = scheduler.config.sigma_data
    sign = 1 if scheduler.config.prediction_type == "epsilon" else -1
    total = noise**2 + data**2
    return data**2 / total, sign * noise * data / total**0.5


def decoded(scheduler: Any, output: Tensor, x: Tensor, signal: float, noise: float) -> tuple[Tensor, Tensor | None]:
    """Epsilon and x0-hat that a denoiser's output says; x0-hat is None where it is not determined."""
    match kind_of(scheduler):
        case "epsilon":
            return output, (x - noise * output) / signal if signal else None
        case "flow":
            return x + signal * output, x - noise * output
        case "v_prediction":  # of the sample of unit variance: alpha epsilon - sigma x_0
            size = (signal**2 + noise**2) ** 0.5
            alpha, sigma, unit = signal / size, noise / size, x / size
            return sigma * unit + alpha * output, alpha * unit - sigma * output
        case "edm":
            skip, out = _edm(scheduler, noise)
            x_0 = skip * x + out * output
        case _:
            x_0 = output
    return (x - signal * x_0) / noise, x_0


def encoded(scheduler: Any, epsilon: Tensor, x: Tensor, signal: float, noise: float) -> Tensor:
    """The output that says an epsilon at x_t."""
    x_0 = (x - noise * epsilon) / signal
    match kind_of(scheduler):
        case "epsilon":
            return epsilon
        case "sample":
            return x_0
        case "flow":
            return epsilon - x_0
        case "v_prediction":
            return (signal * epsilon - noise * x_0) / (signal**2 + noise**2) ** 0.5
    skip, out = _edm(scheduler, noise)
    return (x_0 - skip * x) / out


def clipped(scheduler: Any, x_0: Tensor) -> Tensor:
    reach = scheduler.config.get("clip_sample_range") if scheduler.config.get("clip_sample") else None
    return x_0 if reach is None else x_0.clamp(-reach, reach)


def without_clipping(scheduler: Any) -> Any:
    made = copy.deepcopy(scheduler)
    made.register_to_config(clip_sample=False)
    return made


def copies(generators: list[torch.Generator]) -> list[torch.Generator]:
    return [torch.Generator().set_state(own.get_state()) for own in generators]


def hand_loop(
    scheduler: Any,
    denoiser: nn.Module,
    classifier: nn.Module,
    labels: list[int],
    classifier_input: str,
    scale: float,
    steps: int,
    seed: int,
    **options: Any,
) -> list[HandStep]:
    """A guided run by hand, in the default type of floating-point numbers."""
    scheduler, generators, found = started(scheduler, steps), own_generators(seed, len(labels)), []
    x = torch.stack([torch.randn(SHAPE, generator=own) for own in generators])
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for i, t in enumerate(scheduler.timesteps):

        def step(solver: Any, output: Tensor, own: list[torch.Generator], t: Any = t, x: Tensor = x) -> Tensor:
            noise = {"generator": own} if takes_generator(solver) else {}
            return solver.step(output, t, x, **options, **noise).prev_sample

        leaf = x.clone().requires_grad_()
        given = given_to_denoiser(scheduler, leaf, t)
        output = denoiser(given, t)
        signal, noise = level_of(scheduler, x, given.detach(), t, i)
        epsilon, x_0 = decoded(scheduler, output, leaf, signal, noise)
        seen = given
        if classifier_input == "x0":
            seen = clipped(scheduler, x_0)
        elif classifier_input == "x0_detached":
            seen = clipped(scheduler, (leaf - noise * epsilon.detach()) / signal) if signal else 0 * leaf
        log_p = classifier(seen).log_softmax(dim=1)[range(len(labels)), labels].sum()
        (gradient,) = torch.autograd.grad(log_p, leaf)
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        direction = torch.where(length > 0, gradient / length, 0)
        output, epsilon = output.detach(), epsilon.detach()
        plain = step(copy.deepcopy(scheduler), output, copies(generators))
        if isinstance(scheduler, DDPMScheduler):
            made = step(scheduler, output, generators) + scale * direction
        elif signal < 2e-6:  # UniPC's 1 - 1e-6 stands for a flow's sigma of 1
            made = step(scheduler, output, generators)
        else:
            point = _Point(x, signal, noise, output, epsilon, x_0.detach())
            made = _guided(scheduler, step, point, scale * direction, generators)
        found.append(HandStep(x, gradient, direction, made - plain, made))
        x = made
    return found


class _Point(NamedTuple):
    x: Tensor
    signal: float
    noise: float
    output: Tensor
    epsilon: Tensor
    x_0: Tensor


def _guided(scheduler: Any, step: Any, at: _Point, pushed: Tensor, generators: list[torch.Generator]) -> Tensor:
    """prev_sample with epsilon - noise * pushed; x0-hat is clamped before that, never after."""

    def changed(epsilon: Tensor, pushed: Tensor) -> Tensor:
        return encoded(scheduler, epsilon - at.noise * pushed, at.x, at.signal, at.noise)

    if not scheduler.config.get("clip_sample"):
        return step(scheduler, changed(at.epsilon, pushed), generators)
    if isinstance(scheduler, DDIMScheduler):
        # Its step keeps the epsilon that does not belong to the clamped x0-hat: the change of a free step is added.
        free = without_clipping(scheduler)
        guided, unguided = (step(free, changed(at.epsilon, by), copies(generators)) for by in (pushed, 0 * pushed))
        return step(scheduler, at.output, generators) + guided - unguided
    epsilon = (at.x - at.signal * clipped(scheduler, at.x_0)) / at.noise
    scheduler.register_to_config(clip_sample=False)
    made = step(scheduler, changed(epsilon, pushed), generators)
    scheduler.register_to_config(clip_sample=True)
    return made
