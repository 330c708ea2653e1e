"""Compare stabilisers without normalisation, at matched effective strength.

python runs/matched_strength.py stabilizers.yaml FOLDER 'classifiers={robust: zoo:sportballs32/robust}' KEY=VALUE ...

Without normalisation equal guidance_scale is not equal strength: an ADAM update has a norm near sqrt(d), a gradient one
that may be 1e-12. So for every stabiliser of the configuration the scale is sought at which the mean effective strength
(shift over the step's noise) of a few samples equals that of the first stabiliser with l2 normalisation at the
configuration's scale; then it is recorded with that scale into FOLDER/NAME.zarr.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gradscope.config import RunConfig, load
from gradscope.recording import Run, prepare, record_run
from probes import EffectiveStrength, Trace

SAMPLES = 16
"""For the search; the recording has the configuration's."""
ROUNDS = 4


def main(config: str, folder: str, overrides: Sequence[str]) -> None:
    given = load(RunConfig, config, overrides)
    target = strength(prepare(given, store="unused.zarr"))
    print(f"target: effective strength {target:.4f}")
    for name in given.stabilizers:
        path = str(Path(folder) / f"{name}.zarr")
        scale = given.guidance.guidance_scale[0]
        run = at_scale(given, name, scale, path)
        for _ in range(ROUNDS):
            reached = strength(run)
            scale *= target / reached
            run = at_scale(given, name, scale, path)
        print(f"{name}: guidance_scale {scale:.4g}, effective strength {strength(run):.4f}")
        record_run(run, overwrite=True, command=sys.argv)


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
