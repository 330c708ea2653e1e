"""Calibration of a classifier's confidence by one temperature (arXiv 1706.04599)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from gradscope.errors import GradscopeError
from gradscope.evaluation.real import held_out
from gradscope.models import cards
from gradscope.models.cards import Card, Metric
from gradscope.models.classifiers import load_classifier
from gradscope.models.training import DEFAULT_PROCESS, noised, refuse_timesteps
from probes.timed import ask

_HELD_OUT = 8192
"""Largest number of held-out images."""
_RANGE = (1e-3, 1e3)
"""Temperatures that are tried."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that minimises the mean negative log-likelihood of softmax(logits / T).

    The likelihood is concave in 1 / T, so its derivative, mean over samples of z_y - sum_k softmax(z / T)_k z_k, has
    at most one zero.

    Parameters
    ----------
    logits, labels
        ``(n, classes)`` and ``(n,)``, of held-out data.

    Returns
    -------
    float
        Temperature; above 1 for an overconfident classifier.

    Raises
    ------
    GradscopeError
        No temperature between 0.001 and 1000 is best: every sample is right, or the logits say nothing on the labels.

    Examples
    --------
    >>> z = [[4.0, 0.0]] * 4                     # 0.98 sure of class 0, and right in 3 of 4 samples
    >>> T = fit_temperature(z, [0, 0, 0, 1])
    >>> round(1 / (1 + math.exp(-4 / T)), 3)
    0.75
    """
    z = np.asarray(logits, dtype=np.float64)
    true = np.take_along_axis(z, np.asarray(labels)[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        return float(np.mean(true - (softmax(inverse * z, axis=1) * z).sum(axis=1)))

    low, high = (1 / bound for bound in reversed(_RANGE))
    if not slope(low) > 0 > slope(high):
        reason = "every sample is predicted right" if slope(high) >= 0 else "the logits say nothing on the labels"
        raise GradscopeError(f"calibrate: no temperature from {_RANGE[0]} to {_RANGE[1]:g} is best: {reason}")
    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def calibrate(path: Path, timesteps: Sequence[int], device: torch.device, output: Path | None = None) -> Card:
    """Fit a temperature to the classifier of the card at `path`; write it into the card, or into a copy at `output`.

    At most 8192 held-out images of the card's data are noised, t uniform over [first, end); [0, 1] leaves them almost
    clean. The card gets the mean negative log-likelihood (NLL, in nats) of the same images before and after. A copy
    has weights of its own.

    Raises
    ------
    GradscopeError
        The card is none of a classifier, the timesteps are not the process's, `output` cannot be written, or no
        temperature is best.
    """
    if output is not None and (output.suffix != ".yaml" or output.exists()):
        wrong = "exists" if output.exists() else "must be NAME.yaml"
        raise GradscopeError(f"output: {output} {wrong}; choose another output")
    card = cards.read(path)
    process: Any = DDPMScheduler(**card.architecture.get("scheduler", DEFAULT_PROCESS))
    refuse_timesteps(timesteps, process.config.num_train_timesteps, "calibrate")
    shape = (card.data.channels, card.data.size, card.data.size)
    module = load_classifier(str(path), str(path), shape, device).module
    torch.manual_seed(card.seed)
    logits, labels = [], []
    for images, label in held_out(card.data, _HELD_OUT, device):
        x_t, _, t = noised(process, images, timesteps)
        with torch.no_grad():
            logits.append(ask(module, x_t, t).double().cpu().numpy() * card.temperature)
        labels.append(label.cpu().numpy())
    z, y = np.concatenate(logits), np.concatenate(labels)
    where = f"{timesteps[0]} <= t < {timesteps[1]}"
    try:
        temperature = fit_temperature(z, y)
    except GradscopeError as error:
        raise GradscopeError(f"{path}: {error} (N = {len(y)} held-out images, {where})") from error
    metrics = card.metrics | {
        name: _nll(z / T, y, f"mean over x_t of held-out images, {where}, at temperature {T:.4g}, in nats")
        for name, T in {"nll": 1.0, "nll_calibrated": temperature}.items()
    }
    calibrated = card.model_copy(update={"temperature": temperature, "metrics": metrics})
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.with_suffix(".safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    cards.write(output or path, calibrated)
    return calibrated


def _nll(z: np.ndarray, labels: np.ndarray, about: str) -> Metric:
    values = -np.take_along_axis(log_softmax(z, axis=1), labels[:, None], axis=1)[:, 0]
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    interval = [round(mean - half, 5), round(mean + half, 5)]
    return Metric(value=round(mean, 5), n=len(values), interval=interval, about=about)
