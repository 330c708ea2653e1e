"""Loading a model's weights from a checkpoint, in the forms that training code writes.

The weights are a mapping of names to tensors: the file itself, or one of its entries (``state_dict``, ``model``, ...).
Wrappers put a prefix before every name: ``module.`` (DistributedDataParallel), ``_orig_mod.`` (torch.compile),
``model.`` (Lightning), or several of them. Entry and prefix are those below which the model's own names lie.
"""

import argparse
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.models import cards

State = Mapping[str, Tensor]
Kind = Literal["ema", "raw"]

_ORDER = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
"""Entries in order of preference: those of `timm.models.load_state_dict`, and one more at the end."""
_AVERAGES = {"ema", "shadow", "averaged"}
"""Words in the name of a moving average of the weights."""


@dataclass(frozen=True)
class _Part:
    """Tensors of one entry whose names begin with one prefix."""

    entry: str
    """Empty if the file itself is the mapping of names to tensors."""
    prefix: str
    state: State
    unused: tuple[str, ...]
    """Names of the entry that do not begin with the prefix."""
    known: int
    """Number of names that the model has, too."""

    def __str__(self) -> str:
        return " below ".join(repr(name) for name in (self.entry, self.prefix) if name) or "its tensors"

    @property
    def kind(self) -> Kind:
        name = f"{self.entry}.{self.prefix}"
        return "ema" if "EMA" in name or _AVERAGES & {*re.split(r"[._]", name.lower())} else "raw"

    @property
    def rank(self) -> int:
        return _ORDER.index(self.entry) if self.entry in _ORDER else len(_ORDER)


def load_checkpoint(model: nn.Module, path: Path, where: str, kind: Kind | None = None, about: str = "") -> None:
    """Load the weights of a file into `model`, in the model's types. No code of the file runs.

    Parameters
    ----------
    model
        The model to fill.
    path
        A safetensors file, or a file that `torch.load` reads with ``weights_only`` (`argparse.Namespace` is allowed,
        since timm's files have one).
    where
        The model's configuration key, for errors.
    kind
        The raw weights, or their moving average (ema). Default: the average if the file has one, as timm does; a
        warning says so.
    about
        Description of the model, for errors.

    Raises
    ------
    GradscopeError
        The file cannot be read, its weights do not fit the model, or several sets of them fit.
    """
    key = f"{where}.checkpoint"
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    parts = [part for entry, state in _entries(_read(path, key)) for part in _parts(entry, state, names)]
    if not parts:
        raise GradscopeError(
            f"{key}: {path} holds no mapping of layers to tensors, neither itself nor under a key "
            "(state_dict, model, ...)"
        )
    fitting = [part for part in parts if part.known == len(names)]
    if kind is None and fitting and not any(part.kind == "ema" for part in fitting):
        _refuse_other_average(parts, names, where, path)
    part = _chosen(fitting, kind, where, path) if fitting else max(parts, key=lambda part: part.known)
    if fitting and part.unused:
        _warn(f"{key}: {path}: these weights are not the model's and are not used: {_some(part.unused)}")
    at = f"{key}: {path}{f' ({about})' if about else ''}"
    if part.entry or part.prefix:
        at += f", {part},"
    if not part.known:
        at += f" whose layers are {_some(part.state)},"
    counters = {name: value for name, value in model.state_dict().items() if name not in names}
    cards.load_state(model, counters | dict(part.state), at)  # torch before 0.4.1 wrote no counters of batches


def _refuse_other_average(parts: list[_Part], names: list[str], where: str, path: Path) -> None:
    """Raise GradscopeError if a moving average of the weights does not fit the model, but raw weights do."""
    for part in parts:
        if part.kind == "ema" and part.known:
            missing = [name for name in names if name not in part.state]
            raise GradscopeError(
                f"{where}.checkpoint: {path} has a moving average of the weights, {part}, which is preferred, but it "
                f"lacks {_some(missing)}; {where}.weights: raw takes the raw weights"
            )


def _read(path: Path, key: str) -> Any:
    if not os.path.isfile(path):
        raise GradscopeError(f"{key}: no file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        objects = _objects(path)
        reason = f"it holds {_some(objects)}; save only tensors, model.state_dict()" if objects else str(error)
        raise GradscopeError(f"{key}: {path} cannot be read as weights: {reason}") from error


def _objects(path: Path) -> list[str]:
    """Names of Python objects in a torch file that tensors do not need; none of them is imported."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # it is no torch file
        return []
    return [name for name in found if name != "argparse.Namespace"]


def _entries(content: Any) -> Iterator[tuple[str, State]]:
    """The mappings of names to tensors in a file, with their key; an empty key for the file itself."""
    if _is_state(content):
        yield "", content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if _is_state(value):
                yield str(key), value
            elif isinstance(value, Mapping):  # {ema: {model: ..., decay: ...}}
                yield from ((f"{key}.{inner}", state) for inner, state in value.items() if _is_state(state))


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _parts(entry: str, state: State, names: Iterable[str]) -> Iterator[_Part]:
    """An entry's tensors for each prefix that one of the model's names has there; otherwise the whole entry."""
    wanted, known = set(names), Counter[str]()
    for name in state:
        for dot in [-1, *(i for i, letter in enumerate(name) if letter == ".")]:
            known[name[: dot + 1]] += name[dot + 1 :] in wanted
    prefixes = [""] if known[""] == len(wanted) else [prefix for prefix in known if known[prefix]] or [""]
    for prefix in prefixes:
        below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        yield _Part(entry, prefix, below, tuple(n for n in state if not n.startswith(prefix)), known[prefix])


def _chosen(fitting: list[_Part], kind: Kind | None, where: str, path: Path) -> _Part:
    """The part to take among several that fit."""
    averages = [part for part in fitting if part.kind == "ema"]
    raw = [part for part in fitting if part.kind == "raw"]
    candidates = (averages or raw) if kind is None else {"ema": averages, "raw": raw}[kind]
    if not candidates:
        there = ", ".join(map(str, fitting))
        raise GradscopeError(f"{where}.weights: got {kind}, but {path} has none under that name; it has {there}")
    chosen = min(candidates, key=lambda part: part.rank)
    others = [p for p in candidates if p is not chosen and p.rank == chosen.rank and not _same(p, chosen)]
    if others:
        raise GradscopeError(
            f"{where}.checkpoint: {path} holds several sets of weights of this model: {_some([chosen, *others])}; save "
            "the one you mean to its own file"
        )
    if kind is None and averages and raw:
        _warn(
            f"{where}.checkpoint: {path}: took the moving average of the weights, {chosen}, as timm does, not the raw "
            f"weights, {raw[0]}; set {where}.weights to ema or raw to choose, without this warning"
        )
    return chosen


def _same(a: _Part, b: _Part) -> bool:
    return a.state.keys() == b.state.keys() and all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def _some(values: Iterable[Any]) -> str:
    first, *_ = listed = [str(value) for value in values]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _warn(text: str) -> None:
    warnings.warn(text, GradscopeWarning, stacklevel=3)
