"""Check the gradients of gradscope's own sampler, cell by cell, against an energy that is written plainly."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.checking.case import Case, Declared
from gradscope.checking.checked import Checked
from gradscope.checking.judge import judge
from gradscope.checking.measure import Measure
from gradscope.checking.untouched import Wide, untouched
from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.models.calls import frozen
from gradscope.models.device import few_threads
from gradscope.recording.prepare import Run, prepare
from gradscope.sampling.guidance.energy import Energy
from gradscope.sampling.guidance.methods import ClassifierGradient
from gradscope.sampling.guidance.weighted_sum import WeightedSum
from gradscope.sampling.process import Schedule, Times
from gradscope.sampling.sampler import GuidedSampler
from gradscope.watching.process import Process
from probes.timed import ask

_FEWEST = 0.05
"""Share of signal below which x0-hat is no start for a noisy sample."""


@dataclass(frozen=True)
class CheckedCell:
    """The answer for one guide, input and timestep."""

    classifier: str
    classifier_input: str
    timestep: float
    answer: Checked
    seconds: float


def check_configuration(
    config: RunConfig, device: str = "auto", *, timesteps: int = 2, samples: int = 2
) -> Iterator[CheckedCell]:
    """Check every guide and input of a configuration at a few timesteps, one after the other.

    The samples are noised predictions of the denoiser. Stabiliser, normalisation and scale do not change the gradient,
    so they are not visited.

    Parameters
    ----------
    config
        What would be recorded; nothing is.
    device
        See `gradscope.models.device.set_device`.
    timesteps
        Number of the run's timesteps, evenly spaced.
    samples
        Number of samples at each.

    Raises
    ------
    GradscopeError
        The configuration does not fit the models, or its method does not give the plain gradient.
    """
    settings = config.guidance
    run = prepare(config.model_copy(update={"probes": ["norms"]}), device, resume=True)  # its store may exist
    if not isinstance(run.method, ClassifierGradient) or settings.smoothgrad is not None:
        raise GradscopeError(
            "guidance.method: only the method classifier, without SmoothGrad, gives the energy's own gradient; check "
            "another method's loop with gradscope.check_loop"
        )
    if run.denoiser.decoder is not None or config.execution.autocast != "none":
        raise GradscopeError("check: it takes denoisers of samples, not of latents, in full precision")
    label = torch.as_tensor(run.grid.label[:samples].copy(), device=run.device)
    for i in range(len(run.grid.classifier)):
        for j in range(len(run.grid.classifier_input)):
            sampler = run.sampler((i, j, 0, 0))
            schedule = sampler.schedule(config.sampling.num_inference_steps)
            count = len(schedule.times)
            chosen = sorted({round((k + 0.5) * count / timesteps - 0.5) for k in range(min(timesteps, count))})
            with frozen(*run.models.values()), few_threads(*run.models.values()):
                for k in chosen:
                    yield _checked(run, sampler, schedule, schedule.times[k], label, (i, j))


def _checked(
    run: Run, sampler: GuidedSampler, schedule: Schedule, times: Times, label: Tensor, cell: tuple[int, int]
) -> CheckedCell:
    begun = time.perf_counter()
    guidance, name = sampler.guidance, run.grid.classifier[cell[0]]
    x_t = _noisy(sampler, schedule, times, len(label), run.config.sampling.seed)
    modules = [sampler.unet, guidance.classifier]
    energy = plain_energy(sampler, schedule, times, label)

    def gradient(x: Tensor, t: Any) -> Tensor:
        return sampler.evaluate(x, label, times, schedule).gradient

    is_classifier = not isinstance(guidance.classifier, Energy | WeightedSum)
    with untouched(modules):
        case = Case(
            cond_fn=gradient,
            energy=energy,
            x_t=x_t,
            t=times.timestep,
            claim=gradient(x_t, None),
            declared=Declared(guidance.classifier_input),
            measure=Measure(energy, x_t, times.timestep, Wide(modules), 0),
            denoiser=None if guidance.classifier_input == "x_t" else sampler.unet,
            guide=guidance.classifier if is_classifier else None,
            labels=label if is_classifier else None,
            process=Process(schedule.scheduler),
        )
        answer = judge(case)
    seconds = time.perf_counter() - begun
    return CheckedCell(name, guidance.classifier_input, times.timestep, answer, seconds)


def plain_energy(
    sampler: GuidedSampler, schedule: Schedule, times: Times, label: Tensor
) -> Callable[[Tensor, Any], Tensor]:
    """The objective as a reader would write it: denoiser, x0-hat, clamp, guide, log_softmax."""
    guidance, unet = sampler.guidance, sampler.unet
    form, clip = guidance.classifier_input, schedule.clip_range
    signal, noise = times.level.signal, times.level.noise

    def x_0_hat(x: Tensor) -> Tensor:
        t = schedule.model_timesteps(times, len(x), x.device)
        made = unet(schedule.model_input(x, times), t) if sampler.condition.given == "none" else None
        if made is None:
            raise GradscopeError("sampling.condition: the check takes denoisers without a condition")
        output = (made if isinstance(made, Tensor) else made.sample)[:, : x.shape[1]]
        match schedule.prediction_type:
            case "epsilon":
                x_0 = (x - noise * output) / signal
            case "sample":
                x_0 = output
            case "v_prediction":
                x_0 = (signal * x - noise * output * (signal**2 + noise**2) ** 0.5) / (signal**2 + noise**2)
            case _:
                x_0 = x - noise * output
        return x_0 if clip is None else x_0.clamp(-clip, clip)

    def value(guide: nn.Module, x: Tensor, x_0: Tensor | None) -> Tensor:
        if isinstance(guide, WeightedSum):
            weights = guide.weights.tolist()
            return torch.stack([w * value(part, x, x_0) for w, part in zip(weights, guide, strict=True)]).sum(dim=0)
        if isinstance(guide, Energy):
            return guide(x, times.timestep, x_0_hat(x) if x_0 is None else x_0, range(len(x)))
        seen: tuple[Tensor, float] = schedule.model_input(x, times), times.timestep
        if form != "x_t" and x_0 is not None:
            seen = x_0, guidance.timestep_at_x0
        logits = ask(guide, *seen)
        logits = logits if logits.ndim == 2 and logits.shape[1] > 1 else _two(logits)
        rows = torch.arange(len(logits))
        return (logits if guidance.objective == "logit" else logits.log_softmax(dim=1))[rows, label]

    def energy(x: Tensor, t: Any) -> Tensor:
        return value(guidance.classifier, x, None if form == "x_t" else x_0_hat(x))

    return energy


def _two(logit: Tensor) -> Tensor:
    """Logits of two classes from one: class 0 has the logit 0."""
    return torch.stack([torch.zeros_like(logit.reshape(-1)), logit.reshape(-1)], dim=1)


def _noisy(sampler: GuidedSampler, schedule: Schedule, times: Times, count: int, seed: int) -> Tensor:
    """Noisy samples at a timestep, from the denoiser's prediction for noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *sampler.sample_shape, generator=generator).to(sampler.device)
    start = next((t for t in schedule.times if t.level.alphas_cumprod > _FEWEST**2), schedule.times[-1])
    with torch.no_grad():
        label = torch.zeros(count, dtype=torch.long, device=noise.device)
        x_0 = sampler.evaluate(noise * start.level.scale, label, start, schedule).prediction.pred_original_sample
    again = torch.randn(noise.shape, generator=generator).to(noise)
    return (times.level.signal * x_0.clamp(-1, 1) + times.level.noise * again).to(noise)
