"""A run: configuration -> models and grid -> sampler and probes, cell by cell -> store."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from gradscope import execution
from gradscope.compression import choose_codec
from gradscope.config import RunConfig, TimmClassifier
from gradscope.device import set_device
from gradscope.errors import GradscopeError
from gradscope.guidance import ClassifierGuidance
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.models.diffusion import Denoiser, load_denoiser
from gradscope.probe_loading import check_attaching, load_probes
from gradscope.provenance import provenance
from gradscope.recorder import BlockRecorder, make_schema, with_finite_fraction
from gradscope.resuming import advice, resumption
from gradscope.sampler import GuidedSampler, image_shape, refuse_conditional, sample_seeds
from gradscope.schedule import SCHEDULERS, Schedule, refuse_inexact
from gradscope.smoothgrad import SmoothGrad
from gradscope.stabilizers import Stabilizer, build
from gradscope.store import Grid, Schema
from gradscope.store.creation import refuse_path
from gradscope.store.location import Location, locate
from gradscope.store.progress import unfinished
from gradscope.store.session import begin, recording
from probes import GuidedStep, Probe

Cell = tuple[int, ...]
OnStep = Callable[[Cell, GuidedStep], None]


@dataclass(frozen=True)
class Run:
    """A checked configuration with everything loaded, ready to be recorded."""

    config: RunConfig
    device: torch.device
    denoiser: Denoiser
    classifiers: dict[str, Classifier]
    stabilizers: dict[str, Stabilizer]
    probes: tuple[Probe, ...]
    references: dict[str, Classifier]
    """Classifiers of the probes, by their configuration key."""
    grid: Grid
    codec: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their indices where no classifier's card names them."""
        first = next(iter(self.classifiers.values()))
        named = next((c.classes for c in self.classifiers.values() if c.classes), None)
        return named or tuple(str(k) for k in range(first.num_classes))

    @property
    def schema(self) -> Schema:
        settings = self.config.recording
        schema = make_schema(
            self.grid,
            self.probes,
            tensor_samples=settings.tensor_samples,
            tensor_every=settings.tensor_every,
            dtype=settings.dtype,
            codec=self.codec,
        )
        return replace(schema, sharded=locate(settings.path).path is None)

    def cells(self) -> Iterator[tuple[int, ...]]:
        """Indices of every cell, the last dimension fastest."""
        return product(*(range(n) for n in self.grid.cells))

    def sampler(self, cell: tuple[int, ...]) -> GuidedSampler:
        """The guided sampler of one cell."""
        settings = self.config.guidance
        guidance = ClassifierGuidance(
            self.classifiers[self.grid.classifier[cell[0]]].module,
            classifier_input=settings.classifier_input[cell[1]],
            guidance_scale=self.grid.guidance_scale[cell[3]],
            objective=settings.objective,
            normalize=settings.normalize,
            weight=settings.weight,
            interval=None if settings.interval is None else (settings.interval[0], settings.interval[1]),
            smoothgrad=None if settings.smoothgrad is None else SmoothGrad(**dict(settings.smoothgrad)),
        )
        stabilizer = self.stabilizers[self.grid.stabilizer[cell[2]]]
        autocast = execution.autocast(self.config.execution)
        return GuidedSampler(self.denoiser.unet, self.denoiser.scheduler, guidance, stabilizer, autocast)


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
    """What `execution` changed, see `gradscope.execution.Deviation`, by classifier and its input."""


def prepare(
    config: RunConfig, device: str = "auto", store: str | None = None, overwrite: bool = False, resume: bool = False
) -> Run:
    """Load and check everything that a run needs, before anything is computed or written.

    Parameters
    ----------
    config
        What to record.
    device
        See `gradscope.device.set_device`.
    store
        Where, in place of ``recording.path``.
    overwrite, resume
        What may be there: any store, or the one of this run.

    Raises
    ------
    GradscopeError
        Naming the configuration's key, what was got and what is possible.
    """
    if store is not None:
        config = config.model_copy(update={"recording": config.recording.model_copy(update={"path": store})})
    if not resume:
        refuse_path(config.recording.path, overwrite)
    stabilizers = {name: build(name, settings) for name, settings in config.stabilizers.items()}
    torch_device = set_device(device)
    denoiser = load_denoiser(config.denoiser, torch_device)
    refuse_conditional(denoiser.unet)
    scheduler = SCHEDULERS[config.sampling.scheduler].from_config(denoiser.scheduler.config)
    refuse_inexact(scheduler)
    denoiser = replace(denoiser, scheduler=scheduler)
    shape = image_shape(denoiser.unet)
    classifiers = {
        name: load_classifier(spec, f"classifiers.{name}", shape, torch_device)
        for name, spec in config.classifiers.items()
    }
    probes, references = _load_probes(config, denoiser, classifiers, torch_device)
    check_classes({f"classifiers.{name}": classifier for name, classifier in classifiers.items()} | references)
    grid = _grid(config, denoiser, next(iter(classifiers.values())).num_classes)
    codec = "none" if config.recording.codec == "auto" else config.recording.codec
    execution.set_up(config.execution, denoiser.unet, [c.module for c in classifiers.values()])
    probes = with_finite_fraction(probes)
    run = Run(config, torch_device, denoiser, classifiers, stabilizers, probes, references, grid, codec)
    for cell in run.cells():
        run.sampler(cell)  # refuses what cannot be combined,
    _ = run.schema  # and this, two probes of one name
    return run


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
    begin(location, _with_codec(run).schema, origin | {"deviation": deviation}, overwrite)
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


def check_classes(classifiers: dict[str, Classifier]) -> None:
    """Refuse classifiers, by configuration key, that do not agree in their classes."""
    (first, reference), *others = classifiers.items()
    for key, classifier in others:
        if classifier.num_classes != reference.num_classes:
            raise GradscopeError(
                f"{key}: has {classifier.num_classes} classes, {first} has {reference.num_classes}; they must agree"
            )
        if classifier.classes and reference.classes and classifier.classes != reference.classes:
            raise GradscopeError(
                f"{key}: its classes are {list(classifier.classes)}, those of {first} {list(reference.classes)}"
            )


def _load_probes(
    config: RunConfig, denoiser: Denoiser, classifiers: dict[str, Classifier], device: torch.device
) -> tuple[tuple[Probe, ...], dict[str, Classifier]]:
    """The probes, checked to fit every classifier, and the classifiers that they bring, by configuration key."""
    references: dict[str, Classifier] = {}

    def load_module(spec: str | TimmClassifier, where: str) -> nn.Module:
        references[where] = load_classifier(spec, where, image_shape(denoiser.unet), device)
        return references[where].module

    probes: list[Probe] = []
    for entry in config.probes:
        probes += (loaded := load_probes(entry, load_module))
        name = entry if isinstance(entry, str) else next(iter(entry))
        for key, classifier in classifiers.items():
            modules = {"classifier": classifier.module, "unet": denoiser.unet}
            check_attaching(loaded, modules, f"probes.{name}, at classifiers.{key}")
    return tuple(probes), references


def _grid(config: RunConfig, denoiser: Denoiser, num_classes: int) -> Grid:
    sampling = config.sampling
    schedule = Schedule(denoiser.scheduler, sampling.num_inference_steps)
    wanted = list(range(num_classes)) if sampling.labels == "cycle" else sampling.labels
    outside = [label for label in wanted if not 0 <= label < num_classes]
    if outside:
        raise GradscopeError(f"sampling.labels: the classifiers have classes 0 to {num_classes - 1}, got {outside[0]}")
    return Grid(
        classifier=tuple(config.classifiers),
        classifier_input=tuple(config.guidance.classifier_input),
        stabilizer=tuple(config.stabilizers),
        guidance_scale=tuple(config.guidance.guidance_scale),
        label=np.resize(wanted, sampling.samples),
        seed=sample_seeds(sampling.seed, range(sampling.samples)),
        image_shape=image_shape(denoiser.unet),
        batch_size=sampling.batch_size,
        **schedule.coordinates(),
    )


def _with_codec(run: Run) -> Run:
    """Settle ``codec: auto`` by a trial on the first real gradients."""
    if run.config.recording.codec != "auto" or not run.schema.tensors:
        return run
    sampler = run.sampler((0, 0, 0, 0))
    labels = run.grid.label[: min(8, run.grid.samples)].tolist()
    steps = sampler.steps(labels, run.config.sampling.num_inference_steps, run.config.sampling.seed)
    gradient = next(steps).gradient.to(getattr(torch, run.config.recording.dtype)).cpu().numpy()
    steps.close()
    return replace(run, codec=choose_codec(gradient))


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
    models = {"denoiser": run.denoiser.unet} | {f"classifiers.{k}": c.module for k, c in run.classifiers.items()}
    models |= {key: reference.module for key, reference in run.references.items()}
    config = run.config.model_dump(mode="json")
    return provenance(config, run.config.hash(), models, run.classes, run.device, command)


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
