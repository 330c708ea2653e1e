"""The steps of one trajectory: of one sampler, or of several that leave x_t as it is and so share it."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gradscope.errors import whole_number
from gradscope.models.calls import frozen
from gradscope.sampling.guidance.methods import renoised
from gradscope.sampling.inputs import class_labels, refuse_inference_tensors
from gradscope.sampling.noise import BlockNoise, own_noise
from gradscope.sampling.process import Schedule, Walk
from gradscope.sampling.seeds import sample_seeds
from gradscope.sampling.shared import SharedPass, SharedWalk
from probes import GuidedStep

if TYPE_CHECKING:
    from gradscope.sampling.sampler import GuidedSampler

_RENOISED = 2**20
"""The draw of `own_noise` that repeats a step; methods have those from 0."""


class Block(NamedTuple):
    """Samples that go through the sampler together."""

    schedule: Schedule
    walk: Walk
    label: Tensor
    seeds: list[int]
    first_sample: int


Groups = Sequence[Sequence["GuidedSampler"]]
"""Samplers that share a trajectory. Those of a group have the same guide at the same input."""


def trajectory(
    groups: Groups, labels: Iterable[int], num_inference_steps: int, seed: int = 0, first_sample: int = 0
) -> Generator[tuple["GuidedSampler", GuidedStep], None, None]:
    """The steps of one block, each with its sampler.

    Several samplers must have one denoiser, scheduler and method, and ``guidance_scale`` 0: then x_t is the same for
    all. The denoiser runs once a step, with a backward pass for each group at x0; each group's guide is evaluated once,
    and each sampler's stabiliser is applied to its gradient.

    Parameters
    ----------
    groups
        The samplers, at least one.
    labels, num_inference_steps, seed, first_sample
        See `GuidedSampler.sample`.

    Yields
    ------
    sampler, step
        Sampler after sampler at each timestep and repetition.
    """
    samplers = [sampler for group in groups for sampler in group]
    first, several = samplers[0], len(samplers) > 1
    targets = class_labels(labels)
    first_sample = whole_number(first_sample, "first_sample")
    schedule = first.schedule(num_inference_steps)
    seeds = sample_seeds(seed, range(first_sample, first_sample + len(targets))).tolist()
    models = [model for sampler in samplers for model in sampler.models.items()]
    for sampler in samplers:
        refuse_inference_tensors(sampler.models)
    through_denoiser = any(sampler.guidance.classifier_input == "x0" for sampler in samplers)
    # a method of the user's own may differentiate the denoiser twice, which a shared pass cannot
    can_share = len(groups) > 1 and type(first.guidance.method).__module__.startswith("gradscope.")
    with (
        BlockNoise(seeds, first.sample_shape, first.device, ahead=schedule.is_ddpm) as noise,
        frozen(*dict.fromkeys(model for _, model in models)),
    ):
        with torch.inference_mode(False), torch.no_grad():
            label = torch.tensor(targets, device=first.device)
            x_t = noise.draw() * schedule.init_noise_sigma
            states = [[sampler.stabilizer.init(x_t.double()) for sampler in group] for group in groups]
        walk = (SharedWalk if several else Walk)(schedule, noise.generators, noise.draw)
        block = Block(schedule, walk, label, seeds, first_sample)
        for times in schedule.times:
            count = first.guidance.repeats(times)
            saved = walk.save(x_t.shape) if count > 1 else None
            for repeat in range(count):
                shared = SharedPass(x_t, through_denoiser) if can_share else None
                for group, own in zip(groups, states, strict=True):
                    with torch.inference_mode(False), torch.no_grad():
                        evidence = group[0].evaluate(
                            x_t, label, times, schedule, seeds, first_sample, repeat, shared=shared
                        )
                    for i, sampler in enumerate(group):
                        with torch.inference_mode(False), torch.no_grad():
                            step, own[i] = sampler.step(evidence, x_t, own[i], times, block, repeat)
                        yield sampler, step
                if shared is not None:
                    shared.close()
                assert step.prev_sample is not None
                x_t = step.prev_sample
                if repeat + 1 < count:
                    walk.restore(saved, x_t.shape)
                    x_t = renoised(x_t, times, own_noise(seeds, (times.step, repeat, _RENOISED), x_t))


def sample_together(
    groups: Groups, labels: Iterable[int], num_inference_steps: int, seed: int = 0, first_sample: int = 0
) -> Tensor:
    """Sample one block of several samplers whose ``guidance_scale`` is 0; see `trajectory`.

    Each sampler's step hooks see its own steps. Their ``attach`` is not called.

    Returns
    -------
    Tensor
        The final samples, see `GuidedSampler.sample`.

    Raises
    ------
    ValueError
        A sampler guides, so that x_t is not the same for all.
    """
    if scales := [s.guidance.guidance_scale for group in groups for s in group if s.guidance.guidance_scale != 0]:
        raise ValueError(f"samplers with guidance_scale 0 share a trajectory, got {scales[0]:g}")
    with (
        torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext(),
        closing(trajectory(groups, labels, num_inference_steps, seed, first_sample)) as taken,
    ):
        for sampler, step in taken:
            sampler.run_hooks(step)
    return final(step)


def final(step: GuidedStep) -> Tensor:
    """The final samples after the last step, decoded if there is a decoder."""
    found = step.prev_sample if step.picture is None else step.picture
    assert found is not None
    return found
