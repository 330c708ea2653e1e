"""A store in memory whose cells have known differences in diagnostics, verdicts and distances."""

import numpy as np
import xarray as xr
from scipy import stats
from small_store import CELLS, GOOD, SHAPE

from gradscope.store import CELL_DIMS

OVER = (*CELL_DIMS, "sample", "timestep")
TIMESTEPS = 12
ADAM = GOOD | {"stabilizer": "adam"}
AT_GOOD, AT_ADAM = (0, 0, 0, 1), (0, 0, 1, 1)


def store(samples=80, seed=0):
    """Noise in every cell. In `ADAM` the cosines of steps 4 to 8 are higher by 0.2, and the accuracy is higher."""
    rng = np.random.default_rng(seed)
    shape = (*SHAPE, samples, TIMESTEPS)
    of_sample = rng.normal(size=(samples, 1))  # shared by all cells
    values = {
        "gradient_cosine": 0.1 * (of_sample + rng.normal(size=shape)),
        "gradient_norm": np.exp(3 * rng.normal(size=shape) - 40),
        "effective_strength": np.full(shape, 0.2) * (1 + 1e-8 * rng.normal(size=shape)),
        "log_prob": -np.abs(of_sample + rng.normal(size=shape)),
    }
    values["gradient_cosine"][(*AT_ADAM, slice(None), slice(4, 9))] += 0.2
    values["gradient_cosine"][..., 0] = np.nan
    values["effective_strength"][..., -1] = np.nan
    label = np.arange(samples) % 4
    right = rng.random((*SHAPE, samples)) < 0.5
    right[AT_ADAM] |= rng.random(samples) < 0.8
    return xr.Dataset(
        {name: (OVER, x.astype(np.float32)) for name, x in values.items()}
        | {
            "judge_prediction": ((*CELL_DIMS, "sample"), np.where(right, label, (label + 1) % 4).astype(np.int16)),
            "written": (OVER, np.ones(shape, dtype=np.uint8)),
        },
        coords=CELLS | {"label": ("sample", label), "timestep": np.arange(TIMESTEPS)[::-1] * 80 + 79},
    )


def with_distances(ds, replicates=500):
    """Distances with biased replicates: in every cell too large by the same amount, and with common noise."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=replicates)
    distance, coverage = 10 + 5 * rng.random(SHAPE), rng.random(SHAPE)
    own = 0.1 * rng.normal(size=(*SHAPE, replicates))
    names = (*CELL_DIMS, "replicate")
    return ds.assign(
        fd_extractor=(CELL_DIMS, distance),
        fd_extractor_replicates=(names, distance[..., None] + 3 + common + own),
        coverage=(CELL_DIMS, coverage),
        coverage_replicates=(names, coverage[..., None] + 0.01 * own),
        fd_extractor_floor=0.3,
        kd_extractor=(CELL_DIMS, distance / 100),
        kd_extractor_replicates=(names, (distance[..., None] + own) / 100),
    )


def verdicts(ds, at, rows=slice(None)):
    """Whether the judge sees the target class, for each sample of a cell."""
    return (ds["judge_prediction"].values[at] == ds["label"].values)[rows]


def mid_p(a, b):
    """McNemar's two-sided mid-p."""
    more, fewer = sorted([(b & ~a).sum(), (a & ~b).sum()], reverse=True)
    share = stats.binom(more + fewer, 0.5)
    return min(1, 2 * share.sf(more) + share.pmf(more))
