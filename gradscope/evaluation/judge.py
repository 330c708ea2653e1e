"""Verdicts on the final samples, by the guide of each cell and by an independent judge."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.intervals import transfer_ratio, wilson
from gradscope.models.calls import logits_of
from gradscope.store import CELL_DIMS

Int = NDArray[np.integer]
_ABOUT = {"own": "the cell's guide", "judge": "the independent judge"}


@torch.no_grad()
def predict(module: nn.Module, images: Tensor) -> NDArray[np.int16]:
    """Predicted classes of samples ``(n, *sample)``; -1 where sample or logits are not finite."""
    logits = logits_of(module, images)
    finite = torch.isfinite(images).flatten(1).all(dim=1) & torch.isfinite(logits).all(dim=1)
    return torch.where(finite, logits.argmax(dim=1), -1).to(torch.int16).cpu().numpy()


def verdicts(predictions: Mapping[str, Int], label: Int, classes: int, dims: tuple[str, ...] = CELL_DIMS) -> xr.Dataset:
    """Accuracies, intervals and confusion from the predicted classes of the samples.

    Parameters
    ----------
    predictions
        Predicted classes by ``own``, ``judge`` or both, ``(*cells, sample)``. Samples with -1 do not count.
    label
        Target classes, ``(sample,)``.
    classes
        Number of classes; chance is 1 / classes.
    dims
        Dimensions of the cells.

    Returns
    -------
    xarray.Dataset
        Predictions and accuracies with Wilson's 95 % intervals; with a judge also its accuracy per target class and its
        confusion matrix; with both also the transfer ratio.
    """
    out: dict[str, tuple] = {}
    for name, prediction in predictions.items():
        out |= _accuracies(name, prediction, label)
    if "judge" in predictions:
        out |= _by_class(predictions["judge"], label, classes)
    if len(predictions) == 2:
        out |= _transfer(predictions["own"], predictions["judge"], label, 1 / classes)
    return xr.Dataset({name: ((*dims, *own), *rest) for name, (own, *rest) in out.items()})


def _accuracies(name: str, prediction: Int, label: Int) -> dict[str, tuple]:
    seen = prediction >= 0
    share, interval = _share((seen & (prediction == label)).sum(axis=-1), seen.sum(axis=-1))
    who = _ABOUT[name]
    return {
        f"{name}_prediction": _variable(
            ("sample",),
            prediction.astype(np.int16),
            f"class of the final sample by {who}",
            "argmax_k f(x_0)[k]; -1: unfinished, or image or logits not finite",
        ),
        f"{name}_accuracy": _variable(
            (),
            share,
            f"share of samples in which {who} sees the target class",
            f"mean({name}_prediction == label), where {name}_prediction >= 0",
        ),
        f"{name}_accuracy_interval": _variable(
            ("bound",), interval, f"95 % interval of {name}_accuracy", "Wilson's score interval"
        ),
    }


def _by_class(prediction: Int, label: Int, classes: int) -> dict[str, tuple]:
    cells = prediction.shape[:-1]
    confusion = np.zeros((*cells, classes, classes), dtype=np.int32)
    for cell in np.ndindex(cells):
        seen = prediction[cell] >= 0
        np.add.at(confusion[cell], (label[seen], prediction[cell][seen]), 1)
    share, interval = _share(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))
    return {
        "class_accuracy": _variable(
            ("class",),
            share,
            "share of the target class's samples in which the judge sees it",
            "mean(judge_prediction == label), where label == class and judge_prediction >= 0",
        ),
        "class_accuracy_interval": _variable(
            ("class", "bound"), interval, "95 % interval of class_accuracy", "Wilson's score interval"
        ),
        "confusion": _variable(
            ("class", "judge_class"),
            confusion,
            "number of samples of a target class that the judge calls judge_class",
            "sum(label == class and judge_prediction == judge_class)",
        ),
    }


def _transfer(own: Int, judge: Int, label: Int, chance: float) -> dict[str, tuple]:
    cells = own.shape[:-1]
    found = np.full((*cells, 3), np.nan)
    for cell in np.ndindex(cells):
        both = (own[cell] >= 0) & (judge[cell] >= 0)
        found[cell] = transfer_ratio((own[cell] == label)[both], (judge[cell] == label)[both], chance)
    return {
        "transfer_ratio": _variable(
            (),
            found[..., 0],
            "share of the guide's success that the independent judge confirms",
            f"(judge_accuracy - {chance:g}) / (own_accuracy - {chance:g}); NaN where own_accuracy_interval reaches it",
        ),
        "transfer_ratio_interval": _variable(
            ("bound",),
            found[..., 1:],
            "95 % interval of transfer_ratio",
            "quantiles of the posterior of paired verdicts (Dirichlet, Jeffreys' prior); NaN: no bound",
        ),
    }


def _share(right: Int, counted: Int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares and their bounds, ``(..., 2)``; NaN where no sample counts."""
    share = np.divide(right, counted, out=np.full(counted.shape, np.nan), where=counted > 0)
    return share, np.stack(wilson(right, counted), axis=-1)


def _variable(dims: tuple[str, ...], values: np.ndarray, long_name: str, equation: str) -> tuple:
    return dims, values, {"long_name": long_name, "units": "1", "equation": equation}
