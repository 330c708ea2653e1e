"""Trajectories whose fault is known: what the signatures are calibrated on, and a place to try one's own.

Gradients are drawn, not computed by any model; everything that a probe would record is derived from them.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.store import CELL_DIMS

FAULTS: Mapping[str, str] = {
    "none": "successive gradients share a direction, their size follows the belief, and the samples come out right",
    "white_noise": "every gradient is independent noise, and the belief stays at chance",
    "constant": "the gradient never changes along a trajectory",
    "exploding": "the gradient's norm grows by 10**9 within ten steps",
    "vanishing": "the gradient is 10**-12 of a healthy one, and the belief stays at chance",
    "clipped": "x0_detached, where the clamp of x0-hat holds back 98 % of the gradient's elements",
    "adversarial": "the guide comes to believe the target, an independent judge does not",
    "non_finite": "NaN in the gradients of every eighth sample, from the middle on",
    "inert": "the shift is a hundred-thousandth of the step's noise",
    "off_manifold": "the shift is three times the step's noise",
    "saturated": "the guide is certain of the target from the first step on, and its gradient gone",
    "misaligned": "the gradient is at right angles to the reference's",
}
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
    cosine
        Expected cosine of a healthy gradient with that of the previous step.
    accuracy
        Expected share of samples in which the judge sees the target, where the fault does not set it to chance.
    """
    if fault not in FAULTS:
        raise ValueError(f"fault: got {fault!r}; one of: {', '.join(FAULTS)}")
    rng = np.random.default_rng(seed)
    alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[:: -(1000 // timesteps)][:timesteps]
    before = np.append(alphas_cumprod[1:], 1.0)
    sigma = np.sqrt((1 - alphas_cumprod / before) * (1 - before) / (1 - alphas_cumprod))
    progress = np.linspace(0, 1, timesteps)
    blind = fault in ("vanishing", "white_noise")
    belief = np.full((samples, timesteps), 0.25) if blind else _belief(rng, samples, progress)
    if fault == "saturated":
        belief = np.full((samples, timesteps), 1 - 1e-9)
    gradient = _gradients(fault, rng, samples, progress, belief, cosine)
    x_t = np.cumsum(rng.normal(scale=0.2, size=gradient.shape), axis=1)
    x0_hat = np.clip(rng.normal(scale=0.5, size=gradient.shape), -1, 1)
    if fault == "clipped":
        x0_hat = np.where(gradient == 0, np.sign(x0_hat), 0.5 * x0_hat)

    label = np.arange(samples) % _CLASSES
    right = belief[:, -1] > 0.5
    judged = rng.random(samples) < (0.25 if blind or fault == "adversarial" else accuracy)
    own = right if fault == "adversarial" else judged
    guided = np.isfinite(gradient).all(axis=(2, 3, 4))
    strength = np.where(guided, {"inert": 1e-5, "off_manifold": 3.0}.get(fault, 0.05), 0)
    noise = fault == "white_noise"
    aligned = 0.0 if fault == "misaligned" else 0.5
    scalars = {
        "written": np.full((samples, timesteps), 3, dtype=np.uint8),
        "gradient_norm": _norm(gradient),
        "update_norm": _norm(gradient),
        "gradient_cosine": _cosines(gradient),
        "update_cosine": _cosines(gradient),
        "effective_strength": np.where(sigma > 0, strength, np.nan),
        "reference_cosine": rng.normal(aligned, 0.1, size=(samples, timesteps)),
        "score_cosine": rng.normal(0, 0.1, size=(samples, timesteps)),
        "gradient_snr": 10 ** rng.normal(0 if noise else 0.8, 0.1, size=(samples, timesteps)),
        "high_frequency_share": rng.normal(0.8 if noise else 0.1, 0.02, size=(samples, timesteps)),
        "log_prob": np.log(belief),
        "predicted_class": np.where(belief > 0.5, label[:, None], (label[:, None] + 1) % _CLASSES),
        "finite_fraction": np.isfinite(gradient).mean(axis=(2, 3, 4)),
        "zero_fraction": (gradient == 0).mean(axis=(2, 3, 4)),
        "clipped_fraction": (np.abs(x0_hat) >= 1).mean(axis=(2, 3, 4)),
    }
    tensors = {"gradient": gradient, "update": gradient, "x_t": x_t, "pred_original_sample": x0_hat}
    verdicts = {
        "own_prediction": np.where(own, label, (label + 1) % _CLASSES),
        "judge_prediction": np.where(judged, label, (label + 1) % _CLASSES),
    }
    time = ("sample", "timestep")
    ds = xr.Dataset(
        {name: (time, values) for name, values in scalars.items()}
        | {name: ((*time, "channel", "height", "width"), values) for name, values in tensors.items()}
        | {name: (("sample",), values) for name, values in verdicts.items()},
        coords={
            "timestep": np.arange(timesteps)[::-1] * (1000 // timesteps),
            "alphas_cumprod": ("timestep", alphas_cumprod),
            "sigma": ("timestep", sigma),
            "label": ("sample", label),
        },
        attrs={"classes": [str(k) for k in range(_CLASSES)], "status": "complete"},
    )
    cell = ("synthetic", "x0_detached" if fault == "clipped" else "x_t", "none", 0.3)
    return ds.expand_dims({dim: [value] for dim, value in zip(CELL_DIMS, cell, strict=True)})


def _belief(rng: np.random.Generator, samples: int, progress: NDArray) -> NDArray:
    """Probability of the target class: from chance to near 1, each sample at its own pace."""
    middle = rng.uniform(0.3, 0.6, size=(samples, 1))
    return 0.25 + 0.74 / (1 + np.exp(-12 * (progress - middle)))


def _gradients(
    fault: str, rng: np.random.Generator, samples: int, progress: NDArray, belief: NDArray, cosine: float
) -> NDArray:
    """Gradients, shape ``(samples, timesteps, *_SHAPE)``; unit directions by an autoregression of order 1."""
    noise = rng.normal(size=(samples, len(progress), *_SHAPE))
    direction = noise / _norm(noise, keepdims=True)
    keep = {"white_noise": 0.0, "constant": 1.0}.get(fault, cosine)
    for k in range(1, len(progress)):
        direction[:, k] = keep * direction[:, k - 1] + np.sqrt(1 - keep**2) * direction[:, k]
    size = 3 * (1 - belief)  # of log p, which flattens as p nears 1
    if fault == "exploding":
        size = size * 10 ** np.clip(0.9 * len(progress) * (progress - 0.6), 0, 9)
    if fault == "vanishing":
        size = size * 1e-12
    gradient = direction / _norm(direction, keepdims=True) * size[..., None, None, None]
    if fault == "clipped":
        gradient[rng.random(gradient.shape) < 0.98] = 0
    if fault == "non_finite":
        gradient[::8, len(progress) // 2 :] = np.nan
    return gradient


def _norm(x: NDArray, keepdims: bool = False, empty: float = 0) -> NDArray:
    """Norm over channel, height and width; `empty` where it is 0."""
    norm = np.sqrt((x**2).sum(axis=(2, 3, 4), keepdims=keepdims))
    return np.where(norm == 0, empty, norm)


def _cosines(gradient: NDArray) -> NDArray:
    """Cosine with the previous step; NaN at the first."""
    unit = gradient / _norm(gradient, keepdims=True, empty=np.nan)
    successive = (unit[:, 1:] * unit[:, :-1]).sum(axis=(2, 3, 4))
    return np.concatenate([np.full((len(gradient), 1), np.nan), successive], axis=1)
