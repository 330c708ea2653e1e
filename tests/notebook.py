"""Code of a notebook that records a sampler, with probes that may have faults."""

import re
from pathlib import Path

import numpy as np
import torch

import gradscope
from gradscope import Recorder
from gradscope.store import Grid
from probes import Belief, Cosine, GuidedStep, Norm, Probe, Tensor, Variable

FLAG = re.compile(r"(?<![\w-])--[a-z]")
PROBES = [Tensor("gradient"), Norm("gradient"), Cosine("gradient"), Belief()]
LABELS = [0, 1, 2, 3, 0]


class Peak(Probe):
    """The probe of README, with a fault."""

    variables = (Variable("gradient_peak", "largest magnitude of the gradient", "max|g_t|"),)

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def init(self):
        return 0

    def measure(self, step, state):
        if self.fault == "first" or (self.fault == "second" and step.step == 1):
            raise RuntimeError("my own mistake")
        peak = step.gradient.abs().flatten(1).amax(dim=1)
        if self.fault == "shape":
            peak = peak[:, None]
        if self.fault == "kind":
            peak = peak.tolist()
        return {"gradient_peek" if self.fault == "name" else "gradient_peak": peak}, state + 1


def cell(path, sampler, probes, labels=LABELS, **options):
    """The notebook's code."""
    with gradscope.record(sampler, path, probes, classifier_name="mine", **options) as recorder:
        return recorder.sample(labels, num_inference_steps=4, seed=0, batch_size=2)


def own_loop(path: Path, probes: list[Probe], shape=(2, 1, 4, 4), **fields) -> None:
    grid = Grid(
        ("mine",), ("x_t",), ("none",), (1.0,), np.array([0, 1]), np.array([5, 6]), timestep=np.array([2, 1, 0]),
        alphas_cumprod=np.ones(3), sigma=np.ones(3), sample_shape=(1, 4, 4), batch_size=2,
    )  # fmt: skip
    with Recorder(path, grid, probes, device=torch.device("cpu")) as recorder:
        assert recorder.finished.shape == (1, 1, 1, 1, 1)
        assert not recorder.finished.any()
        hook = recorder.trajectory((0, 0, 0, 0), 0)
        for i in range(3):
            g = torch.randn(*shape)
            hook(GuidedStep(step=i, timestep=2 - i, x_t=g, gradient=g, prev_sample=g, **fields))
