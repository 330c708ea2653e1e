"""Compare stabilisers without normalisation, at matched effective strength.

python runs/matched_strength.py stabilizers.yaml FOLDER 'classifiers={robust: zoo:sportballs32/robust}' KEY=VALUE ...

Without normalisation, equal guidance_scale is not equal strength: an ADAM update has a norm near sqrt(d), a gradient
may have one of 1e-12. So this script searches a scale for every stabiliser of the configuration. At this scale the mean
effective strength (shift over the step's noise) of a few samples equals that of the first stabiliser with l2
normalisation at the configuration's scale. The run with this scale is recorded into FOLDER/NAME.zarr.
"""

import sys
from collections.abc import Sequence
from math import exp, log
from pathlib import Path

import torch

from gradscope.config import RunConfig, load
from gradscope.recording.prepare import Run, prepare
from gradscope.recording.run import record_run
from probes import EffectiveStrength, Trace

SAMPLES = 16
"""Number of samples in the search; the recording has as many as the configuration says."""
ROUNDS, TOLERANCE = 10, 0.05
"""Largest number of rounds, and relative tolerance of the strength. A search that fails says so."""


def main(config: str, folder: str, overrides: Sequence[str]) -> None:
    given = load(RunConfig, config, overrides)
    target = strength(prepare(given, store="unused.zarr"))
    print(f"target: effective strength {target:.4f}")
    for name in given.stabilizers:
        path = str(Path(folder) / f"{name}.zarr")
        scale, reached = matched(given, name, target)
        note = "" if abs(log(reached / target)) <= TOLERANCE else " (not matched)"
        print(f"{name}: guidance_scale {scale:.4g}, effective strength {reached:.4f}{note}", flush=True)
        record_run(at_scale(given, name, scale, path), overwrite=True, command=sys.argv)


def matched(config: RunConfig, stabilizer: str, target: float) -> tuple[float, float]:
    """Scale and the strength reached, by a secant search over their logarithms.

    Strength grows more slowly than the scale: stronger guidance convinces the guide sooner, and its gradient fades.
    """
    scale, slope = config.guidance.guidance_scale[0], 1.0
    tried: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        reached = strength(at_scale(config, stabilizer, scale, "unused.zarr"))
        tried.append((log(scale), log(reached)))
        if abs(log(reached / target)) <= TOLERANCE:
            break
        if len(tried) > 1 and tried[-1][0] != tried[-2][0]:
            slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
        scale *= (target / reached) ** (1 / min(max(slope, 0.2), 2.0))
    best = min(tried, key=lambda pair: abs(pair[1] - log(target)))
    return exp(best[0]), exp(best[1])


def at_scale(config: RunConfig, stabilizer: str, scale: float, path: str) -> Run:
    """The run of one stabiliser without normalisation."""
    guidance = config.guidance.model_copy(update={"normalize": "none", "guidance_scale": [scale]})
    stabilizers = {stabilizer: config.stabilizers[stabilizer]}
    return prepare(
        config.model_copy(update={"guidance": guidance, "stabilizers": stabilizers}), store=path, overwrite=True
    )


def strength(run: Run) -> float:
    """Mean effective strength over samples and timesteps of the run's first cell."""
    trace = Trace([EffectiveStrength()])
    sampler = run.sampler((0, 0, 0, 0))
    with sampler.register_step_hook(trace):
        sampler.sample(run.grid.label[:SAMPLES].tolist(), run.config.sampling.num_inference_steps)
    return float(torch.nanmean(trace["effective_strength"]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
