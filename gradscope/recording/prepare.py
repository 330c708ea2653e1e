"""Load and check a configuration: models, stabilisers, probes, and the grid of the run."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import nn

from gradscope.config import ModuleClassifier, RunConfig, SamplingConfig, TimmClassifier
from gradscope.errors import GradscopeError
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.models.decoder import shape_of_images
from gradscope.models.device import set_device
from gradscope.models.diffusion import Denoiser, load_denoiser
from gradscope.models.schedulers import make_scheduler
from gradscope.recording.load_guides import Guide, load_guide
from gradscope.recording.load_methods import load_method
from gradscope.recording.load_probes import check_attaching, check_guide, load_probes
from gradscope.recording.load_stabilizers import load_stabilizer
from gradscope.recording.make_schema import make_schema, with_finite_fraction
from gradscope.sampling import execution
from gradscope.sampling.denoiser import Condition, refuse_unfit, sample_shape
from gradscope.sampling.guidance.checks import check_method
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.guidance.methods import Method
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import Schedule, learns_variance
from gradscope.sampling.sampler import GuidedSampler
from gradscope.sampling.seeds import sample_seeds
from gradscope.stabilizers import Stabilizer
from gradscope.store import Grid, Schema
from gradscope.store.creation import refuse_path, refuse_size
from gradscope.store.locations.location import locate
from probes import Probe


@dataclass(frozen=True)
class Run:
    """A checked configuration with everything loaded, ready to be recorded."""

    config: RunConfig
    device: torch.device
    denoiser: Denoiser
    guides: dict[str, Guide]
    method: Method
    stabilizers: dict[str, Stabilizer]
    probes: tuple[Probe, ...]
    references: dict[str, Classifier]
    """Classifiers that probes compare with, by configuration key."""
    grid: Grid
    codec: str

    @property
    def classifiers(self) -> dict[str, Classifier]:
        """The guides that are classifiers, by name."""
        return {name: guide.classifier for name, guide in self.guides.items() if guide.classifier is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their indices where no classifier's card names them; none without a classifier."""
        classifiers = list(classifiers_of(self.guides).values())
        named = next((c.classes for c in classifiers if c.classes), None)
        return named or tuple(str(k) for k in range(classifiers[0].num_classes if classifiers else 0))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of what guides and the judge see."""
        return image_shape(self.denoiser, self.device)

    @property
    def models(self) -> dict[str, nn.Module]:
        """Every model, by its configuration key."""
        guides = {f"classifiers.{name}": guide.module for name, guide in self.guides.items()}
        decoder = {} if self.denoiser.decoder is None else {"decoder": self.denoiser.decoder}
        own = {"denoiser": self.denoiser.unet} | decoder
        return own | guides | {k: c.module for k, c in self.references.items()}

    @property
    def schema(self) -> Schema:
        """The arrays of the run's store."""
        settings = self.config.recording
        schema = make_schema(
            self.grid,
            self.probes,
            tensor_samples=settings.tensor_samples,
            tensor_every=settings.tensor_every,
            dtype=settings.dtype,
            codec=self.codec,
            picture_shape=None if self.denoiser.decoder is None else self.image_shape,
        )
        return replace(schema, sharded=locate(settings.path).path is None)

    def cells(self) -> Iterator[tuple[int, ...]]:
        """Indices of every cell, the last dimension fastest."""
        return product(*(range(n) for n in self.grid.cells))

    def sampler(self, cell: tuple[int, ...]) -> GuidedSampler:
        """The guided sampler of one cell."""
        settings = self.config.guidance
        guidance = ClassifierGuidance(
            self.guides[self.grid.classifier[cell[0]]].module,
            classifier_input=settings.classifier_input[cell[1]],
            guidance_scale=self.grid.guidance_scale[cell[3]],
            objective=settings.objective,
            normalize=settings.normalize,
            weight=settings.weight,
            interval=None if settings.interval is None else (settings.interval[0], settings.interval[1]),
            smoothgrad=None if settings.smoothgrad is None else SmoothGrad(**dict(settings.smoothgrad)),
            timestep_at_x0=settings.timestep_at_x0,
            method=self.method,
        )
        sampling = self.config.sampling
        return GuidedSampler(
            self.denoiser.unet,
            self.denoiser.scheduler,
            guidance,
            self.stabilizers[self.grid.stabilizer[cell[2]]],
            execution.autocast(self.config.execution),
            condition_of(sampling),
            sampling.eta,
            sampling.use_clipped_model_output,
            self.denoiser.decoder,
        )


def condition_of(sampling: SamplingConfig) -> Condition:
    """What the configuration tells a class-conditional denoiser."""
    return Condition(sampling.condition, sampling.null_label, sampling.classifier_free_scale)


def image_shape(denoiser: Denoiser, device: torch.device) -> tuple[int, ...]:
    """Shape of what guides and the judge see: a sample, or a decoded one."""
    shape = sample_shape(denoiser.unet)
    return shape if denoiser.decoder is None else shape_of_images(denoiser.decoder, shape, device)


def moved(config: RunConfig, path: str) -> RunConfig:
    """The configuration with another path for its store."""
    recording = config.recording.model_copy(update={"path": os.path.expanduser(path)})
    return config.model_copy(update={"recording": recording})


def prepare(
    config: RunConfig, device: str = "auto", store: str | None = None, overwrite: bool = False, resume: bool = False
) -> Run:
    """Load and check everything that a run needs, before anything is computed or written.

    Parameters
    ----------
    config
        What to record.
    device
        See `gradscope.models.device.set_device`.
    store
        Path of the store, in place of ``recording.path``.
    overwrite, resume
        Whether any store, or the store of this run, may exist at the path.

    Raises
    ------
    GradscopeError
        The configuration does not fit the models, or something cannot be loaded; the message names the key.
    """
    if store is not None:
        config = moved(config, store)
    if not resume:
        refuse_path(config.recording.path, overwrite)
    stabilizers = {name: load_stabilizer(name, settings) for name, settings in config.stabilizers.items()}
    method = load_method(config.guidance.method)
    check_method(method, config.guidance.classifier_input, config.guidance.smoothgrad is not None)
    torch_device = set_device(device)
    denoiser = load_denoiser(config.denoiser, torch_device)
    chosen = config.sampling.scheduler
    name, options = (chosen, {}) if isinstance(chosen, str) else next(iter(chosen.items()))
    denoiser = replace(denoiser, scheduler=make_scheduler(name, options, denoiser.scheduler))
    refuse_unfit(denoiser.unet, condition_of(config.sampling), learns_variance(denoiser.scheduler))
    shape = image_shape(denoiser, torch_device)
    guides = {
        name: load_guide(spec, f"classifiers.{name}", shape, torch_device) for name, spec in config.classifiers.items()
    }
    probes, references = _load_probes(config, denoiser, guides, torch_device)
    classifiers = classifiers_of(guides)
    check_classes(classifiers | references)
    grid = _grid(config, denoiser, method, next((c.num_classes for c in classifiers.values()), None))
    codec = "none" if config.recording.codec == "auto" else config.recording.codec
    execution.set_up(config.execution, denoiser.unet, [c.module for c in classifiers.values()])
    probes = with_finite_fraction(probes)
    run = Run(config, torch_device, denoiser, guides, method, stabilizers, probes, references, grid, codec)
    for cell in run.cells():
        run.sampler(cell).schedule(config.sampling.num_inference_steps)  # raises if settings do not go together
    schema = run.schema  # raises if two probes record a variable of the same name
    if not resume:
        refuse_size(config.recording.path, schema)  # before seeds are computed for every sample
    seeds = sample_seeds(config.sampling.seed, range(config.sampling.samples))
    return replace(run, grid=replace(grid, seed=seeds))


def classifiers_of(guides: dict[str, Guide]) -> dict[str, Classifier]:
    """Every classifier in the guides, by configuration key."""
    return {key: classifier for guide in guides.values() for key, classifier in guide.classifiers.items()}


def check_classes(classifiers: dict[str, Classifier]) -> None:
    """Raise GradscopeError if classifiers, given by configuration key, have different classes."""
    if not classifiers:
        return
    (first, reference), *others = classifiers.items()
    for key, classifier in others:
        if classifier.num_classes != reference.num_classes:
            raise GradscopeError(
                f"{key}: has {classifier.num_classes} classes, {first} has {reference.num_classes}; they must agree"
            )
        if classifier.classes and reference.classes and classifier.classes != reference.classes:
            raise GradscopeError(
                f"{key}: its classes are {list(classifier.classes)}, those of {first} are {list(reference.classes)}"
            )


def _load_probes(
    config: RunConfig, denoiser: Denoiser, guides: dict[str, Guide], device: torch.device
) -> tuple[tuple[Probe, ...], dict[str, Classifier]]:
    """Load the probes and check that they fit every guide; return also the probes' own classifiers, by key."""
    references: dict[str, Classifier] = {}

    def load_module(spec: str | TimmClassifier | ModuleClassifier, where: str) -> nn.Module:
        references[where] = load_classifier(spec, where, image_shape(denoiser, device), device)
        return references[where].module

    probes: list[Probe] = []
    for entry in config.probes:
        probes += (loaded := load_probes(entry, load_module))
        name = entry if isinstance(entry, str) else next(iter(entry))
        for key, guide in guides.items():
            modules = {"classifier": guide.module, "unet": denoiser.unet}
            check_guide(loaded, guide.module, f"classifiers.{key}", f"probes.{name}")
            check_attaching(loaded, modules, f"probes.{name}, at classifiers.{key}")
    return tuple(probes), references


def _grid(config: RunConfig, denoiser: Denoiser, method: Method, num_classes: int | None) -> Grid:
    """The grid; `num_classes` is None where no guide has classes."""
    sampling = config.sampling
    schedule = Schedule(
        denoiser.scheduler, sampling.num_inference_steps, sampling.eta, sampling.use_clipped_model_output
    )
    wanted = list(range(num_classes or 1)) if sampling.labels == "cycle" else sampling.labels
    outside = [label for label in wanted if label < 0 or (num_classes is not None and label >= num_classes)]
    if outside:
        possible = (
            "a class is at least 0" if num_classes is None else f"the classifiers have classes 0 to {num_classes - 1}"
        )
        raise GradscopeError(f"sampling.labels: {possible}, got {outside[0]}")
    times, repetitions = schedule.coordinates(), repetitions_of(method, schedule)
    return Grid(
        classifier=tuple(config.classifiers),
        classifier_input=tuple(config.guidance.classifier_input),
        stabilizer=tuple(config.stabilizers),
        guidance_scale=tuple(config.guidance.guidance_scale),
        label=np.resize(wanted, sampling.samples),
        seed=np.zeros(sampling.samples, np.int64),  # filled in last: a store that is too large is refused first
        sample_shape=sample_shape(denoiser.unet),
        sample_dims=tuple(config.recording.sample_dims or ()),
        batch_size=sampling.batch_size,
        repeats=max(repetitions, default=0),
        repetitions=repetitions,
        timestep=times["timestep"],
        alphas_cumprod=times["alphas_cumprod"],
        sigma=times["sigma"],
        signal=times["signal"],
        noise=times["noise"],
    )


def repetitions_of(method: Method, schedule: Schedule) -> tuple[int, ...]:
    """How often each timestep is taken; empty if the method repeats none."""
    counts = tuple(method.repeats(times) for times in schedule.times)
    return counts if max(counts) > 1 else ()
