"""Record a run into its store, cell by cell and block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch

from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.recording.block_recorder import BlockRecorder
from gradscope.recording.codec import choose_codec
from gradscope.recording.prepare import Run
from gradscope.recording.provenance import provenance
from gradscope.recording.rehearsal import rehearsed
from gradscope.recording.resume import advice, resumption
from gradscope.recording.units import Cell, Unit, record_unit, units
from gradscope.sampling import execution
from gradscope.sampling.sampler import GuidedSampler
from gradscope.store.locations.location import Location, locate
from gradscope.store.progress import unfinished
from gradscope.store.session import begin, recording
from probes import GuidedStep

OnStep = Callable[[Cell, GuidedStep], None]


@dataclass(frozen=True)
class Outcome:
    """What was recorded, and how fast it was written."""

    path: str
    bytes: int
    write_seconds: float
    stalled: float
    nonfinite: tuple[str, ...]
    """Messages that say where gradients were not finite."""
    deviation: dict[str, dict[str, float]]
    """By classifier and input: deviation caused by ``execution``, see `gradscope.sampling.execution.Deviation`."""


def record_run(
    run: Run,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stop_on_nonfinite: bool = False,
    on_step: OnStep = lambda cell, step: None,
    command: Sequence[str] = (),
) -> Outcome:
    """Record every cell of a run into a new store, or the blocks that an interrupted run left out.

    Blocks that are complete are kept; all others are recorded again from their first step. An error gets a note with
    the number of recorded blocks.

    Parameters
    ----------
    run
        The run, as `prepare` returned it.
    overwrite
        Replace a store that exists at the path.
    resume
        Resume the store of this run.
    stop_on_nonfinite
        Raise `NonFiniteGradient` at the first gradient that is not finite.
    on_step
        Called after each step with the cell and the `GuidedStep`.
    command
        The command line, kept as an attribute of the store.

    Raises
    ------
    GradscopeError
        The store cannot be created, resumed or written; there is not enough memory; or (`NonFiniteGradient`) a gradient
        was not finite and `stop_on_nonfinite` is set.
    """
    location = locate(run.config.recording.path)
    deviation = begin_run(run, location, overwrite=overwrite, resume=resume, command=command)
    with recording(location, advice(location)), block_recorder(run, location, stop_on_nonfinite) as recorder:
        for unit in units(unfinished(location), run.schema, run.probes):
            record_cells(run, recorder, unit, on_step)
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
    """Create the store of a run, or check that an existing one is of this run; return `Outcome.deviation`."""
    origin, durable = _provenance(run, command), run.config.recording.durable
    if resume:
        begin(location, run.schema, resumption(location, origin), resume=True, durable=durable)
        return {}
    deviation = _deviation(run)
    gradient = _rehearsed(run)
    about = origin | {"deviation": deviation}
    begin(location, _with_codec(run, gradient).schema, about, overwrite, durable=durable)
    return deviation


def block_recorder(run: Run, location: Location, stop_on_nonfinite: bool = False) -> BlockRecorder:
    """The recorder of a run's blocks."""
    return BlockRecorder(
        location,
        run.schema,
        run.probes,
        device=run.device,
        stop_on_nonfinite=stop_on_nonfinite,
        durable=run.config.recording.durable,
    )


def record_cells(run: Run, recorder: BlockRecorder, unit: Unit, on_step: OnStep = lambda cell, step: None) -> None:
    """Sample and record one unit."""
    sampling = run.config.sampling
    try:
        record_unit(
            unit,
            run.sampler,
            recorder,
            sampling.num_inference_steps,
            sampling.seed,
            lambda cell: partial(on_step, cell),
        )
    except torch.OutOfMemoryError as error:
        labels = run.grid.label[: run.grid.block].tolist()
        raise GradscopeError(_out_of_memory(run.sampler(unit.cells[0]), labels, run.config)) from error


def _rehearsed(run: Run) -> torch.Tensor:
    """Take and measure the first step with each classifier and input, to raise errors before a store is created.

    Returns the gradients of the last of these steps, ``(n, *sample)``.
    """
    labels, sampling = run.grid.label[: run.grid.block].tolist(), run.config.sampling
    for i, j in product(*map(range, run.grid.cells[:2])):
        sampler = run.sampler((i, j, 0, 0))
        try:
            step = rehearsed(sampler, run.probes, labels, sampling.num_inference_steps, sampling.seed)
        except torch.OutOfMemoryError as error:
            raise GradscopeError(_out_of_memory(sampler, labels, run.config)) from error
    return step.gradient


def _with_codec(run: Run, gradient: torch.Tensor) -> Run:
    """Replace ``codec: auto`` by the codec that a trial on real gradients chooses."""
    if run.config.recording.codec != "auto" or not run.schema.tensors:
        return run
    return replace(run, codec=choose_codec(gradient, run.config.recording.dtype))


def _deviation(run: Run) -> dict[str, dict[str, float]]:
    """The deviation caused by ``execution``, by classifier and input; empty if it changes nothing."""
    settings, found = run.config.execution, {}
    if execution.is_exact(settings):
        return {}
    for i, j in product(*map(range, run.grid.cells[:2])):
        name = f"{run.grid.classifier[i]}, {run.grid.classifier_input[j]}"
        deviation = execution.deviation(run.sampler((i, j, 0, 0)), run.grid.label.tolist(), run.config.sampling.seed)
        if not deviation.gradient <= settings.tolerance:
            raise GradscopeError(
                f"execution.tolerance: the gradient of {name} is off by {deviation.gradient:.2g} of its norm, more "
                f"than {settings.tolerance:g}; set execution.autocast=none and execution.compile=false, or raise the "
                "tolerance"
            )
        found[name] = deviation._asdict()
    return found


def _provenance(run: Run, command: Sequence[str]) -> dict[str, Any]:
    config = run.config.model_dump(mode="json")
    return provenance(config, run.denoiser.scheduler, run.models, run.classes, run.device, command)


def _out_of_memory(sampler: GuidedSampler, labels: list[int], config: RunConfig) -> str:
    """Try single steps with smaller and smaller blocks; return a message that says which size fits."""
    size = len(labels) // 2
    while size >= 1:
        try:
            next(sampler.steps(labels[:size], config.sampling.num_inference_steps))
            break
        except torch.OutOfMemoryError:
            size //= 2
    detached = "; x0_detached instead of x0 needs no backward pass through the denoiser"
    fits = f"a step of {size} fits: --set sampling.batch_size={size}" if size else "not even one sample fits"
    through_denoiser = sampler.guidance.classifier_input == "x0"
    return f"sampling.batch_size: out of memory at {len(labels)} samples; {fits}{detached if through_denoiser else ''}"
