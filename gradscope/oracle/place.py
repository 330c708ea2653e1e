"""One mixture with its denoiser, and what all cells on it share: the control's trajectories and the exact guidance."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.config import OracleConfig
from gradscope.models.mixture import NoiseAware, denoiser_of
from gradscope.models.schedulers import make_scheduler
from gradscope.oracle.finals import Finals, finals
from gradscope.oracle.guides import GUIDES
from gradscope.oracle.methods import AtInput
from gradscope.oracle.mixtures import Wide, make
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler
from gradscope.stabilizers import Stabilizer
from probes import GuidedStep


@dataclass(frozen=True)
class Path:
    """Trajectories of all samples: tensors at every step."""

    x_t: list[Tensor]
    exact: list[Tensor]
    """The exact gradient of log p(y | x_t), float64."""
    shift: float
    """Root mean square norm of the shifts, over samples and steps."""
    final: Tensor


class Place:
    """A mixture, its exact denoiser, and the trajectories that all cells share.

    Parameters
    ----------
    name
        Name of the mixture.
    config
        The oracle's configuration.
    """

    def __init__(self, name: str, config: OracleConfig) -> None:
        self.config = config
        self.mixture: Wide = make(name, config.seed)
        denoiser, trained = denoiser_of(self.mixture)
        self.alphas_cumprod = trained.alphas_cumprod.double()
        denoiser.alphas_cumprod = self.alphas_cumprod
        self.denoiser = denoiser.double()
        spec = config.scheduler
        kind, options = (spec, {}) if isinstance(spec, str) else next(iter(spec.items()))
        self.scheduler: Any = make_scheduler(kind, options, trained, "scheduler")
        self.label = torch.arange(config.samples) % self.mixture.classes
        self.exact = NoiseAware(self.mixture, self.alphas_cumprod)
        self._made: dict[tuple[str, int], nn.Module] = {}

    @cached_property
    def schedule(self) -> Schedule:
        return self.sampler(self.exact).schedule(self.config.num_inference_steps)

    def guide(self, kind: str, replicate: int) -> nn.Module:
        """The guide of a kind and training seed; made once."""
        key = kind, replicate
        if key not in self._made:
            self._made[key] = GUIDES[kind](self.mixture, self.alphas_cumprod, self.config.seed + replicate)
        return self._made[key]

    def sampler(
        self,
        guide: nn.Module,
        at: AtInput | None = None,
        stabilizer: Stabilizer | None = None,
        guidance_scale: float = 0.0,
        **settings: Any,
    ) -> GuidedSampler:
        """A sampler of the mixture; by default an unguided one."""
        if at is not None:
            settings |= {"method": at.method, "classifier_input": at.classifier_input}
        guidance = ClassifierGuidance(guide, guidance_scale=guidance_scale, **settings)
        return GuidedSampler(self.denoiser, self.scheduler, guidance, stabilizer)

    def steps(self, sampler: GuidedSampler) -> Iterator[GuidedStep]:
        """The steps of all samples, one by one."""
        return sampler.steps(self.label.tolist(), self.config.num_inference_steps, self.config.seed)

    def exact_gradient(self, step: GuidedStep) -> Tensor:
        """The exact gradient of log p(y | x_t) at a step's x_t, float64."""
        assert step.signal is not None
        assert step.noise is not None
        scale = (step.signal**2 + step.noise**2) ** 0.5  # the mixture's x_t have unit signal and noise together
        share = (step.signal / scale) ** 2
        return self.mixture.gradient(step.x_t.double() / scale, self.label, share) / scale

    @cached_property
    def control(self) -> Path:
        """The unguided trajectories."""
        return self._path(self.sampler(self.exact))

    @cached_property
    def reference(self) -> Path:
        """Trajectories that the exact gradient guides at its own strength: with many steps, draws of x_t given y."""
        weight = "variance" if self.schedule.is_ddpm else "one"
        return self._path(self.sampler(self.exact, guidance_scale=1.0, normalize="none", weight=weight))

    def _path(self, sampler: GuidedSampler) -> Path:
        steps = list(self.steps(sampler))
        final = steps[-1].prev_sample
        assert final is not None
        shifts = torch.stack([step.norm("shift") for step in steps])
        return Path(
            [step.x_t for step in steps],
            [self.exact_gradient(step) for step in steps],
            float(shifts.square().mean()) ** 0.5,
            final,
        )

    def scale(self, at: AtInput) -> float:
        """The guidance scale at which unit directions shift by the root mean square of the exact guidance's shifts."""
        gains = np.array([times.gains[at.method.enters] or 0.0 for times in self.schedule.times])
        return self.config.guidance_scale * self.reference.shift / float(np.sqrt(np.mean(gains**2)))

    def finals(self, samples: Tensor) -> Finals:
        """Scores of final samples of all targets."""
        return finals(self.mixture, samples, self.label)
