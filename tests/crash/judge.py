"""Judge what an interruption left: values by plain xarray, then what gradscope says of the store, then going on."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from crash.workloads import STORE, Workload

from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.verification.verify import verify

HIDDEN = f".{STORE}"
"""Prefix of names, beside a store, of what is not a store yet or no longer."""
_KEPT = ("status", "configuration_hash", "recorded", "cell_dims", "classes")

_VERIFIED = 8
"""Every such store is verified after going on: its files are those of a sound one anyway."""


class Fault(AssertionError):
    """A promise that was broken."""


def evaluation_of(ds: xr.Dataset) -> dict[str, bytes]:
    """Content of the variables of a store's evaluation, and its judge; empty if there is none."""
    about = json.loads(ds.attrs.get("evaluation", "{}"))
    names = about.get("variables", ())
    return {name: ds[name].values.tobytes() for name in names} | ({"judge": about["judge"]} if about else {})


def plain(store: Path) -> xr.Dataset:
    """A store as plain xarray opens it."""
    return xr.open_zarr(store, chunks=None, mask_and_scale=False)


class Whole:
    """A store that nothing interrupted, with the content of the files of its recorded arrays by path."""

    def __init__(self, store: Path) -> None:
        self.ds = plain(store).load()
        self.evaluation = evaluation_of(self.ds)
        recorded = {*self.ds.attrs["recorded"], *self.ds.coords} - self.evaluation.keys()
        files = (file for name in recorded for file in (store / name).iterdir())
        self.files = {file.relative_to(store).as_posix(): file.read_bytes() for file in files}


@dataclass
class Case:
    """A workload with the stores that may be found: the one before, and the one that it makes."""

    workload: Workload
    before: Whole | None
    after: Whole
    evaluations: list[dict[str, bytes]] = field(default_factory=list)
    _gone_on: int = 0

    def __post_init__(self) -> None:
        both = [whole for whole in (self.before, self.after) if whole is not None]
        self.evaluations += [whole.evaluation for whole in both]

    def reference(self, attributes: Any) -> Whole:
        """The whole store that one with these attributes is a part of."""
        runs = [whole.ds.attrs["run_id"] for whole in (self.before, self.after) if whole is not None]
        replaced = self.before is not None and runs[0] != runs[1] and attributes.get("run_id") == runs[0]
        return self.before if self.before is not None and replaced else self.after

    def judge(self, home: Path, strict: bool = True) -> str:
        """Judge the store in a folder and go on; return ``absent``, ``sound``, ``damaged`` or ``refused``.

        If not `strict`, data may be lost, but a store must not be called sound that is not.

        Raises
        ------
        Fault
            A promise was broken.
        """
        store = home / STORE
        if not store.exists():
            if strict and self.before is not None:
                raise Fault("the store is gone")
            _refused(store)
            self._go_on(home)
            return "absent"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                ds = open_store(store)
            except GradscopeError as error:
                if strict:
                    raise Fault(f"it does not open: {error}") from error
                self._try_to_go_on(home)
                return "refused"
            wrong = self._wrong(store, ds)
            found = [str(finding) for finding in verify(store).findings]
        if strict and (wrong or found):
            raise Fault(f"wrong: {wrong}; verify says: {found}")
        if wrong and not found:
            raise Fault(f"verify finds nothing, but {wrong}")
        if found:
            self._try_to_go_on(home)
            return "damaged"
        self._go_on(home)
        return "sound"

    def unfinished(self, home: Path) -> list[str]:
        """What is wrong with a store that a workload has left without an error."""
        ds = open_store(home / STORE)
        wrong = self._wrong(home / STORE, ds)
        complete = ds.attrs["status"] == "complete" and evaluation_of(ds) == self.after.evaluation
        return wrong + ["it is not complete"] * (not complete or self.reference(ds.attrs) is self.before)

    def _wrong(self, store: Path, ours: xr.Dataset) -> list[str]:
        """What plain xarray finds wrong with a store: values that are marked, coordinates, evaluation, status."""
        try:
            ds = plain(store).load()
        except Exception as error:
            return [f"plain xarray: {type(error).__name__}: {error}"]
        reference = self.reference(ds.attrs)
        try:
            cells = {dim: ds[dim].values for dim in ds.attrs["cell_dims"]}
            whole = reference.ds.sel(cells).isel(sample=slice(ds.sizes["sample"]))
        except KeyError as error:
            return [f"cells that were never recorded: {error}"]
        written, found = ds["written"].values, []
        if not set(np.unique(written)) <= {0, 1, 3}:
            found.append("values of the marker")
        finished = (written > 0).all(axis=-1)
        for name in ds.attrs["recorded"]:
            if name == "written":
                continue
            timed = "timestep" in ds[name].dims
            marked = written >= (3 if "channel" in ds[name].dims else 1) if timed else finished
            if ds[name].values[marked].tobytes() != whole[name].values[marked].tobytes():
                found.append(f"marked values of {name}")
        for name in {*ds.coords} - {*evaluation_of(ds)}:
            known = ds[name].values != -1 if name == "label" else slice(None)
            if ds[name].values[known].tolist() != whole[name].values[known].tolist():
                found.append(f"the coordinate {name}")
        evaluation = evaluation_of(ds)
        if evaluation and evaluation not in self.evaluations:
            found.append("the evaluation is neither the earlier nor the later one")
        earlier = self.before.evaluation if self.before is not None else {}
        if not evaluation and earlier and ds.attrs["run_id"] == self.before.ds.attrs["run_id"]:
            found.append("the evaluation is gone")
        if ours.attrs["status"] == "complete" and not finished.all():
            found.append("it is called complete, but is not")
        if ours.attrs["status"] == "recording":
            found.append("it is said to be recording")
        return found

    def _go_on(self, home: Path) -> None:
        """Go on, and compare with the store that nothing interrupted."""
        try:
            self.workload.redo(home)
        except Exception as error:
            raise Fault(f"it cannot go on: {type(error).__name__}: {error}") from error
        whole, now = self.after, Whole(home / STORE)
        if now.files != whole.files:
            keys = {key for key in {*now.files, *whole.files} if now.files.get(key) != whole.files.get(key)}
            raise Fault(f"other bytes after going on: {sorted(keys)}")
        if now.evaluation != whole.evaluation:
            raise Fault("another evaluation after going on")
        if left := [f.name for f in home.rglob("*") if f.name.endswith(".partial") or f.name.startswith(HIDDEN)]:
            raise Fault(f"left over after going on: {left}")
        if wrong := [key for key in _KEPT if now.ds.attrs.get(key) != whole.ds.attrs.get(key)]:
            raise Fault(f"attributes after going on: {wrong}")
        self._gone_on += 1
        if self._gone_on % _VERIFIED == 1 and (found := verify(home / STORE).findings):
            raise Fault(f"verify, after going on: {[*map(str, found)]}")

    def _try_to_go_on(self, home: Path) -> None:
        """Go on with a store that has lost data: a clear error, or whatever it makes of it."""
        try:
            self.workload.redo(home)
        except GradscopeError:
            pass
        except Exception as error:
            raise Fault(f"going on fails without a clear message: {type(error).__name__}: {error}") from error


def _refused(store: Path) -> None:
    try:
        open_store(store)
    except GradscopeError:
        return
    raise Fault("a store is opened where there is none")
