"""The causes that are tested, the likeliest first."""

from collections.abc import Iterator, Sequence

from gradscope.checking import clamps, denoised, given, targets, timesteps
from gradscope.checking.case import Candidate, Case, Hypothesis
from gradscope.errors import GradscopeError

CAUSES: tuple[Hypothesis, ...] = (
    denoised.jacobian,
    denoised.at_x0,
    targets.objectives,
    denoised.stale,
    denoised.early_noise,
    timesteps.wrong_timestep,
    targets.targets,
    targets.inputs,
    denoised.points,
)
FURTHER: tuple[Hypothesis, ...] = (given.points, clamps.clamped_twice)
"""Those that are tested where none of the others explains the claim."""


def candidates(case: Case, causes: Sequence[Hypothesis] = CAUSES) -> Iterator[Candidate]:
    """What the claim would be by each cause. A cause whose test fails is noted and left out."""
    for cause in causes:
        try:
            yield from cause(case)
        except GradscopeError as error:
            case.untested[f"causes around {cause.__name__}"] = f"{str(error).splitlines()[0]:.120}"
