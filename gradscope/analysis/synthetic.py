"""Synthetic trajectories with a known fault, to calibrate the signatures and to try new ones.

Gradients are drawn at random, not computed by a model. Everything that a probe would record is derived from them.
"""

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.intervals import wilson
from gradscope.store import CELL_DIMS
from probes.catalogue import LAG_PARTS

FAULTS: Mapping[str, str] = {
    "none": "successive gradients share a direction, their size follows the belief, and most samples are right",
    "white_noise": "every gradient is independent noise, and the belief stays at chance",
    "constant": "the gradient never changes along a trajectory",
    "exploding": "the gradient's norm grows by 10**9 within ten steps",
    "vanishing": "the gradient is 10**-12 of a healthy one, and the belief stays at chance",
    "clipped": "the guide sees x0_detached, and the clamp of x0-hat sets 98 % of the gradient's elements to 0",
    "adversarial": "the guide comes to believe the target, but an independent judge does not",
    "non_finite": "NaN in the gradients of every eighth sample, from the middle on",
    "inert": "the shift is a hundred-thousandth of the step's noise",
    "off_manifold": "the shift is three times the step's noise",
    "saturated": "the guide is certain of the target from the first step on, so its gradient is gone",
    "misaligned": "the gradient is at right angles to the reference's",
    "half_mislabelled": "in every second sample the gradient points against the reference's, in the others along it",
    "one_exploding": "the gradient's norm grows by 10**9 in a single sample",
    "rotating": "the gradient turns by 180 degrees over the run",
    "unrelated_update": "the update is independent noise",
    "misdirected": "the cosine of the shift with its direction is -0.5",
    "classes_gone": "the judge recognises no sample of two classes",
    "class_vanishing": "the gradients of one class are 10**-12 of healthy ones, and the guide never believes it",
    "collapsed": "the judge recognises all samples, but they cover only 0.05 of the real images",
    "undone": "the guide believes the target half-way, but neither it nor the judge sees it in the final samples",
    "convinced": "the guide is certain from half-way on, so its gradient is small",
    "one_pixel": "the gradient is zero except at one pixel",
}
SIGNATURE: Mapping[str, str] = {
    "white_noise": "unstable",
    "constant": "frozen",
    "clipped": "dead_by_clipping",
    "saturated": "saturated_early",
    "half_mislabelled": "misaligned",
    "one_exploding": "exploding",
    "rotating": "reversing",
    "classes_gone": "class_failure",
    "class_vanishing": "vanishing",
    "one_pixel": "sparse",
}
"""The signature that finds a fault, if it has another name than the fault."""
_TOTAL = 1000
"""Number of diffusion timesteps in training."""
_SHAPE = (3, 8, 8)
_CLASSES = 4


def trajectories(
    fault: str = "none",
    samples: int = 64,
    timesteps: int = 50,
    seed: int = 0,
    cosine: float = 0.7,
    accuracy: float = 0.9,
) -> xr.Dataset:
    """One evaluated cell with one fault of `FAULTS`, as `gradscope.open` gives it.

    Parameters
    ----------
    fault
        A key of `FAULTS`.
    samples, timesteps
        Lengths of these dimensions.
    seed
        Seed of all random numbers.
    cosine
        Expected cosine of healthy gradients 1/28 of diffusion time apart.
    accuracy
        Expected share of samples in which the judge sees the target, unless the fault sets this share.

    Returns
    -------
    xarray.Dataset
        Scalars, the tensors ``gradient``, ``update``, ``x_t`` and ``pred_original_sample`` of shape (3, 8, 8), and the
        verdicts of an evaluation.

    Raises
    ------
    ValueError
        The fault is unknown.

    Examples
    --------
    >>> ds = trajectories("exploding", samples=8, timesteps=50)
    >>> float(ds.gradient_norm.isel(timestep=-1).max()) > 1e6
    True
    """
    if fault not in FAULTS:
        raise ValueError(f"fault: got {fault!r}; one of: {', '.join(FAULTS)}")
    rng = np.random.default_rng(seed)
    spacing = _TOTAL // timesteps
    alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, _TOTAL))[::-spacing][:timesteps]
    before = np.append(alphas_cumprod[1:], 1.0)
    sigma = np.sqrt((1 - alphas_cumprod / before) * (1 - before) / (1 - alphas_cumprod))
    progress = np.linspace(0, 1, timesteps)
    label = np.arange(samples) % _CLASSES
    gone = {"classes_gone": label < 2, "class_vanishing": label == 0}.get(fault, np.zeros(samples, dtype=bool))
    blind = gone | (fault in ("vanishing", "white_noise"))
    belief = np.where(blind[:, None], 0.25, _belief(rng, samples, progress))
    if fault == "saturated":
        belief = np.full((samples, timesteps), 1 - 1e-9)
    if fault == "convinced":
        belief = np.where(progress > 0.5, 1 - 1e-9, belief)
    gradient = _gradients(fault, rng, label, progress, belief, cosine ** (spacing * LAG_PARTS / _TOTAL))
    update = rng.normal(size=gradient.shape) if fault == "unrelated_update" else gradient
    x_t = np.cumsum(rng.normal(scale=0.2, size=gradient.shape), axis=1)
    x0_hat = np.clip(rng.normal(scale=0.5, size=gradient.shape), -1, 1)
    if fault == "clipped":
        x0_hat = np.where(gradient == 0, np.sign(x0_hat), 0.5 * x0_hat)

    right = belief[:, -1] > 0.5
    lost = fault in ("adversarial", "undone")
    seen = np.where(gone, 0.0, np.where(blind | lost, 0.25, 1.0 if fault == "collapsed" else accuracy))
    judged = rng.random(samples) < seen
    own = right if fault == "adversarial" else judged
    guided = np.isfinite(gradient).all(axis=(2, 3, 4))
    strength = np.where(guided, {"inert": 1e-5, "off_manifold": 3.0}.get(fault, 0.05), 0)
    noise = fault == "white_noise"
    aligned = np.full((samples, 1), 0.0 if fault == "misaligned" else 0.5)
    if fault == "half_mislabelled":
        aligned[::2] *= -1
    lag, first = _lag_and_first_cosines(gradient, spacing)
    scalars = {
        "written": np.full((samples, timesteps), 3, dtype=np.uint8),
        "gradient_norm": _norm(gradient),
        "update_norm": _norm(update),
        "gradient_cosine": _cosines(gradient),
        "update_cosine": _cosines(update),
        "gradient_lag_cosine": lag,
        "gradient_first_cosine": first,
        "update_gradient_cosine": (_unit(update) * _unit(gradient)).sum(axis=(2, 3, 4)),
        "shift_direction_cosine": np.full((samples, timesteps), -0.5 if fault == "misdirected" else 1.0),
        "effective_strength": np.where(sigma > 0, strength, np.nan),
        "reference_cosine": rng.normal(aligned, 0.1, size=(samples, timesteps)),
        "score_cosine": rng.normal(0, 0.1, size=(samples, timesteps)),
        "gradient_snr": 10 ** rng.normal(0 if noise else 0.8, 0.1, size=(samples, timesteps)),
        "high_frequency_share": rng.normal(0.8 if noise else 0.1, 0.02, size=(samples, timesteps)),
        "margin": np.log(belief) - np.log1p(-belief),
        "log_prob": np.log(belief),
        "predicted_class": np.where(belief > 0.5, label[:, None], (label[:, None] + 1) % _CLASSES),
        "finite_fraction": np.isfinite(gradient).mean(axis=(2, 3, 4)),
        "zero_fraction": (gradient == 0).mean(axis=(2, 3, 4)),
        "clipped_fraction": (np.abs(x0_hat) >= 1).mean(axis=(2, 3, 4)),
    }
    tensors = {"gradient": gradient, "update": update, "x_t": x_t, "pred_original_sample": x0_hat}
    verdicts = {
        "own_prediction": np.where(own, label, (label + 1) % _CLASSES),
        "judge_prediction": np.where(judged, label, (label + 1) % _CLASSES),
    }
    coverage = 0.05 if fault == "collapsed" else 0.8
    reached = [float(bound) for bound in wilson(coverage * samples, samples)]
    time = ("sample", "timestep")
    ds = xr.Dataset(
        {name: (time, values) for name, values in scalars.items()}
        | {name: ((*time, "channel", "height", "width"), values) for name, values in tensors.items()}
        | {name: (("sample",), values) for name, values in verdicts.items()}
        | {"coverage": ((), coverage), "coverage_interval": ("bound", reached)},
        coords={
            "sample": np.arange(samples),
            "timestep": np.arange(timesteps)[::-1] * spacing,
            "alphas_cumprod": ("timestep", alphas_cumprod),
            "sigma": ("timestep", sigma),
            "label": ("sample", label),
            "bound": ["low", "high"],
        },
        attrs={
            "classes": [str(k) for k in range(_CLASSES)],
            "scheduler": json.dumps({"num_train_timesteps": _TOTAL}),
            "status": "complete",
        },
    )
    cell = ("synthetic", "x0_detached" if fault == "clipped" else "x_t", "none", 0.3)
    ds = ds.expand_dims({dim: [value] for dim, value in zip(CELL_DIMS, cell, strict=True)})
    return ds.assign(coverage_floor=0.95)


def _belief(rng: np.random.Generator, samples: int, progress: NDArray) -> NDArray:
    """Probability of the target class: it rises from chance to near 1, in each sample at another time."""
    middle = rng.uniform(0.3, 0.6, size=(samples, 1))
    return 0.25 + 0.74 / (1 + np.exp(-12 * (progress - middle)))


def _gradients(
    fault: str, rng: np.random.Generator, label: NDArray, progress: NDArray, belief: NDArray, keep: float
) -> NDArray:
    """Gradients, ``(samples, timesteps, *_SHAPE)``; directions are autoregressive with coefficient `keep` per step."""
    samples, steps = len(label), len(progress)
    direction = _unit(rng.normal(size=(samples, steps, *_SHAPE)))
    keep = {"white_noise": 0.0, "constant": 1.0}.get(fault, keep)
    for k in range(1, steps):
        direction[:, k] = keep * direction[:, k - 1] + np.sqrt(1 - keep**2) * direction[:, k]
    if fault == "rotating":
        angle = np.pi * progress[:, None, None, None]
        axes = _unit(rng.normal(size=(samples, 2, *_SHAPE)))
        direction = np.cos(angle) * axes[:, :1] + np.sin(angle) * axes[:, 1:] + 0.1 * direction
    if fault == "one_pixel":
        direction[..., np.arange(8) > 0] = 0
        direction[..., np.arange(8) > 0, :] = 0
    size = 3 * (1 - belief)  # as the gradient of log p, which shrinks as p nears 1
    growth = 10 ** np.clip(0.9 * steps * (progress - 0.6), 0, 9)
    if fault == "exploding":
        size = size * growth
    if fault == "one_exploding":
        size[samples // 2] *= growth
    if fault == "vanishing":
        size = size * 1e-12
    if fault == "class_vanishing":
        size[label == 0] *= 1e-12
    gradient = np.asarray(_unit(direction) * size[..., None, None, None])
    if fault == "clipped":
        gradient[rng.random(gradient.shape) < 0.98] = 0
    if fault == "non_finite":
        gradient[::8, steps // 2 :] = np.nan
    return gradient


def _norm(x: NDArray, keepdims: bool = False) -> NDArray:
    """The l2 norm over channel, height and width."""
    return np.asarray(np.sqrt((x**2).sum(axis=(2, 3, 4), keepdims=keepdims)))


def _unit(x: NDArray) -> NDArray:
    """Each gradient divided by its norm; NaN where the norm is 0."""
    norm = _norm(x, keepdims=True)
    return np.asarray(x / np.where(norm == 0, np.nan, norm))


def _cosines(x: NDArray) -> NDArray:
    """Cosine with the previous step; NaN at the first step."""
    unit = _unit(x)
    successive = (unit[:, 1:] * unit[:, :-1]).sum(axis=(2, 3, 4))
    return np.concatenate([np.full((len(x), 1), np.nan), successive], axis=1)


def _lag_and_first_cosines(gradient: NDArray, spacing: int) -> tuple[NDArray, NDArray]:
    """Cosines with the gradient about 1/28 of diffusion time earlier, and with the first one, as the probes do."""
    unit, steps = _unit(gradient), gradient.shape[1]
    lag = np.full(gradient.shape[:2], np.nan)
    part = np.arange(steps)[::-1] * spacing * LAG_PARTS // _TOTAL
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    lag[:, starts[1:]] = (unit[:, starts[1:]] * unit[:, starts[:-1]]).sum(axis=(2, 3, 4))
    first = (unit * unit[:, :1]).sum(axis=(2, 3, 4))
    first[:, 0] = np.nan
    return lag, first
