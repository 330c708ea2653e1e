"""The evaluation of a store's final samples, added to the store: cell by cell, one batch of images at a time."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from gradscope.analysis.independence import warnings
from gradscope.errors import GradscopeError
from gradscope.evaluation.comparison import Comparison
from gradscope.evaluation.evaluators import Evaluators, Tell
from gradscope.evaluation.features import Features, distance_names
from gradscope.evaluation.judge import predict, verdicts
from gradscope.evaluation.manifold import NEIGHBOURS
from gradscope.evaluation.real import Real, load_real
from gradscope.intervals import resampled
from gradscope.models.classifiers import Classifier
from gradscope.models.weights import state_hash
from gradscope.store import add_variables, cell_dims, open_store
from gradscope.store.attributes import nested
from gradscope.store.dims import final_samples, final_shape, recorded_steps
from gradscope.store.locations.location import Location, StorePath, locate
from gradscope.store.opening import open_arrays

_BATCH = 256
_SEED = 0
_PACKAGES = ("gradscope", "torch", "torchmetrics", "timm", "numpy", "scipy")


def evaluate_store(
    path: StorePath, evaluators: Evaluators, device: torch.device, tell: Tell = lambda text: None
) -> None:
    """Add verdicts and distances to a store, in place of an earlier evaluation.

    Samples that are unfinished, or whose image is not finite, are left out. Their number is recorded.

    Parameters
    ----------
    path
        A recorded store, complete or not: a path or URL.
    evaluators
        The classifiers and features to use.
    device
        Device of the images.
    tell
        Called with each sentence that a reader of the numbers must know.

    Raises
    ------
    GradscopeError
        Judge, real images and store do not fit each other, or another process records into the store or evaluates it.
    """
    location = locate(path)
    open_arrays(location)  # raises where there is none
    with location.lock():  # a recording writes its own verdicts at its end
        _evaluate(open_store(location), location, evaluators, device, tell)  # as it is now


def _evaluate(ds: xr.Dataset, path: Location, evaluators: Evaluators, device: torch.device, tell: Tell) -> None:
    label, dims = ds["label"].values, cell_dims(ds)
    cells = tuple(ds.sizes[dim] for dim in dims)
    real, names = _real(ds, evaluators)
    classes = _classes(ds, evaluators.judge, real, evaluators.guides.values())
    counts = resampled(len(label), evaluators.settings.evaluation.replicates, _SEED)
    comparison = None
    if real is not None:
        real, common = paired(classes, real, tell)
        comparison = Comparison(real, names, label, common, counts)

    finished = recorded_steps(ds).all("timestep").transpose(*dims, "sample").values
    seen: dict[str, NDArray[np.int16]] = {}
    finite, measured = np.zeros_like(finished), {}
    for cell in np.ndindex(cells):
        judges = evaluators.of_cell(str(ds["classifier"].values[cell[0]]))
        look = _look(final_samples(ds)[cell], finished[cell], judges, evaluators.extractor, device)
        finite[cell] = look.finite
        for name, prediction in look.predictions.items():
            seen.setdefault(name, np.full(finished.shape, -1, dtype=np.int16))[cell] = prediction
        if comparison is not None:
            measured[cell] = comparison.measure(look.features, look.finite)

    found = verdicts(seen, label, len(classes), dims)
    if comparison is not None:
        found = found.merge(comparison.variables(measured, cells, dims))
    found = _with_coordinates(found.assign_coords({"class": classes}), classes)
    earlier = json.loads(ds.attrs.get("evaluation", "{}")).get("variables", [])
    about = (
        _about(evaluators, names, real, len(label))
        | _independence(ds, evaluators)
        | {
            "excluded": {"unfinished": int((~finished).sum()), "not_finite": int((finished & ~finite).sum())},
            "variables": sorted(map(str, found.variables)),
        }
    )
    add_variables(path, found.assign_attrs(evaluation=json.dumps(about)), instead_of=earlier)
    remarks = [*_remarks(ds, path, finished, finite, seen, real), *warnings(about["also_guides"]).values()]
    for text in remarks:
        tell(text)


class _Look(NamedTuple):
    """The evaluation of one cell's images."""

    finite: NDArray[np.bool_]
    """Finished and finite, ``(sample,)``."""
    predictions: dict[str, NDArray[np.int16]]
    """Predicted classes by name of the evaluator, ``(sample,)``."""
    features: NDArray[np.float64]
    """Features of the finite samples, ``(n, d)``; d = 0 without an extractor."""


def _look(
    images: xr.DataArray,
    finished: NDArray[np.bool_],
    modules: Mapping[str, nn.Module],
    extractor: Features | None,
    device: torch.device,
) -> _Look:
    """Evaluate the images of one cell, `_BATCH` at a time."""
    finite = np.zeros(len(finished), dtype=bool)
    predictions = {name: np.full(len(finished), -1, dtype=np.int16) for name in modules}
    features = [np.empty((0, 0 if extractor is None else extractor.num_features))]
    for first in range(0, len(finished), _BATCH):
        rows = slice(first, first + _BATCH)
        if not finished[rows].any():
            continue
        values = images[rows].values
        finite[rows] = finished[rows] & np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite[rows].any():
            continue
        batch = torch.from_numpy(values[finite[rows]]).to(device)
        for name, module in modules.items():
            predictions[name][rows][finite[rows]] = predict(module, batch)
        if extractor is not None:
            features.append(extractor.of([batch]))
    return _Look(finite, predictions, np.concatenate(features))


def _real(ds: xr.Dataset, evaluators: Evaluators) -> tuple[Real | None, tuple[str, str]]:
    """The real images, if there is an extractor, and the names of the distances to them."""
    settings = evaluators.settings.evaluation
    if evaluators.extractor is None or settings.data is None or settings.extractor is None:
        return None, ("", "")
    shape = final_shape(ds)
    real = load_real(settings.data, settings.samples, ds.sizes["sample"], evaluators.extractor, shape)
    return real, distance_names(settings.extractor)


def _classes(ds: xr.Dataset, judge: Classifier | None, real: Real | None, guides: Collection[Classifier]) -> list[str]:
    """Names of the target classes: the store's; otherwise the judge's, the real images', or numbers."""
    named, highest = list(ds.attrs.get("classes", ())), int(ds["label"].max())
    if judge is not None:
        own = list(judge.classes or map(str, range(judge.num_classes)))
        if len(own) != len(named or own) or highest >= len(own):
            raise GradscopeError(f"judge: has {len(own)} classes, but the store's samples {len(named) or highest + 1}")
        if judge.classes and named and own != named and named != _numbers(len(named)):
            raise GradscopeError(f"judge: its classes are {own}, but those of the store {named}")
        return named or own
    if named or real is None or highest >= len(real.classes):
        return named or _numbers(max([highest + 1, *(guide.num_classes for guide in guides)]))
    return list(real.classes)


def paired(classes: Sequence[str], real: Real, tell: Tell) -> tuple[Real, int]:
    """The real images with their labels in the store's numbering, and the number of classes; 0 if the classes differ.

    Classes are paired by name, in any order; by number only if one side has no names.
    """
    others = list(real.classes)
    if sorted(others) == sorted(classes):
        number = np.array([list(classes).index(name) for name in others])
        labels = {key: number[getattr(real, key)] for key in ("reference_label", "floor_label")}
        return replace(real, classes=tuple(classes), **labels), len(classes)
    if len(others) == len(classes) and _numbers(len(classes)) in (others, list(classes)):
        return real, len(classes)
    tell(f"no distances by class: the classes of evaluation.data are {others}, but those of the store {list(classes)}")
    return real, 0


def _numbers(n: int) -> list[str]:
    return [str(k) for k in range(n)]


def _with_coordinates(found: xr.Dataset, classes: Sequence[str]) -> xr.Dataset:
    coordinates = {
        "class": (classes, "target class"),
        "judge_class": (classes, "class that the judge sees"),
        "bound": (["low", "high"], "end of an interval"),
    }
    return found.assign_coords(
        {
            dim: (dim, np.array(values, dtype=object), {"long_name": about, "units": "1"})
            for dim, (values, about) in coordinates.items()
            if dim in found.dims
        }
    )


def _about(evaluators: Evaluators, names: tuple[str, str], real: Real | None, samples: int) -> dict[str, Any]:
    settings = evaluators.settings.model_dump(mode="json")
    return {
        "judge": settings["judge"],
        "extractor": None if real is None else settings["evaluation"]["extractor"],
        "data": None if real is None else settings["evaluation"]["data"],
        "distances": [] if real is None else list(names),
        "real_images": 0 if real is None else len(real.reference),
        "floor_images": 0 if real is None else len(real.floor),
        "neighbours": NEIGHBOURS,
        "N": samples,
        "seed": _SEED,
        "replicates": evaluators.settings.evaluation.replicates,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }


def _independence(ds: xr.Dataset, evaluators: Evaluators) -> dict[str, Any]:
    """Hashes of judge and extractor, and the guides that have the same weights."""
    hashes = {name: state_hash(guide.module) for name, guide in evaluators.guides.items()}
    recorded = nested(ds.attrs, "weights_sha256")
    for name in map(str, ds["classifier"].values):
        hashes.setdefault(name, recorded.get(f"classifiers.{name}"))
    weights = {}
    if evaluators.judge is not None:
        weights["judge"] = state_hash(evaluators.judge.module)
    if evaluators.extractor is not None:
        weights["extractor"] = evaluators.extractor.weights
    also = {
        role: [name for name, found in hashes.items() if found == digest and not _differs(ds, evaluators, role, name)]
        for role, digest in weights.items()
    }
    return {"weights_sha256": weights, "also_guides": {role: names for role, names in also.items() if names}}


def _differs(ds: xr.Dataset, evaluators: Evaluators, role: str, guide: str) -> bool:
    """Whether judge and guide are named differently and have no weights, whose hashes would tell them apart."""
    if role != "judge" or evaluators.judge is None or evaluators.judge.module.state_dict():
        return False
    recorded = nested(ds.attrs, "configuration").get("classifiers", {})
    return guide in recorded and recorded[guide] != evaluators.settings.model_dump(mode="json")["judge"]


def _remarks(
    ds: xr.Dataset,
    path: StorePath,
    finished: NDArray[np.bool_],
    finite: NDArray[np.bool_],
    seen: Mapping[str, NDArray[np.int16]],
    real: Real | None,
) -> list[str]:
    """Sentences that a reader of the numbers must know."""
    said, samples = [], ds.sizes["sample"]
    if not finished.all():
        written = float(recorded_steps(ds).mean())
        said.append(
            f"{path} is {ds.attrs.get('status', 'unfinished')}: {written:.1%} of it is written; "
            f"only the {int(finished.sum())} finished samples of {finished.size} are evaluated"
        )
    if (finished & ~finite).any():
        said.append(f"{int((finished & ~finite).sum())} finished samples are left out: their images are not finite")
    said += [
        f"{int((finite & (prediction < 0)).sum())} samples have no {name}_prediction: the logits are not finite"
        for name, prediction in seen.items()
        if (finite & (prediction < 0)).any()
    ]
    if real is not None:
        width = real.reference.shape[1]
        if samples < 10 * width:
            said.append(
                f"N = {samples} is below 10 x {width} features: the Frechet distance and its floor are biased upwards"
            )
        if len(real.floor) < samples:
            said.append(f"the floors use {len(real.floor)} images in place of {samples}: there are no more real images")
    return said
