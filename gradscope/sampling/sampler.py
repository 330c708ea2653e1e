"""The guided sampling loop, which gives one `GuidedStep` per step."""

import operator
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradscope.errors import GradscopeError, whole_number
from gradscope.models.calls import frozen, output_of
from gradscope.sampling.denoiser import image_shape, refuse_conditional
from gradscope.sampling.guidance.classifier import ClassifierGuidance, Evidence
from gradscope.sampling.noise import BlockNoise
from gradscope.sampling.process import Schedule, Times, refuse_inexact
from gradscope.stabilizers import Identity, Stabilizer
from probes import GuidedStep
from probes.numerics import unit

StepHook = Callable[[GuidedStep], None]


class GuidedSampler:
    """An unconditional diffusers U-Net, its scheduler, a guide and a stabiliser.

    Parameters
    ----------
    unet
        ``unet(x_t, t)`` gives a tensor like x_t, or an object that has one as ``.sample``; for example any
        `UNet2DModel`. It gets a copy of x_t in the type of its weights.
    scheduler
        A `DDPMScheduler`, or a `DDIMScheduler` (with eta 0).
    guidance, stabilizer
        See `ClassifierGuidance` and `gradscope.stabilizers`.
    autocast
        Lower precision of the U-Net by `torch.autocast`, bfloat16 or float16; None for none.

    Raises
    ------
    GradscopeError
        The steps of the scheduler or the U-Net cannot be computed exactly.

    Examples
    --------
    >>> sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))
    >>> sampler.sample(labels=[0, 1], num_inference_steps=4, seed=0).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        guidance: ClassifierGuidance,
        stabilizer: Stabilizer | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        refuse_inexact(scheduler)
        refuse_conditional(unet)
        self.unet, self.scheduler = unet, scheduler
        self.guidance = guidance
        self.stabilizer = Identity() if stabilizer is None else stabilizer
        self.autocast = autocast
        self._hooks: OrderedDict[int, StepHook] = OrderedDict()
        if guidance.weight != "one" and not isinstance(scheduler, DDPMScheduler):
            raise GradscopeError(f"guidance.weight: {guidance.weight!r} weighs DDPM's noise; DDIM takes 'one'")

    @property
    def device(self) -> torch.device:
        return next((p.device for p in (*self.unet.parameters(), *self.unet.buffers())), torch.device("cpu"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channel, height, width."""
        return image_shape(self.unet)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that probes may attach to, by name."""
        return {"classifier": self.guidance.classifier, "unet": self.unet}

    def register_step_hook(self, hook: StepHook) -> RemovableHandle:
        """Call ``hook(step)`` after each step, until the handle is removed or its ``with`` block ends.

        If a hook has a method ``attach(modules)``, its context is open while the models (``classifier`` and ``unet``)
        run, and closed while hooks run; see `probes.Probe.attach`.
        """
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def schedule(self, num_inference_steps: int) -> Schedule:
        """The scheduler's steps, checked to fit the guidance.

        Raises
        ------
        GradscopeError
            The steps cannot be computed exactly, or the guidance's interval covers none of them.
        """
        schedule = Schedule(self.scheduler, num_inference_steps)
        self.guidance.check_interval(schedule)
        return schedule

    def sample(self, labels: Iterable[int], num_inference_steps: int, seed: int = 0, first_sample: int = 0) -> Tensor:
        """Sample one block.

        Parameters
        ----------
        labels
            Target class of each sample: a sequence, an array or a tensor of integers. For an energy, which knows no
            classes, their number alone counts.
        num_inference_steps
            Number of steps, which the scheduler spaces.
        seed, first_sample
            Sample i has its own generator, seeded by ``(seed, first_sample + i)``: its noise depends neither on the
            batch nor on the device.

        Returns
        -------
        Tensor
            ``(n, channel, height, width)`` on the sampler's device.

        Raises
        ------
        GradscopeError
            Labels, the number of steps or the seed are out of range.
        """
        with (
            # Hooks may differentiate, too. Leaving inference mode restores the caller's mode of gradients.
            torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext(),
            closing(self.steps(labels, num_inference_steps, seed, first_sample)) as steps,
        ):
            while (step := self._next(steps)) is not None:
                last = step
                for hook in list(self._hooks.values()):
                    hook(step)
        assert last.prev_sample is not None
        return last.prev_sample

    def _next(self, steps: Iterator[GuidedStep]) -> GuidedStep | None:
        """The next step, with the hooks' contexts open while it is computed; None after the last."""
        with ExitStack() as stack:
            for hook in self._hooks.values():
                if (attach := getattr(hook, "attach", None)) is not None:
                    stack.enter_context(attach(self.modules))
            return next(steps, None)

    def steps(
        self, labels: Iterable[int], num_inference_steps: int, seed: int = 0, first_sample: int = 0
    ) -> Generator[GuidedStep, None, None]:
        """The steps of `sample` one by one, without hooks."""
        targets = class_labels(labels)
        first_sample = whole_number(first_sample, "first_sample")
        schedule = self.schedule(num_inference_steps)
        seeds = sample_seeds(seed, range(first_sample, first_sample + len(targets))).tolist()
        refuse_inference_tensors(self.modules)
        with (
            BlockNoise(seeds, self.image_shape, self.device) as noise,
            frozen(self.unet, self.guidance.classifier),
        ):
            with torch.inference_mode(False), torch.no_grad():
                label = torch.tensor(targets, device=self.device)
                x_t = noise.draw() * schedule.scheduler.init_noise_sigma
                state = self.stabilizer.init(x_t.double())
            for times in schedule.times:
                with torch.inference_mode(False), torch.no_grad():
                    step, state = self._step(x_t, label, state, times, schedule, seeds, first_sample, noise)
                yield step
                assert step.prev_sample is not None
                x_t = step.prev_sample

    def evaluate(
        self,
        x_t: Tensor,
        label: Tensor,
        times: Times,
        schedule: Schedule,
        seeds: Sequence[int] = (),
        first_sample: int = 0,
    ) -> Evidence:
        """Gradient and prediction at x_t; see `ClassifierGuidance.evaluate`."""

        def denoise(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
                return output_of(self.unet, x, times.timestep)

        return self.guidance.evaluate(x_t, label, times, schedule, denoise, seeds, first_sample)

    def _step(
        self,
        x_t: Tensor,
        label: Tensor,
        state: Any,
        times: Times,
        schedule: Schedule,
        seeds: list[int],
        first_sample: int,
        noise: BlockNoise,
    ) -> tuple[GuidedStep, Any]:
        evidence = self.evaluate(x_t, label, times, schedule, seeds, first_sample)
        prediction = evidence.prediction
        # A gradient that is not finite must enter neither the stabiliser's state nor the sample.
        finite = torch.isfinite(evidence.gradient).flatten(1).all(dim=1)
        rows = finite.view(-1, 1, 1, 1)
        update, state = self.stabilizer.update(evidence.gradient.where(rows, 0), state)
        wide = (unit(update) if self.guidance.normalize == "l2" else update).where(rows, 0)
        drawn = noise.draw() if schedule.adds_noise(times) else None
        prev_sample = schedule.unguided(prediction.native, x_t, times, drawn)
        gain = times.gain if evidence.defined else None
        direction = _narrow(wide, x_t.dtype)
        shift = _narrow((0.0 if gain is None else self.guidance.amount(times) * gain) * wide, x_t.dtype)
        step = GuidedStep(
            step=times.step,
            timestep=times.timestep,
            x_t=x_t,
            gradient=evidence.gradient,
            label=label,
            model_output=prediction.model_output,
            pred_original_sample=prediction.pred_original_sample,
            clip_range=schedule.clip_range,
            logits=evidence.logits,
            energy=evidence.energy,
            update=update,
            direction=direction,
            shift=shift,
            prev_sample=prev_sample + shift,
            unguided=torch.ones_like(finite) if gain is None else ~finite,
            sigma=times.sigma,
            noise_added=times.noise_added,
            alphas_cumprod=times.alphas_cumprod,
            num_train_timesteps=schedule.num_train_timesteps,
            backward_factor=evidence.log_factor.exp(),
            objective=evidence.objective,
        )
        return step, state


def _narrow(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a float64 tensor; a sample becomes zero if the new type rounds all its elements coarsely."""
    least = torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    return wide.where(wide.abs().flatten(1).amax(dim=1).view(-1, 1, 1, 1) >= least, 0).to(dtype)


def class_labels(labels: Iterable[int]) -> list[int]:
    """Target classes as integers.

    Raises
    ------
    GradscopeError
        There are no labels, or they are not integers.
    """
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise GradscopeError(f"labels: must be one class per sample, for example [0, 1, 2], got {labels!r}")
    targets = []
    for value in values:
        try:
            targets.append(operator.index(value))
        except TypeError:
            raise GradscopeError(f"labels: classes must be whole numbers, got {value!r}") from None
        if not -(2**63) <= targets[-1] < 2**63:
            raise GradscopeError(f"labels: classes must be whole numbers below 2**63 in size, got {value!r}")
    if not targets:
        raise GradscopeError("labels: at least one sample is needed, got none")
    return targets


def sample_seeds(seed: int, samples: Sequence[int]) -> np.ndarray:
    """Seed of each sample's generator, int64 >= 0: a function of ``(seed, sample index)`` only."""
    seed = whole_number(seed, "seed")
    words = [np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] for i in samples]
    return (np.array(words, dtype=np.uint64) >> np.uint64(1)).astype(np.int64)


def refuse_inference_tensors(modules: Mapping[str, nn.Module]) -> None:
    """Raise GradscopeError if a model was made inside `torch.inference_mode`: it cannot be differentiated."""
    for name, module in modules.items():
        if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
            raise GradscopeError(
                f"{name}: its weights were made inside torch.inference_mode() and cannot be differentiated; make or "
                "load it outside"
            )
