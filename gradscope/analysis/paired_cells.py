"""Differences between two cells of a run, paired over samples: b minus a.

All cells of a run share each sample's initial noise, step noise and label. So the two trajectories of a sample differ
only in their guidance, and the sample is a pair.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from gradscope.analysis.means import Floats
from gradscope.analysis.statistics import Test, mcnemar
from gradscope.analysis.verdicts import judged
from gradscope.intervals import bootstrap

KERNEL_DISTANCES = ("kd_", "kid")
"""Prefixes of the kernel distances. Only these distances are unbiased at any number of samples."""

RESOLUTION = 1e-6
"""Relative rounding error of a sum over an image in float32."""


@dataclass(frozen=True)
class Difference:
    """Difference b minus a of a statistic of a whole set of samples, such as a distance."""

    estimate: float
    low: float
    """Lower bound of the 95 % paired bootstrap interval."""
    high: float
    """Upper bound of the 95 % paired bootstrap interval."""
    error: float
    """Standard deviation of the replicates."""


def paired_difference(a: Floats, b: Floats) -> Floats:
    """The difference b - a, and 0 where it is only rounding of float32.

    Normalisation makes strengths equal, but they still differ by rounding.
    """
    with np.errstate(invalid="ignore"):
        difference = b - a
    return np.where(np.isclose(a, b, rtol=RESOLUTION, atol=0) & np.isfinite(difference), 0, difference)


def accuracy_change(a: xr.Dataset, b: xr.Dataset, level: float = 0.95) -> Test:
    """The judge's accuracy in cell b minus that in cell a, paired over the samples that are judged in both."""
    both = judged(a) & judged(b)
    before, after = ((cell["judge_prediction"] == cell["label"]).values[both] for cell in (a, b))
    return mcnemar(before, after, level)


def distances(a: xr.Dataset, b: xr.Dataset) -> dict[str, Difference]:
    """Every statistic of the evaluation that has bootstrap replicates: in cell b minus in cell a."""
    out = {}
    for name in replicated(a):
        estimate = float(b[name]) - float(a[name])
        replicates = b[f"{name}_replicates"].values - a[f"{name}_replicates"].values
        out[name] = Difference(estimate, *bootstrap(estimate, replicates), float(np.std(replicates)))
    return out


def replicated(ds: xr.Dataset) -> list[str]:
    """Names of the statistics that have bootstrap replicates."""
    names = [str(name).removesuffix("_replicates") for name in ds.data_vars if str(name).endswith("_replicates")]
    return sorted(name for name in names if name in ds)
