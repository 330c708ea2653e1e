"""What a store must say, whatever happened to it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr
from stateful import actions
from stateful.actions import RECORDED, WATCHED

from gradscope.store import open_store

UNFINISHED = frozenset({"recording", "interrupted", "partial"})
ALL = frozenset(np.ndindex(len(actions.SCALES), len(actions.LABELS)))


@dataclass(frozen=True)
class State:
    """One possible state of a store."""

    kind: str
    seed: int
    finished: frozenset[tuple[int, ...]] = ALL
    """Trajectories (scale, sample) that are finished at least."""
    statuses: frozenset[str] = frozenset({"complete"})
    evaluated: bool = False


Possible = frozenset[State | None]
"""Possible states; None: there is no store."""


def begun(before: Possible, action: str, arguments: tuple) -> Possible:
    """States of a store while an action is under way, or after it was killed."""
    after = ended(before, action, arguments)
    if action == "evaluate" or not after:
        return before | after
    (made,) = {replace(state, evaluated=False) for state in after if state}
    if action == "record" and arguments[1:] == (True,):
        going_on = {replace(state, statuses=UNFINISHED) for state in before if _goes_on(state, made.seed)}
        return before | after | going_on
    # Between two names an overwritten store has none: `.NAME.replaced` beside it is the old one.
    return before | after | {None, replace(made, finished=frozenset(), statuses=UNFINISHED)}


def ended(before: Possible, action: str, arguments: tuple) -> Possible:
    """States of a store after an action succeeded; none where it must be refused."""
    if action == "evaluate":
        return frozenset(replace(state, evaluated=True) for state in before if state)
    seed, *resume = arguments
    if not any(resume):
        return frozenset({State(RECORDED if action == "record" else WATCHED, seed)})
    new = {State(RECORDED, seed)} if None in before else set[State]()
    return frozenset(new | {State(RECORDED, seed, evaluated=s.evaluated) for s in before if _goes_on(s, seed)})


def _goes_on(state: State | None, seed: int) -> bool:
    return state is not None and (state.kind, state.seed) == (RECORDED, seed)


def seen(path: Path, possible: Iterable[State | None]) -> Possible:
    """Those possible states that a store on disk agrees with; what it has finished, it has from now on.

    Raises
    ------
    GradscopeError
        The store cannot be read.
    """
    if not path.exists():
        return frozenset({None} & {*possible})
    ds = open_store(path, dask=False).load()
    return frozenset(found for state in possible if state and (found := _agreeing(ds, state)))


def _agreeing(ds: xr.Dataset, state: State) -> State | None:
    truth = _truth(state.kind, state.seed)
    if any(ds.sizes[dim] > length for dim, length in truth.sizes.items() if dim in ds.sizes):
        return None
    whole = ds.sizes["guidance_scale"], ds.sizes["sample"]
    truth = truth.isel(guidance_scale=slice(whole[0]), sample=slice(whole[1]))  # a watched store grows
    written = ds["written"].values[0, 0, 0]
    finished = {tuple(map(int, at)) for at in np.argwhere((written == 3).all(axis=-1))}
    evaluated = "own_prediction" in ds
    right = state.finished <= finished and ds.attrs["status"] in state.statuses and evaluated == state.evaluated
    if ds.attrs["status"] == "complete":
        right = right and finished == ALL
    for name in json.loads(json.dumps(ds.attrs["recorded"])):
        values, known = (np.asarray(each[name].values)[0, 0, 0] for each in (ds, truth))
        if name == "written":
            right = right and bool(np.isin(values, (0, 1, 3)).all())
        elif name == "image":
            right = right and all(_same(values[at], known[at]) for at in finished if state.kind == RECORDED)
            right = right and all(_same(values[at], known[at]) or np.isnan(values[at]).all() for at in finished)
        else:
            marked = written >= (3 if name == "gradient" else 1)
            right = right and _same(values[marked], known[marked])
    if evaluated:
        predicted, known = (each["own_prediction"].values[0, 0, 0] for each in (ds, truth))
        right = right and bool(((predicted == known) | (predicted == -1)).all())
    return replace(state, finished=frozenset(finished)) if right else None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.tobytes() == other.tobytes()


@cache
def _truth(kind: str, seed: int) -> xr.Dataset:
    """The store of an action that nothing disturbed, evaluated."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        (actions.record if kind == RECORDED else actions.watch)(path, seed)
        actions.evaluate(path)
        return open_store(path, dask=False).load()
