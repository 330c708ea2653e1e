"""What is known of a step besides what its evaluation showed."""

from dataclasses import dataclass

from torch import Tensor

from gradscope.sampling.process import Level, Times
from gradscope.watching.process import Process


@dataclass(frozen=True)
class Context:
    """What is known besides the evaluation."""

    process: Process
    timestep: float
    level: Level | None
    times: Times | None
    """Constants of the step, for schedulers that are known exactly."""
    sigma: float | None
    """Standard deviation of the DDPM posterior at the step, if it is known."""
    next_x_t: Tensor | None
    """The next noisy samples, or the final ones."""
    additive: bool | None
    """Whether the loop changes prev_sample after the scheduler's step, as an earlier guided step showed; None if none
    did."""
    label: Tensor | None
    minimize: bool | None
    has_guide: bool
    """Whether the user named a guide; then two predictions are not taken for classifier-free guidance."""
    order: int | None = None
    """Index of the conditional prediction, if an earlier step showed it."""
    repeat: int = 0
