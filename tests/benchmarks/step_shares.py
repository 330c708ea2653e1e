"""The parts of a recorded step by time; each part is waited for, so that none hides behind another."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sampling
import torch
from measure import Work
from torch import Tensor, nn

PARTS = (
    "U-Net forward",
    "U-Net backward",
    "classifier forward",
    "classifier backward",
    "probes",
    "copy",
    "stall",
    "other",
)
STEPS = 10


def shares(**options: Any) -> Work:
    """Share of each of `PARTS` in recorded steps, step by step; the options are those of `sampling.run_of`."""

    def work() -> list[dict[str, float]]:
        run = sampling.run_of(**options)
        clock = _Clock(run.device)
        sampler = run.sampler((0, 0, 0, 0))
        recorder = sampling.recorder_of(run, Path(run.config.recording.path))

        def timed_put(values: Any) -> Any:
            with clock.part("copy"):
                return put(values)

        with (
            recorder,
            clock.watching(sampler.unet, "U-Net"),
            clock.watching(sampler.guidance.classifier, "classifier"),
        ):
            trajectory = recorder.trajectory((0, 0, 0, 0), 0)
            taken = sampler.steps(run.grid.label.tolist(), run.grid.timesteps)
            for _ in range(sampling.AHEAD):
                trajectory(next(taken))
            put, recorder.ring.put = recorder.ring.put, timed_put  # type: ignore[method-assign]
            found = []
            for _ in range(STEPS):
                clock.seconds.clear()
                stalled, start = recorder.ring.stalled, clock.now()
                step = next(taken)
                with clock.part("probes"):
                    trajectory(step)
                total, parts = clock.now() - start, clock.seconds
                parts["stall"] = recorder.ring.stalled - stalled
                parts["probes"] -= parts["copy"]
                parts["copy"] -= parts["stall"]
                parts["other"] = total - sum(parts.values())
                found.append({part: parts[part] / total for part in PARTS})
        return found

    return work


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._backward = 0.0

    def now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    @contextmanager
    def watching(self, module: nn.Module, name: str) -> Iterator[None]:
        """Time the forward and the backward pass of a module.

        A backward pass ends with the gradient at the module's input. The classifier's begins at the end of its forward
        pass, the U-Net's at the end of the classifier's backward pass.
        """
        began = 0.0

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal began
            began = self.now()

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            end = self.now()
            self.seconds[f"{name} forward"] += end - began
            if name == "classifier":
                self._backward = end
            if torch.is_grad_enabled() and inputs[0].requires_grad:
                inputs[0].register_hook(arrived)

        def arrived(gradient: Tensor) -> None:
            now = self.now()
            self.seconds[f"{name} backward"] += now - self._backward
            self._backward = now

        handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
