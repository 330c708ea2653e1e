"""The guided sampling loop, which gives one `GuidedStep` per step."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import Any, Self

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from gradscope.errors import GradscopeError
from gradscope.models.decoder import shape_of_images
from gradscope.sampling.denoiser import UNCONDITIONAL, Condition, denoise, refuse_unfit, sample_shape
from gradscope.sampling.guidance.classifier import ClassifierGuidance, Evidence
from gradscope.sampling.process import Schedule, Times, learns_variance, refuse_inexact, refuse_options
from gradscope.sampling.shared import SharedPass
from gradscope.sampling.trajectory import Block, final, trajectory
from gradscope.stabilizers import Identity, Stabilizer
from probes import GuidedStep
from probes.numerics import unit

StepHook = Callable[[GuidedStep], None]


class GuidedSampler:
    """A denoiser, its scheduler, a guide and a stabiliser.

    Parameters
    ----------
    unet
        ``unet(x_t, t)`` gives a tensor like x_t, or with a variance in as many further channels, or an object that has
        one as ``.sample``; for example any `UNet2DModel`. It gets a copy of x_t in the type of its weights. Its
        ``config`` gives the shape of a sample, as ``sample_shape``, or as ``sample_size`` and ``in_channels``.
    scheduler
        A diffusers scheduler, one of `gradscope.models.schedulers.SCHEDULERS`.
    guidance, stabilizer
        See `ClassifierGuidance` and `gradscope.stabilizers`.
    autocast
        Lower precision of the denoiser by `torch.autocast`, bfloat16 or float16; None for none.
    condition
        What a class-conditional denoiser is given, and the scale of classifier-free guidance.
    eta, use_clipped_model_output
        Options of DDIM's step: the share of DDPM's noise that it adds, in [0, 1], and whether epsilon is derived from
        the clamped x0-hat.
    decoder
        Maps latents to images, for a denoiser of latents: guides see the decoded x0-hat.

    Raises
    ------
    GradscopeError
        The steps of the scheduler or the denoiser cannot be computed exactly.

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
        condition: Condition = UNCONDITIONAL,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        decoder: nn.Module | None = None,
    ) -> None:
        refuse_inexact(scheduler)
        refuse_options(scheduler, eta, use_clipped_model_output)
        refuse_unfit(unet, condition, learns_variance(scheduler))
        self.unet, self.scheduler = unet, scheduler
        self.condition, self.eta, self.use_clipped_model_output = condition, eta, use_clipped_model_output
        self.decoder = decoder
        self.guidance = guidance
        self.stabilizer = Identity() if stabilizer is None else stabilizer
        self.autocast = autocast
        self._hooks: OrderedDict[int, StepHook] = OrderedDict()
        if guidance.weight != "one" and not isinstance(scheduler, DDPMScheduler):
            name = type(scheduler).__name__
            raise GradscopeError(f"guidance.weight: {guidance.weight!r} weighs DDPM's noise; {name} takes 'one'")
        if decoder is not None and guidance.classifier_input == "x_t":
            raise GradscopeError(
                "guidance.classifier_input: x_t is a noisy latent, which cannot be decoded; take x0 or x0_detached, or "
                "leave the decoder out for a guide of noisy latents"
            )

    @property
    def device(self) -> torch.device:
        return next((p.device for p in (*self.unet.parameters(), *self.unet.buffers())), torch.device("cpu"))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample: channel, height, width of an image, or any other."""
        return sample_shape(self.unet)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of what guides see: that of a sample, or of a decoded one."""
        if self.decoder is None:
            return self.sample_shape
        return shape_of_images(self.decoder, self.sample_shape, self.device)

    @property
    def models(self) -> dict[str, nn.Module]:
        """Every model that a step runs, by name."""
        return self.modules | ({} if self.decoder is None else {"decoder": self.decoder})

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
        schedule = Schedule(self.scheduler, num_inference_steps, self.eta, self.use_clipped_model_output)
        self.guidance.check(schedule)
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
            ``(n, *sample)`` on the sampler's device, decoded if there is a decoder.

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
                self.run_hooks(step)
        return final(last)

    def __copy__(self) -> Self:
        """A sampler with the same models and settings, and the step hooks that this one has now."""
        made = object.__new__(type(self))
        vars(made).update(vars(self) | {"_hooks": self._hooks.copy()})
        return made

    @property
    def has_hooks(self) -> bool:
        """Whether step hooks are registered."""
        return bool(self._hooks)

    def run_hooks(self, step: GuidedStep) -> None:
        """Call every step hook with a step."""
        for hook in list(self._hooks.values()):
            hook(step)

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
        with closing(trajectory([[self]], labels, num_inference_steps, seed, first_sample)) as taken:
            for _, step in taken:
                yield step

    def evaluate(
        self,
        x_t: Tensor,
        label: Tensor,
        times: Times,
        schedule: Schedule,
        seeds: Sequence[int] = (),
        first_sample: int = 0,
        repeat: int = 0,
        shared: SharedPass | None = None,
    ) -> Evidence:
        """The method's vector and the prediction at x_t; see `ClassifierGuidance.evaluate`.

        Parameters
        ----------
        shared
            The denoiser's pass at this x_t, if other guides share it.
        """

        def pass_at(x: Tensor) -> Tensor:
            classes = label.repeat(len(x) // len(label))
            with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
                t = schedule.model_timesteps(times, len(x), x.device)
                given = schedule.model_input(x, times)
                return denoise(self.unet, given, t, classes, self.condition, schedule.learns_variance)

        output = pass_at if shared is None else partial(shared.output, denoise=pass_at)
        return self.guidance.evaluate(x_t, label, times, schedule, output, seeds, first_sample, repeat, self._decode())

    def _decode(self) -> Callable[[Tensor], Tensor] | None:
        """The decoder, which computes its activations again in the backward pass instead of keeping them."""
        if self.decoder is None:
            return None
        return partial(checkpoint, self.decoder, use_reentrant=False)

    def step(
        self, evidence: Evidence, x_t: Tensor, state: Any, times: Times, block: Block, repeat: int
    ) -> tuple[GuidedStep, Any]:
        """One step from what `evaluate` gave at x_t, and the stabiliser's next state."""
        schedule, label = block.schedule, block.label
        prediction = evidence.prediction
        # A gradient that is not finite must enter neither the stabiliser's state nor the sample.
        finite = torch.isfinite(evidence.gradient).flatten(1).all(dim=1)
        rows = finite.view(-1, *[1] * (x_t.ndim - 1))
        update, state = self.stabilizer.update(evidence.gradient.where(rows, 0), state)
        wide = (unit(update) if self.guidance.normalize == "l2" else update).where(rows, 0)
        gain = times.gains[evidence.enters] if evidence.defined else None
        amount = 0.0 if gain is None else self.guidance.amount(times, schedule.spread(prediction, times))
        direction = _narrow(wide, x_t.dtype)
        shift = _narrow((gain or 0.0) * amount * wide, x_t.dtype)
        prev_sample = self._moved(x_t, times, block, evidence, amount, wide, shift)
        step = GuidedStep(
            step=times.step,
            timestep=times.timestep,
            repeat=repeat,
            x_t=x_t,
            model_input=schedule.model_input(x_t, times),
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
            prev_sample=prev_sample,
            picture=self._picture(prev_sample, times, schedule, repeat),
            unguided=torch.ones_like(finite) if gain is None else ~finite,
            sigma=times.sigma,
            noise_added=schedule.noise_added(prediction, times),
            alphas_cumprod=times.alphas_cumprod,
            signal=times.level.signal,
            noise=times.level.noise,
            num_train_timesteps=schedule.num_train_timesteps,
            time=schedule.time(times),
            backward_factor=evidence.log_factor.exp(),
            objective=evidence.objective,
        )
        return step, state

    def _picture(self, prev_sample: Tensor, times: Times, schedule: Schedule, repeat: int) -> Tensor | None:
        """The decoded sample after the last step's last repetition."""
        is_last = times is schedule.times[-1] and repeat + 1 == self.guidance.repeats(times)
        if self.decoder is None or not is_last:
            return None
        return self.decoder(prev_sample)

    def _moved(
        self,
        x_t: Tensor,
        times: Times,
        block: Block,
        evidence: Evidence,
        amount: float | Tensor,
        wide: Tensor,
        shift: Tensor,
    ) -> Tensor:
        """prev_sample, guided. A solver with memory must remember the guided prediction, so it steps with that."""
        is_remembered = block.schedule.has_memory and evidence.enters in ("process", "prediction")
        # without DDPM the amount is a number, so that asking for 0 does not wait for the device
        if not is_remembered or times.change is None or amount == 0:
            return block.walk.step(evidence.prediction, x_t, times) + shift
        return block.walk.step(evidence.prediction, x_t, times, _narrow(times.change * amount * wide, x_t.dtype))


def _narrow(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a float64 tensor; a sample becomes zero if the new type rounds all its elements coarsely."""
    least = torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    peak = wide.abs().flatten(1).amax(dim=1).view(-1, *[1] * (wide.ndim - 1))
    return wide.where(peak >= least, 0).to(dtype)
