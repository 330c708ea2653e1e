"""Small things that a user does with a store, each with the state before it, and what is done after an interruption."""

import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import watched_loops
from diffusers import DDPMScheduler
from small_models import LinearClassifier, ZeroUNet
from torch import nn

import gradscope
from gradscope.cli import record_workflow
from gradscope.cli.record_workflow import Request
from gradscope.config import RunConfig, check
from gradscope.errors import GradscopeWarning
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import Evaluators, Settings, load_evaluators
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store

STORE = "run.zarr"
NEW_SEED = 7
_SETTINGS: dict[str, Any] = {
    "denoiser": "crash.workloads:denoiser",
    "classifiers": {"guide": "crash.workloads:guide"},
    "judge": "crash.workloads:judge",
    "guidance": {"classifier_input": ["x_t"], "guidance_scale": [0.4]},
    "stabilizers": {"none": {}},
    "probes": ["gradient", "norms"],
    "evaluation": {"replicates": 2},
}
_SAMPLING = {"num_inference_steps": 3, "samples": 4, "batch_size": 2}


def denoiser() -> tuple[nn.Module, Any]:
    """A denoiser that predicts no noise, and its scheduler."""
    return ZeroUNet(), DDPMScheduler()


def guide() -> nn.Module:
    """The classifier that guides."""
    torch.manual_seed(1)
    return LinearClassifier(gain=2.0)


def judge(seed: int = 2) -> nn.Module:
    """A classifier that judges."""
    torch.manual_seed(seed)
    return LinearClassifier()


def other_judge() -> nn.Module:
    """Another one."""
    return judge(3)


def _config(home: Path, durable: bool, seed: int, codec: str = "none") -> RunConfig:
    recording = {"path": str(home / STORE), "codec": codec, "tensor_samples": 3, "durable": durable}
    return check(RunConfig, _SETTINGS | {"sampling": _SAMPLING | {"seed": seed}, "recording": recording}, "crash")


def record(
    home: Path,
    *,
    durable: bool = False,
    seed: int = 0,
    codec: str = "none",
    resume: bool = False,
    overwrite: bool = False,
    steps: int = 99,
) -> None:
    """Record and judge, as `gradscope record` does; an interruption comes after `steps` steps."""
    config, left = _config(home, durable, seed, codec), iter(range(steps))

    def on_step(*_: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    prepared = prepare(config, "cpu", resume=resume, overwrite=overwrite)
    settings = Settings(judge=config.judge, evaluation=config.evaluation)
    evaluators = Evaluators(settings, prepared.classifiers, load_judge(prepared))
    outcome = record_run(prepared, resume=resume, overwrite=overwrite, on_step=on_step)
    evaluate_store(outcome.path, evaluators, prepared.device)


def go_on(home: Path, **settings: Any) -> None:
    """Resume an interrupted recording by ``gradscope record --resume``, or record if there is no store."""
    if not (home / STORE).exists():
        record(home, **settings)
        return
    request = Request(None, str(home / STORE), None, (), "cpu", False, False, None, None)
    with redirect_stdout(StringIO()), patch.object(record_workflow, "_print_outcome"):  # tables take half of the time
        record_workflow.run(request)


def overwrite(home: Path) -> None:
    """Resume the new store if the earlier one has been replaced already, else replace it."""
    configuration = open_store(home / STORE).attrs["configuration"]
    if json.loads(configuration)["sampling"]["seed"] == NEW_SEED:
        go_on(home)
    else:
        record(home, seed=NEW_SEED, overwrite=True)


def evaluate(home: Path) -> None:
    """Evaluate with another judge, as `gradscope evaluate` does."""
    cpu = torch.device("cpu")
    overrides = ["judge=crash.workloads:other_judge"]
    evaluators = load_evaluators(open_store(home / STORE), overrides, cpu, lambda text: None)
    evaluate_store(home / STORE, evaluators, cpu)


def interrupted(home: Path, durable: bool = False) -> None:
    """A recording that was interrupted in its second block."""
    with suppress(KeyboardInterrupt):
        record(home, durable=durable, steps=4)


def watch(home: Path) -> None:
    """Watch a loop in two cells, of which the second makes the store grow; what fails is an error."""
    loop = watched_loops.Plain(steps=2)
    loop.unet = loop.watched["denoiser"] = _Plain()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradscopeWarning)
        with gradscope.watch(home / STORE, **loop.watched, probes=["gradient", "norms"], overwrite=True) as watched:
            for scale in (0.5, 3.0):
                loop.scale = scale
                with watched.cell(guidance_scale=scale):
                    watched.final(loop(watched_loops.LABELS[:2])[0])


class _Plain(nn.Module):
    """A denoiser whose output has the form of a U-Net's of diffusers."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=x * 0.1)


@dataclass(frozen=True)
class Workload:
    """Something that a user does, and does again or goes on with after an interruption."""

    act: Callable[[Path], None]
    redo: Callable[[Path], None]
    before: Callable[[Path], None] = lambda home: None
    durable: bool = False
    """Whether it is to survive a power failure."""
    flush_seconds: float | None = None
    alike: str = ""
    """Another workload that creates its store in the same way, so that calls need not fail there a second time."""


_DURABLE = partial(record, durable=True)
_GO_ON_LZ4 = partial(go_on, codec="lz4")

WORKLOADS = {
    "record": Workload(record, go_on),
    "record, durable": Workload(_DURABLE, go_on, durable=True),
    "record, each step flushed": Workload(record, go_on, flush_seconds=0.0, alike="record"),
    "record, each step flushed, durable": Workload(
        _DURABLE, go_on, durable=True, flush_seconds=0.0, alike="record, durable"
    ),
    "record, each step flushed, lz4": Workload(
        partial(record, codec="lz4"), _GO_ON_LZ4, flush_seconds=0.0, alike="record"
    ),
    "record, each step flushed, durable, lz4": Workload(
        partial(_DURABLE, codec="lz4"), _GO_ON_LZ4, durable=True, flush_seconds=0.0, alike="record, durable"
    ),
    "resume": Workload(go_on, go_on, interrupted),
    "resume, durable": Workload(go_on, go_on, partial(interrupted, durable=True), durable=True),
    "evaluate": Workload(evaluate, evaluate, record, durable=True),
    "overwrite": Workload(partial(record, seed=NEW_SEED, overwrite=True), overwrite, record),
    "overwrite, durable": Workload(partial(_DURABLE, seed=NEW_SEED, overwrite=True), overwrite, record, durable=True),
    "watch": Workload(watch, watch),
}
