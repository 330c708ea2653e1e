"""A run into its store: begun, then block by block, sampler and probes of one cell at a time."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch

from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.models.foreign import failure
from gradscope.recording.codec import choose_codec
from gradscope.recording.measure import measured
from gradscope.recording.prepare import Run
from gradscope.recording.provenance import provenance
from gradscope.recording.recorder import BlockRecorder
from gradscope.recording.resume import advice, resumption
from gradscope.sampling import execution
from gradscope.sampling.sampler import GuidedSampler
from gradscope.store.locations.location import Location, locate
from gradscope.store.progress import unfinished
from gradscope.store.session import begin, recording
from probes import GuidedStep, attach_all

Cell = tuple[int, ...]
OnStep = Callable[[Cell, GuidedStep], None]


@dataclass(frozen=True)
class Outcome:
    """What a recording was like."""

    path: str
    bytes: int
    write_seconds: float
    stalled: float
    nonfinite: tuple[str, ...]
    """Where gradients were not finite, in words."""
    deviation: dict[str, dict[str, float]]
    """What `execution` changed, see `gradscope.sampling.execution.Deviation`, by classifier and its input."""


def record_run(
    run: Run,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stop_on_nonfinite: bool = False,
    on_step: OnStep = lambda cell, step: None,
    command: Sequence[str] = (),
) -> Outcome:
    """Record every cell of a run into a new store, or what a store of this run lacks.

    Blocks that are recorded from their first to their last step are kept; all others are recorded anew. What raises on
    the way has a note of how far it came.

    Raises
    ------
    GradscopeError
        The store cannot be made, continued or written, memory does not suffice, or (`NonFiniteGradient`) a gradient was
        not finite and `stop_on_nonfinite` is set.
    """
    location = locate(run.config.recording.path)
    deviation = begin_run(run, location, overwrite=overwrite, resume=resume, command=command)
    with recording(location, advice(location)), block_recorder(run, location, stop_on_nonfinite) as recorder:
        for cell, block in unfinished(location):
            record_block(run, recorder, cell, block, on_step)
    return Outcome(
        str(location),
        recorder.writer.bytes,
        recorder.writer.seconds,
        recorder.ring.stalled,
        tuple(recorder.describe(found) for found in recorder.nonfinite),
        deviation,
    )


def begin_run(
    run: Run, location: Location, *, overwrite: bool = False, resume: bool = False, command: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Make the store of a run, or see that it is this run's; gives what `execution` changed, see `Outcome`."""
    origin = _provenance(run, command)
    if resume:
        begin(location, run.schema, resumption(location, origin), resume=True)
        return {}
    deviation = _deviation(run)
    gradient = _rehearsed(run)
    begin(location, _with_codec(run, gradient).schema, origin | {"deviation": deviation}, overwrite)
    return deviation


def block_recorder(run: Run, location: Location, stop_on_nonfinite: bool = False) -> BlockRecorder:
    """What records blocks of a run into its store."""
    return BlockRecorder(
        location,
        run.schema,
        run.probes,
        device=run.device,
        stop_on_nonfinite=stop_on_nonfinite,
        durable=run.config.recording.durable,
    )


def record_block(
    run: Run, recorder: BlockRecorder, cell: Cell, block: int, on_step: OnStep = lambda cell, step: None
) -> None:
    """Sample and record one block of one cell."""
    sampling, sampler = run.config.sampling, run.sampler(cell)
    first = block * run.grid.block
    labels = run.grid.label[first : first + run.grid.block].tolist()
    with ExitStack() as hooks:
        hooks.enter_context(sampler.register_step_hook(recorder.trajectory(cell, first)))
        hooks.enter_context(sampler.register_step_hook(partial(on_step, cell)))
        try:
            sampler.sample(labels, sampling.num_inference_steps, sampling.seed, first)
        except torch.OutOfMemoryError as error:
            raise GradscopeError(_out_of_memory(sampler, labels, run.config)) from error


def _rehearsed(run: Run) -> torch.Tensor:
    """Take and measure the first step of each classifier and input: what fails there, fails before there is a store.

    Gives the gradients of the last one, ``(n, channel, height, width)``.
    """
    labels = run.grid.label[: run.grid.block].tolist()
    for i, j in product(*map(range, run.grid.cells[:2])):
        sampler = run.sampler((i, j, 0, 0))
        with closing(sampler.steps(labels, run.config.sampling.num_inference_steps, run.config.sampling.seed)) as steps:
            try:
                with attach_all(run.probes, sampler.modules):
                    step = next(steps)
            except torch.OutOfMemoryError as error:
                raise GradscopeError(_out_of_memory(sampler, labels, run.config)) from error
        try:
            measured(run.probes, step, [probe.init() for probe in run.probes])
        except GradscopeError:
            raise
        except Exception as error:  # of a probe of the user's own
            raise failure("measuring the first step", "probes", error) from error
    return step.gradient


def _with_codec(run: Run, gradient: torch.Tensor) -> Run:
    """Settle ``codec: auto`` by a trial on real gradients."""
    if run.config.recording.codec != "auto" or not run.schema.tensors:
        return run
    stored = gradient[:8].to(getattr(torch, run.config.recording.dtype)).cpu().numpy()
    return replace(run, codec=choose_codec(stored))


def _deviation(run: Run) -> dict[str, dict[str, float]]:
    """What `execution` changes, by classifier and its input; empty where the models run as they are."""
    settings, found = run.config.execution, {}
    if execution.is_exact(settings):
        return {}
    for i, j in product(*map(range, run.grid.cells[:2])):
        name = f"{run.grid.classifier[i]}, {run.grid.classifier_input[j]}"
        deviation = execution.deviation(run.sampler((i, j, 0, 0)), run.grid.label.tolist(), run.config.sampling.seed)
        if not deviation.gradient <= settings.tolerance:
            raise GradscopeError(
                f"execution.tolerance: the gradient of {name} is off by {deviation.gradient:.2g} of its norm, more "
                f"than {settings.tolerance:g}; run it as it is (execution.autocast=none, execution.compile=false), or "
                "raise the tolerance"
            )
        found[name] = deviation._asdict()
    return found


def _provenance(run: Run, command: Sequence[str]) -> dict[str, Any]:
    config = run.config.model_dump(mode="json")
    return provenance(config, run.denoiser.scheduler, run.models, run.classes, run.device, command)


def _out_of_memory(sampler: GuidedSampler, labels: list[int], config: RunConfig) -> str:
    """Try single steps of ever smaller blocks, and say which one fits."""
    size = len(labels) // 2
    while size >= 1:
        try:
            next(sampler.steps(labels[:size], config.sampling.num_inference_steps))
            break
        except torch.OutOfMemoryError:
            size //= 2
    detached = "; x0_detached instead of x0 needs no backward pass through the U-Net"
    fits = f"a step of {size} fits: --set sampling.batch_size={size}" if size else "not even one sample fits"
    through_unet = sampler.guidance.classifier_input == "x0"
    return f"sampling.batch_size: out of memory at {len(labels)} samples; {fits}{detached if through_unet else ''}"
