"""The leaderboard: all cells of a configuration, scored one group after the other."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from gradscope.analysis.oracle_variables import VARIABLES
from gradscope.config import OracleConfig
from gradscope.models.device import few_threads, set_device
from gradscope.models.schedulers import configuration_of
from gradscope.oracle.group import PATHS, Values, cells, of_guide, of_mixture
from gradscope.oracle.methods import load_method_at, load_stabilizers
from gradscope.oracle.mixtures import parse
from gradscope.oracle.parts import Parts, folder_of
from gradscope.oracle.place import Place
from gradscope.recording.provenance import provenance
from gradscope.store.derived import ORACLE, save


def leaderboard(
    config: OracleConfig,
    *,
    out: Path | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    command: Sequence[str] = (),
) -> xr.Dataset:
    """Score guidance gradients and updates against the exact gradient of log p_t(y | x_t) on Gaussian mixtures.

    Parameters
    ----------
    config
        Mixtures, guides, methods and stabilisers.
    out
        Path of the store that will hold the result. Finished groups of cells are kept beside it until then, and a later
        call goes on from there. None: nothing is kept.
    on_step
        Called with the number of finished groups and of all groups.
    command
        The command line, for the attributes.

    Returns
    -------
    xarray.Dataset
        Over mixture, guide, guidance_method, stabilizer, path (control, guided), timestep, sample and replicate; see
        `gradscope.analysis.oracle_variables`. Attributes hold the configuration, versions and the command.

    Raises
    ------
    GradscopeError
        A mixture, method or stabiliser is unknown, or a method is not defined for classifiers or for the scheduler.

    Examples
    --------
    >>> config = OracleConfig(mixtures=["points-separated-2"], guides=["exact"], methods={"classifier": {}},
    ...                       stabilizers={"none": {}}, num_inference_steps=4, samples=8)
    >>> ds = leaderboard(config)
    >>> float(ds.gradient_cosine.sel(path="control").mean().round(6))
    1.0
    """
    set_device("cpu")
    methods = {name: load_method_at(name, settings) for name, settings in config.methods.items()}
    stabilizers = load_stabilizers(config.stabilizers)
    for name in config.mixtures:
        parse(name)
    first = Place(config.mixtures[0], config)
    for at in methods.values():
        first.sampler(first.exact, at).schedule(config.num_inference_steps)  # its errors come before any work
    scheduler = configuration_of(first.scheduler)
    settings = {
        "methods": {name: repr(made) for name, made in methods.items()},
        "stabilizers": {name: repr(made) for name, made in stabilizers.items()},
    }
    parts = Parts(out, config.model_dump(mode="json") | settings | {"scheduler": scheduler})
    ds = _empty(config, list(methods), list(stabilizers), first)
    done, total = 0, len(config.mixtures) * len(config.guides) * len(methods)
    for i, mixture in enumerate(config.mixtures):
        with few_threads():
            place = Place(mixture, config)  # one after the other: the paths of images take memory
            _fill(ds, (i,), parts.once(partial(of_mixture, place), mixture))
            for j, kind in enumerate(config.guides):
                _fill(ds, (i, j), parts.once(partial(of_guide, place, kind), mixture, kind))
                for k, (name, at) in enumerate(methods.items()):
                    make = partial(cells, place, kind, at, stabilizers)
                    _fill(ds, (i, j, k), parts.once(make, mixture, kind, name))
                    done += 1
                    on_step(done, total)
    about = provenance(config.model_dump(mode="json"), first.scheduler, {}, [], torch.device("cpu"), command)
    settings_text = {key: json.dumps(entries) for key, entries in settings.items()}
    return ds.assign_attrs(about | settings_text | {"kind": ORACLE})


def save_leaderboard(ds: xr.Dataset, path: Path) -> None:
    """Save a leaderboard, and remove what was kept while it was computed."""
    save(ds, path)
    parts_folder = folder_of(path)
    if parts_folder.is_dir():
        shutil.rmtree(parts_folder)


def _empty(config: OracleConfig, methods: list[str], stabilizers: list[str], place: Place) -> xr.Dataset:
    """The dataset before anything is scored."""
    times = place.schedule.times
    coords: dict[str, tuple[Sequence[Any], str]] = {
        "mixture": (config.mixtures, "Gaussian mixture: kind, overlap and number of classes"),
        "guide": (config.guides, "kind of guide"),
        "guidance_method": (methods, "guidance method, and what the guide sees"),
        "stabilizer": (stabilizers, "stabiliser"),
        "path": (PATHS, "whose x_t: of the unguided trajectories, or of those that the cell guides"),
        "bound": (("low", "high"), "end of an interval"),
        "timestep": ([now.timestep for now in times], "diffusion time, in sampling order"),
        "sample": (range(config.samples), "number of the trajectory"),
        "replicate": (range(config.replicates), "training seed of the guides, and draw of the methods' own noise"),
    }
    ds = xr.Dataset(
        coords={
            name: ((name,), _texts(values), {"long_name": about, "units": "1"})
            for name, (values, about) in coords.items()
        }
    )
    shares = [now.alphas_cumprod for now in times]
    ds = ds.assign_coords(alphas_cumprod=("timestep", shares, {"long_name": "share of signal", "units": "1"}))
    for name, (dims, long_name, units, equation) in VARIABLES.items():
        shape = tuple(ds.sizes[dim] for dim in dims)
        values = np.zeros(shape, np.uint8) if name == "right" else np.full(shape, np.nan, np.float32)
        about = {"long_name": long_name, "units": units} | ({"equation": equation} if equation else {})
        ds[name] = dims, values, about
    return ds


def _texts(values: Sequence[Any]) -> Any:
    return np.array(values, dtype=object) if isinstance(values[0], str) else np.array(values)


def _fill(ds: xr.Dataset, index: tuple[int, ...], values: Values) -> None:
    for name, value in values.items():
        with np.errstate(over="ignore"):  # ratios to a gradient that dies may exceed float32
            ds[name].values[index] = value
