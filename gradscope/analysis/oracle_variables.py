"""The variables of an oracle's store: dimensions, description, unit and equation of each."""

from typing import NamedTuple

import xarray as xr

from gradscope.errors import GradscopeError

CELL = ("mixture", "guide", "guidance_method", "stabilizer")
_ROUNDING = 1e-5
ALONG_T = (*CELL, "path", "timestep")


class About(NamedTuple):
    """A variable of the store."""

    dims: tuple[str, ...]
    long_name: str
    units: str
    equation: str


def _with_interval(name: str, about: About) -> dict[str, About]:
    interval = About((*about.dims, "bound"), f"95 % interval of {name} over samples", about.units, "")
    return {name: about, f"{name}_interval": interval}


def _of(what: str, vector: str) -> dict[str, About]:
    along, control = ALONG_T, (*CELL, "timestep")
    factor = f"c = sum <{vector}, e> / sum |{vector}|^2"
    return (
        _with_interval(
            f"{what}_cosine",
            About(along, f"cosine of the {what} with the exact gradient, mean over samples", "1",
                  f"mean cos({vector}, e); 0 counts for a {what} without direction"),
        )
        | _with_interval(
            f"{what}_norm_ratio",
            About(along, f"root mean square norm of the {what} relative to the exact gradient's", "1",
                  f"sqrt(sum |{vector}|^2 / sum |e|^2)"),
        )
        | _with_interval(
            f"{what}_bias",
            About(control, f"bias of the {what} over replicates, up to a factor, at the control's x_t", "1",
                  f"sqrt(mean(|c m - e|^2 - c^2 s / R) / mean |e|^2), {factor}"),
        )
        | _with_interval(
            f"{what}_variance",
            About(control, f"variance of the {what} over replicates, up to a factor, at the control's x_t", "1",
                  f"mean(c^2 s) / mean |e|^2, {factor}"),
        )
        | {
            f"mean_{what}_cosine": About(
                (*CELL, "path", "sample"), f"cosine of the {what} with the exact gradient, mean over timesteps and "
                "replicates", "1", f"mean_t cos({vector}, e)"
            )
        }
    )  # fmt: skip


VARIABLES: dict[str, About] = (
    _of("gradient", "g")
    | _of("update", "u")
    | {
        "right": About((*CELL, "replicate", "sample"), "whether the exact classifier of the final sample sees the "
                       "target", "1", "argmax_k p(k|x_0) == y"),
        "dead_fraction": About(ALONG_T, "share of gradients that are 0 or not finite", "1", "mean(|g| == 0)"),
    }
    | _with_interval("accuracy", About(CELL, "share of final samples in which the exact classifier sees the target",
                                       "1", "mean(right); Wilson's interval, as for independent samples of one "
                                       "replicate"))
    | _with_interval("kl", About(CELL, "divergence of the final samples from p(x|y), projected onto each class's plane",
                                 "nat", "KL(q(Px|y) | p(Px|y)), by nearest neighbours"))
    | _with_interval("coverage", About(CELL, "share of the true law over components that the final samples have", "1",
                                       "sum_j min(share_j, expected share_j)"))
    | {
        "guide_accuracy": About(("mixture", "guide", "replicate"), "accuracy of the guide on clean samples, at "
                                "timestep 0", "1", "mean(argmax f(x_0) == y)"),
        "strength": About(("mixture",), "root mean square norm of the shifts of exact guidance", "1",
                          "sqrt(mean |shift|^2)"),
    }
    | {
        f"{who}_{name}": About((*dims,), f"{name} of {words}", units, "")
        for who, words, dims in (
            ("exact", "samples that the exact gradient guides at its own strength", ("mixture",)),
            ("floor", "as many exact draws, mean over sets of them", ("mixture",)),
        )
        for name, units in (("accuracy", "1"), ("kl", "nat"), ("coverage", "1"))
    }
    | {
        f"floor_{name}_interval": About(("mixture", "bound"), f"2.5 and 97.5 % quantiles of the {name} over sets of "
                                        "exact draws", units, "")
        for name, units in (("accuracy", "1"), ("kl", "nat"), ("coverage", "1"))
    }
)  # fmt: skip
"""All variables, by name. e: exact gradient; g: gradient; u: update; m, s: mean and trace of covariance over R
replicates."""


def check(ds: xr.Dataset, where: str) -> xr.Dataset:
    """The dataset, if it holds a leaderboard.

    Raises
    ------
    GradscopeError
        It lacks a variable, one has other dimensions, or a cosine or share lies outside of its range. The message
        begins with `where`.
    """
    for name, about in VARIABLES.items():
        if name not in ds or ds[name].dims != about.dims:
            got = ds[name].dims if name in ds else "none"
            raise GradscopeError(f"{where}: {name} must have the dimensions {about.dims}, got {got}")
        low = -1 if name.endswith("_cosine") else 0
        if name.endswith("_cosine") or name in ("right", "coverage"):
            values = ds[name].values.astype(float)
            if (wrong := (values < low - _ROUNDING) | (values > 1 + _ROUNDING)).any():
                raise GradscopeError(f"{where}: {name} is {values[wrong][0]:g}, outside of [{low}, 1]")
    if 0 in ds.sizes.values():
        raise GradscopeError(f"{where}: a dimension is empty: {dict(ds.sizes)}")
    return ds
