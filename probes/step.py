"""The record of one guided sampling step, which is all that probes see."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from probes import numerics


@dataclass(frozen=True, kw_only=True)
class GuidedStep:
    """One step of a block of n samples. Tensors are ``(n, *sample)``, for images ``(n, channel, height, width)``.

    Only `step`, `timestep`, `x_t` and `gradient` are required. A sampler of your own may leave the rest out; a probe
    that needs a missing field raises an error. Tensors belong to the sampler: a probe must not change them, nor keep a
    reference beyond the next step.

    Examples
    --------
    >>> import torch
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(2, 3, 8, 8), gradient=torch.ones(2, 3, 8, 8))
    >>> [round(norm, 2) for norm in step.norm("gradient").tolist()]
    [13.86, 13.86]
    """

    step: int
    """Number of the step in sampling order, from 0."""
    timestep: float
    """Diffusion time of x_t."""
    repeat: int = 0
    """Number of this step's repetition, from 0, if a method repeats steps."""
    x_t: Tensor
    gradient: Tensor
    """Raw gradient of the objective with respect to x_t; may be not finite. gradscope's sampler gives it and the update
    in float64, because the gradient of a saturated guide lies below float32's range."""
    model_input: Tensor | None = None
    """What the models get of x_t: solvers in sigma scale it to unit variance. None: x_t itself."""
    label: Tensor | None = None
    """Target classes, shape ``(n,)``, int64."""
    model_output: Tensor | None = None
    """Predicted noise epsilon, unguided."""
    pred_original_sample: Tensor | None = None
    """x0-hat, clamped where the scheduler clips."""
    clip_range: float | None = None
    """Bound that pred_original_sample is clamped to; None if it is not clamped, NaN if that is not known."""
    logits: Tensor | None = None
    """The guide's logits on its input, shape ``(n, classes)``; None for a guide without classes."""
    energy: Tensor | None = None
    """The guide's objective, ``(n,)``: log p(y | input), a logit, the value of an energy, or a weighted sum."""
    conditional_output: Tensor | None = None
    """Predicted noise epsilon with the condition, with classifier-free guidance; `model_output` is the one without."""
    conditional_original_sample: Tensor | None = None
    """x0-hat of the conditional prediction, with classifier-free guidance; not clamped."""
    guidance_weight: float | Tensor | None = None
    """Scale w of classifier-free guidance in u + w (c - u), one number or ``(n,)``, one per sample; 1 is none."""
    update: Tensor | None = None
    """The gradient after the stabiliser."""
    direction: Tensor | None = None
    """The update after normalisation."""
    shift: Tensor | None = None
    """The effect of guidance: guided minus unguided prev_sample."""
    prev_sample: Tensor | None = None
    """The next x_t, guided."""
    picture: Tensor | None = None
    """The decoded prev_sample of a latent model, after the last step."""
    unguided: Tensor | None = None
    """Whether guidance could not act on a sample at this step, shape ``(n,)``, bool: the gradient is not finite, or the
    shift is undefined."""
    sigma: float | None = None
    """Standard deviation of the DDPM posterior at this step."""
    noise_added: float | Tensor | None = None
    """Standard deviation of the noise that the step adds, one number or ``(n,)``, one per sample; 0 if it adds none."""
    num_train_timesteps: int | None = None
    """T; timesteps run from 0 to T - 1."""
    time: float | None = None
    """Share of diffusion time that is left, in [0, 1]; None: ``timestep / num_train_timesteps``. EDM's timesteps are
    logarithms of noise, so its steps divide the time evenly."""
    alphas_cumprod: float | None = None
    """Share of signal in x_t, ``signal^2 / (signal^2 + noise^2)``."""
    signal: float | None = None
    """Factor of x_0 in x_t = signal x_0 + noise epsilon; None: sqrt(alphas_cumprod)."""
    noise: float | None = None
    """Factor of epsilon in x_t; None: sqrt(1 - alphas_cumprod)."""
    backward_factor: Tensor | None = None
    """Factor that turns gradients inside the models into those of the objective, ``(n,)``, float64; None for 1.
    gradscope's sampler differentiates the guide's margin m and multiplies by sigmoid(-m) afterwards."""
    objective: Callable[[Tensor, Tensor], Tensor] | None = None
    """The guide's objective at this timestep, one number per sample, ``(m,)``. It is a differentiable function of noisy
    samples ``(m, *sample)`` and labels ``(m,)``, for any m. If an energy has targets, these samples repeat the step's
    in order. Its gradient at x_t is `gradient`, unless SmoothGrad averages that. It runs the guide and, for x0-hat, the
    denoiser; for x0_detached the predicted noise is held constant. Call it only while the step's hooks run: then the
    models are frozen."""

    def rows(self, name: str) -> Tensor:
        """One of the tensors as float64 rows, ``(n, elements)``; computed once for all probes."""
        return self._once("rows", name, lambda: numerics.rows(getattr(self, name)))

    def norm(self, name: str) -> Tensor:
        """The l2 norm of each of these rows, ``(n,)``, float64; NaN if an element is NaN."""
        return self._once("norm", name, lambda: numerics.norm_of_rows(self.rows(name)))

    def unit_rows(self, name: str) -> Tensor:
        """These rows divided by their norms; zero rows stay zero."""
        return self._once("unit", name, lambda: numerics.unit_rows(self.rows(name), self.norm(name)))

    def _once(self, what: str, name: str, make: Callable[[], Tensor]) -> Tensor:
        shared = self.__dict__.setdefault("_shared", {})
        if (what, name) not in shared:
            shared[what, name] = make()
        return shared[what, name]
