"""Comparison of a cell's samples with real images: distances, precision, recall, density, coverage, intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.evaluation.distances import Frechet, Kernel
from gradscope.evaluation.manifold import NEIGHBOURS, Fidelity, fidelity, radii
from gradscope.evaluation.real import Real
from gradscope.intervals import bootstrap, wilson

Array = NDArray[np.float64]
_Distance = Frechet | Kernel
Key = tuple[str, str]
"""Name of a quantity and of its part, a key of `_PARTS`."""

_DISTANCES = (
    ("Frechet distance of samples to held-out images", "|mu_r - mu_s|^2 + tr(S_r + S_s - 2 (S_r S_s)^(1/2))"),
    ("kernel distance of samples to held-out images", "mean k(r, r') + mean k(s, s') - 2 mean k(r, s), "
     "k(x, y) = (x.y / d + 1)^3"),
)  # fmt: skip
_FIDELITY = {
    "precision": ("share of samples in the ball of a held-out image", "mean_s any_r(|s - r| <= radius_r)"),
    "recall": ("share of held-out images in the ball of a sample", "mean_r any_s(|s - r| <= radius_s)"),
    "density": ("number of held-out images' balls around a sample, over k", "mean_s sum_r(|s - r| <= radius_r) / k"),
    "coverage": ("share of held-out images with a sample in their ball", "mean_r any_s(|s - r| <= radius_r)"),
}
_BALL = f"; radius: to the k-th nearest of its own set, k = {NEIGHBOURS}; as many held-out images r as samples s"
_PARTS = {
    "": ((), "{}"),
    "interval": (("bound",), "95 % interval: {}"),
    "replicates": (("replicate",), "{}; samples resampled, the same indices in every cell"),
    "class": (("class",), "{}, those of one class"),
    "floor": ((), "{}; other held-out images in place of samples"),
}
_BOOTSTRAP = "estimate + quantiles of (replicates - their mean); samples resampled, held-out images fixed"
_BIASED = "; of the mean distance at this N, which lies above that of more samples: compare with the floor"
_INTERVALS = {
    "precision": "Wilson's score interval over samples, held-out images fixed",
    "recall": "Wilson's score interval over held-out images, samples fixed",
    "coverage": "Wilson's score interval over held-out images, samples fixed",
}


class Comparison:
    """Compares the features of one cell's samples with those of real images.

    Parameters
    ----------
    real
        The real images.
    names
        Names of the Frechet and of the kernel distance.
    label
        Target classes of the samples, ``(sample,)``.
    classes
        Number of classes for the distances by class; 0 for none.
    counts
        Number of times each sample is drawn in each bootstrap replicate, ``(replicate, sample)``.
    """

    def __init__(
        self,
        real: Real,
        names: tuple[str, str],
        label: NDArray[np.integer],
        classes: int,
        counts: NDArray[np.int64],
    ) -> None:
        self._real, self._label, self._counts = real, label, counts
        self._about = dict(zip(names, _DISTANCES, strict=True)) | _FIDELITY
        of_class = [real.reference[real.reference_label == k] for k in range(classes)]
        frechet, kernel = names
        self._frechet = frechet
        self._whole: dict[str, _Distance] = {frechet: Frechet(real.reference), kernel: Kernel(real.reference)}
        self._by_class: dict[str, Sequence[_Distance]] = {
            frechet: [Frechet(x) for x in of_class],
            kernel: [Kernel(x) for x in of_class],
        }
        self._radii: dict[int, Array] = {}

    def measure(self, features: Array, there: NDArray[np.bool_]) -> dict[Key, Array]:
        """All values of one cell. `there`, ``(sample,)``, marks the samples that `features` holds."""
        counts, label = self._counts[:, there], self._label[there]
        out: dict[Key, Array] = {}
        for name, distance in self._whole.items():
            value, replicates = distance.distance(features), distance.replicates(features, counts)
            out[name, ""] = np.array(value)
            out[name, "interval"] = np.array(bootstrap(value, replicates))
            out[name, "replicates"] = replicates
            if self._by_class[name]:
                by_class = [d.distance(features[label == k]) for k, d in enumerate(self._by_class[name])]
                out[name, "class"] = np.array(by_class)
        found = self._fidelity(features)
        for name in _FIDELITY:
            values = getattr(found, name)
            out[name, ""] = _mean(values)
            if name in _INTERVALS:
                out[name, "interval"] = np.stack(wilson(values.sum(), len(values)))
        density = [_mean(np.repeat(found.density, row[: len(found.density)])) for row in counts]
        out["density", "interval"] = np.array(bootstrap(float(out["density", ""]), density))
        return out

    def variables(
        self, measured: Mapping[tuple[int, ...], Mapping[Key, Array]], cells: tuple[int, ...], dims: tuple[str, ...]
    ) -> xr.Dataset:
        """The store's variables: the values of `measure` for each cell, NaN for missing cells, and the floors.

        `cells` are the lengths of the dimensions `dims` of the cells.
        """
        nothing = self.measure(self._real.floor[:0], np.zeros(len(self._label), dtype=bool))
        found = {key: np.full((*cells, *empty.shape), np.nan) for key, empty in nothing.items()}
        for cell, values in measured.items():
            for key, value in values.items():
                found[key][cell] = value
        floor = self._fidelity(self._real.floor)
        found |= {(name, "floor"): np.array(d.distance(self._real.floor)) for name, d in self._whole.items()}
        found |= {(name, "floor"): _mean(getattr(floor, name)) for name in _FIDELITY}
        return xr.Dataset(
            {"_".join(filter(None, key)): self._variable(key, values, dims) for key, values in found.items()}
        )

    def _fidelity(self, features: Array) -> Fidelity:
        real = self._real.reference[: len(features)]
        if len(real) not in self._radii:
            self._radii[len(real)] = radii(real)
        return fidelity(real, self._radii[len(real)], features)

    def _variable(self, key: Key, values: Array, cell: tuple[str, ...]) -> tuple:
        name, part = key
        about, equation = self._about[name]
        dims, long_name = _PARTS[part]
        if part == "interval":
            biased = name == self._frechet
            equation = _INTERVALS.get(name, _BOOTSTRAP + (_BIASED if biased else ""))
        elif name in _FIDELITY:
            equation += _BALL
        along = dims if part == "floor" else (*cell, *dims)
        return along, values, {"long_name": long_name.format(about), "units": "1", "equation": equation}


def _mean(values: NDArray) -> Array:
    return np.array(values.mean() if len(values) else np.nan)
