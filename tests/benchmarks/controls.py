"""Recording both.yaml with its controls together, as `gradscope record` does, beside cell after cell."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from measure import Case, Extent, Result, Work, interleaved, judged, ratios

from gradscope.config import RunConfig
from gradscope.config.loading import load
from gradscope.recording import run as recording
from gradscope.recording.prepare import prepare
from gradscope.recording.units import Unit


def results(extent: Extent) -> Iterator[Result]:
    """A whole run, whose cells at scale 0 share one trajectory."""
    options = {"samples": extent.size(8, 2), "steps": extent.size(10, 2), "device": extent.device}
    cases = {name: Case("controls:both", {**options, "together": name == "together"}) for name in ("together", "alone")}
    found = interleaved(cases, min(3, extent.rounds))
    what = "both.yaml, its controls together / cell after cell"
    yield judged(what, ratios(found["together"], found["alone"]), "<= 0.6")


def both(together: bool, samples: int, steps: int, device: str) -> Work:
    """Recording every cell of both.yaml, cut down, from the first block to the last byte; without the evaluation."""
    torch.set_flush_denormal(True)
    folder = tempfile.TemporaryDirectory()

    def alone(left, schema, probes):
        return [Unit((cell,), block) for cell, block in left]

    def work() -> float:
        settings = [
            f"sampling.samples={samples}",
            f"sampling.batch_size={samples}",
            f"sampling.num_inference_steps={steps}",
            f"recording.path={Path(folder.name) / 'run.zarr'}",
        ]
        run = prepare(load(RunConfig, "both.yaml", settings), device, overwrite=True)
        start = time.perf_counter()
        with patch.object(recording, "units", recording.units if together else alone):
            recording.record_run(run, overwrite=True)
        return time.perf_counter() - start

    return work
