"""The first step of a sampler, taken and measured before a store is created."""

from collections.abc import Sequence
from contextlib import closing

from gradscope.errors import GradscopeError
from gradscope.models.foreign import failure
from gradscope.recording.measure import measured
from gradscope.sampling.sampler import GuidedSampler
from probes import GuidedStep, Probe, attach_all


def rehearsed(
    sampler: GuidedSampler, probes: Sequence[Probe], labels: Sequence[int], num_inference_steps: int, seed: int
) -> GuidedStep:
    """Take and measure the first step of a block. Hooks do not run, and nothing is recorded.

    Raises
    ------
    GradscopeError
        A model or a probe does not fit, or a probe raised an error.
    """
    with closing(sampler.steps(labels, num_inference_steps, seed)) as steps:
        with attach_all(probes, sampler.modules):
            step = next(steps)
        try:
            measured(probes, step, [probe.init() for probe in probes])
        except GradscopeError:
            raise
        except Exception as error:  # raised by a user's own probe
            raise failure("measuring the first step", "probes", error) from error
    return step
