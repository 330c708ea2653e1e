"""Evaluation of a store from Python, with modules in place of a configuration's names."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
import xarray as xr
from torch import nn

from gradscope.config import RunConfig
from gradscope.errors import GradscopeError, one_of
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import (
    IN_PYTHON,
    Evaluators,
    Settings,
    guiding_classifiers,
    recorded_run,
    refuse_distances,
    settings_of,
    tell_what_is_missing,
)
from gradscope.evaluation.features import Features, load_extractor
from gradscope.models.calls import frozen
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.models.weights import state_hash
from gradscope.sampling.guidance.guides import without_logits
from gradscope.store import open_store
from gradscope.store.attributes import nested
from gradscope.store.dims import final_shape
from gradscope.store.locations.location import StorePath

Spec = str | Mapping[str, Any]
"""A classifier in the form of a configuration."""


def evaluate(
    path: StorePath,
    guide: nn.Module | Mapping[str, nn.Module] | None = None,
    *,
    judge: nn.Module | Spec | None = None,
    extractor: nn.Module | Spec | None = None,
    data: Mapping[str, Any] | None = None,
    samples: int | None = None,
    replicates: int | None = None,
    tell: Callable[[str], object] = print,
) -> xr.Dataset:
    """Judge a store's samples and compare them with real images, as `gradscope evaluate` does.

    Parameters
    ----------
    path
        A recorded store: a path or URL. The results are added to it, in place of an earlier evaluation.
    guide
        The classifier that guided, or several by their names in the store; gives ``own_accuracy``. A store that was
        recorded by configuration names its guides itself.
    judge
        A classifier that guided no sample: a module, or a value of the configuration's key `judge`. Default: the
        configuration's judge.
    extractor
        Features for distances: a module, or a value of the key `evaluation.extractor`.
    data
        Images that the samples are compared with: a value of the key `evaluation.data`, for example
        ``{"name": "image_folder", "path": "images", "size": 64}``.
    samples
        Largest number of these images, at least 4; default: 8192, or the configuration's.
    replicates
        Number of bootstrap replicates for intervals, at least 1; default: 200, or the configuration's.
    tell
        Called with each sentence that a reader of the numbers must know.

    Returns
    -------
    xarray.Dataset
        The store, opened again.

    Raises
    ------
    GradscopeError
        There is no store; modules, data and store do not fit each other; or `guide` has other weights than during the
        recording.

    Examples
    --------
    >>> ds = gradscope.evaluate("guided.zarr", guide=classifier, judge=another_classifier)
    no distances, no coverage: extractor=... and data=... gives them
    >>> ds.own_accuracy.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale')
    """
    ds = open_store(path)
    shape = final_shape(ds)
    run = recorded_run(ds)
    modules = [module for module in (*_named(guide, ds).values(), judge, extractor) if isinstance(module, nn.Module)]
    with ExitStack() as stack:
        stack.enter_context(frozen(*modules))
        device = next((p.device for module in modules for p in module.parameters()), torch.device("cpu"))
        of_images = {"extractor": plain(extractor), "data": data, "samples": samples, "replicates": replicates}
        settings = settings_of(ds, run, _content(plain(judge), of_images))
        refuse_distances(settings, shape)
        found = Evaluators(
            settings,
            _guides(ds, run, guide, shape, device),
            judge_of(judge, settings, shape, device),
            _extractor(extractor, settings, shape, device),
        )
        tell_what_is_missing(found, run, shape, IN_PYTHON, tell)
        evaluate_store(path, found, device, tell)
    return open_store(path)


def _content(judge: Any, of_images: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings in the form of a configuration."""
    evaluation = {name: value for name, value in of_images.items() if value is not None}
    return ({"judge": judge} if judge is not None else {}) | ({"evaluation": evaluation} if evaluation else {})


def plain(given: nn.Module | Spec | None) -> Any:
    """The value that is stored: for a module, its class."""
    if isinstance(given, nn.Module):
        return f"python:{type(given).__name__}"
    return dict(given) if isinstance(given, Mapping) else given


def _named(guide: nn.Module | Mapping[str, nn.Module] | None, ds: xr.Dataset) -> dict[str, nn.Module]:
    """The guides by their names in the store."""
    names = [str(name) for name in ds["classifier"].values]
    if guide is None:
        return {}
    if isinstance(guide, nn.Module):
        if len(names) > 1:
            raise GradscopeError(
                f"guide: the store has {len(names)} guides; give each by its name, {{{names[0]!r}: ...}}"
            )
        return {names[0]: guide}
    if not isinstance(guide, Mapping):
        raise GradscopeError(
            f"guide: must be a torch.nn.Module, or a mapping of names to modules, got {type(guide).__name__}"
        )
    for name, module in guide.items():
        if name not in names:
            raise GradscopeError(f"guide: the store has no guide {name!r}; {one_of(name, names)}")
        if not isinstance(module, nn.Module):
            raise GradscopeError(f"guide: {name!r} must be a torch.nn.Module, got {type(module).__name__}")
    return dict(guide)


def _guides(
    ds: xr.Dataset,
    run: RunConfig | None,
    guide: nn.Module | Mapping[str, nn.Module] | None,
    shape: tuple[int, ...],
    device: torch.device,
) -> dict[str, Classifier]:
    named = _named(guide, ds)
    specs = {name: spec for name, spec in guiding_classifiers(run).items() if name not in named}
    found = {name: load_classifier(spec, f"classifiers.{name}", shape, device) for name, spec in specs.items()}
    begun = nested(ds.attrs, "weights_sha256")
    for name, module in named.items():
        if kind := without_logits(module):
            raise GradscopeError(f"guide: {name!r} is {kind}, which predicts no class; leave it out")
        if begun.get(f"classifiers.{name}") not in (None, state_hash(module)):
            raise GradscopeError(f"guide: the weights of {name!r} are not those with which the store was recorded")
        found[name] = load_classifier(module, f"guide {name!r}", shape, device)
    return found


def judge_of(given: Any, settings: Settings, shape: tuple[int, ...], device: torch.device) -> Classifier | None:
    """The judge: a module that was given, otherwise the one of the settings; None for ``judge: none``."""
    if isinstance(given, nn.Module):
        if kind := without_logits(given):
            raise GradscopeError(f"judge: takes a classifier, got {kind}, which predicts no class")
        return load_classifier(given, "judge", shape, device)
    return None if settings.judge == "none" else load_classifier(settings.judge, "judge", shape, device)


def _extractor(given: Any, settings: Settings, shape: tuple[int, ...], device: torch.device) -> Features | None:
    spec = settings.evaluation.extractor
    if spec is None or settings.evaluation.data is None:
        return None
    if isinstance(given, nn.Module):
        return Features(given, shape)
    return load_extractor(spec, "extractor", shape, device)
