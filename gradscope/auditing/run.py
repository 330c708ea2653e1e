"""The audit by configuration: check models and data, run the audit, save the result."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from diffusers import DDPMScheduler

from gradscope.auditing.audit import audit
from gradscope.auditing.unguided import STEPS, failures
from gradscope.config import AuditConfig
from gradscope.data import datasets
from gradscope.errors import GradscopeError, one_of
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.models.device import set_device
from gradscope.models.diffusion import Denoiser, load_denoiser
from gradscope.models.schedulers import make_scheduler
from gradscope.recording.provenance import provenance
from gradscope.sampling.denoiser import Condition, refuse_unfit, sample_shape
from gradscope.text import samples_of


def run_audit(
    config: AuditConfig,
    device: str = "auto",
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    command: Sequence[str] = (),
) -> xr.Dataset:
    """Load the models and images of a configuration and audit them, see `gradscope.auditing.audit.audit`.

    With a denoiser, ``failure_probability`` says for each classifier and input how probably guidance fails, see
    `gradscope.auditing.prediction`; the features of the rule are beside it. Attributes of the result hold the
    configuration, versions, device and hashes of the weights.

    Raises
    ------
    GradscopeError
        A model or the data cannot be loaded, or they do not fit each other; the error names the key.
    """
    where = set_device(device)
    data = datasets.load(config.data, "test")
    shape = (config.data.channels, config.data.size, config.data.size)
    denoiser = _denoiser(config, shape, where)
    classifiers = {
        name: load_classifier(spec, f"classifiers.{name}", shape, where) for name, spec in config.classifiers.items()
    }
    number = class_numbers(config.class_index, data.classes, classifiers)
    chosen = np.random.default_rng(config.seed).permutation(len(data))[: config.samples]
    images, labels = data.batch(chosen.tolist())
    modules = {name: classifier.module for name, classifier in classifiers.items()}
    scheduler = _scheduler(config) if denoiser is None else denoiser.scheduler
    steps = min(STEPS, scheduler.config.num_train_timesteps)
    progress = _Progress(on_step, 0 if denoiser is None else 2 * steps * len(modules))
    ds = audit(
        modules,
        images.to(where),
        number[labels].to(where),
        unet=None if denoiser is None else denoiser.unet,
        scheduler=scheduler,
        timesteps=config.timesteps,
        batch_size=config.batch_size,
        seed=config.seed,
        on_step=progress.audited,
    )
    if denoiser is not None:
        ds = ds.assign(failures(modules, denoiser, number.tolist(), steps, config.seed, progress.sampled))
    content = config.model_dump(mode="json")
    models = {f"classifiers.{name}": module for name, module in modules.items()}
    if denoiser is not None:
        models["denoiser"] = denoiser.unet
    return ds.assign_attrs(provenance(content, scheduler, models, data.classes, where, command))


class _Progress:
    """One count of the audit's steps and of those of the unguided trajectories after it."""

    def __init__(self, on_step: Callable[[int, int], None], further: int) -> None:
        self._on_step, self._further = on_step, further
        self._done = self._total = 0

    def audited(self, done: int, total: int) -> None:
        self._done, self._total = done, total + self._further
        self._on_step(self._done, self._total)

    def sampled(self) -> None:
        self._done += 1
        self._on_step(self._done, self._total)


def class_numbers(
    index: Mapping[str, int] | None, classes: Sequence[str], classifiers: Mapping[str, Classifier]
) -> torch.Tensor:
    """The classifiers' number of each class of the data, shape ``(classes,)``, int64.

    Raises
    ------
    GradscopeError
        `index` names wrong classes, a classifier lacks one, or without `index` the classes differ.
    """
    if index is None:
        for name, classifier in classifiers.items():
            _refuse_other_classes(name, classifier, classes)
        return torch.arange(len(classes))
    unknown = [name for name in index if name not in classes]
    if unknown:
        raise GradscopeError(f"class_index.{unknown[0]}: the data has no such class; {one_of(unknown[0], classes)}")
    missing = [name for name in classes if name not in index]
    if missing:
        raise GradscopeError(f"class_index: the data's class {missing[0]!r} is missing; got only {', '.join(index)}")
    for key, number in index.items():
        for name, classifier in classifiers.items():
            if number >= classifier.num_classes:
                raise GradscopeError(
                    f"class_index.{key}: classifiers.{name} has classes 0 to {classifier.num_classes - 1}, got {number}"
                )
    return torch.tensor([index[name] for name in classes])


def _refuse_other_classes(name: str, classifier: Classifier, classes: Sequence[str]) -> None:
    example = f"give its number of each class of the data, class_index: {{{classes[0]}: 0, ...}}"
    if classifier.num_classes != len(classes):
        raise GradscopeError(
            f"classifiers.{name}: has {classifier.num_classes} classes, but the data {len(classes)}; {example}"
        )
    if classifier.classes and tuple(classifier.classes) != tuple(classes):
        raise GradscopeError(
            f"classifiers.{name}: its classes are {list(classifier.classes)}, but those of the data {list(classes)}; "
            f"{example}"
        )


def _denoiser(config: AuditConfig, shape: tuple[int, int, int], device: torch.device) -> Denoiser | None:
    if config.denoiser == "none":
        return None
    if config.scheduler:
        raise GradscopeError("scheduler: the denoiser has its own; leave this key out, or set denoiser: none")
    denoiser = load_denoiser(config.denoiser, device)
    refuse_unfit(denoiser.unet, Condition(), learns_variance=False)
    made = sample_shape(denoiser.unet)
    if len(made) != 3:
        raise GradscopeError(
            f"denoiser: an audit noises images, but this denoiser makes {samples_of(made)}; a recorded run judges its "
            "guides (gradscope record)"
        )
    if made != shape:
        wanted, got = (" x ".join(map(str, sizes)) for sizes in (made, shape))
        raise GradscopeError(
            f"data.size: the denoiser makes images of {wanted} (channel, height, width), but the data has {got}"
        )
    scheduler = make_scheduler("ddpm", {}, denoiser.scheduler, "denoiser")
    return Denoiser(denoiser.unet, scheduler, denoiser.name)


def _scheduler(config: AuditConfig) -> DDPMScheduler:
    try:
        return DDPMScheduler(**config.scheduler)
    except Exception as error:
        raise GradscopeError(f"scheduler: diffusers refused these arguments: {error}") from error
