"""Resume a run that ended before its last block."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from gradscope.config import RunConfig, check
from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.attributes import nested
from gradscope.store.locations.location import Location, StorePath, locate
from gradscope.store.opening import read_attributes

_FREE = ("recording.path", "recording.durable")  # may differ: they do not change what is recorded
_KEPT = ("created", "device", "threads", "versions", "command")


def recorded_config(where: StorePath) -> RunConfig:
    """The configuration that a store was begun with.

    Raises
    ------
    GradscopeError
        There is no store, or it was recorded from Python.
    """
    quoted = shlex.quote(str(where))
    if not locate(where).exists():
        raise GradscopeError(
            f"{where}: nothing is there", command=f"begin with: gradscope record --store {quoted} --config ..."
        )
    recorded = json.loads(open_store(where, dask=False).attrs.get("configuration", "{}"))
    if "classifiers" not in recorded:
        raise GradscopeError(f"{where}: it was recorded from Python; resume it with gradscope.record(..., resume=True)")
    return check(RunConfig, recorded, f"the configuration in {where}")


def refuse_differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any], where: StorePath) -> None:
    """Raise GradscopeError, naming the keys, if a configuration differs from the one that a store was begun with."""
    then, now = dict(_leaves(recorded)), dict(_leaves(wanted))
    both = {**then, **now}
    filled = {key for key, value in both.items() if value == {} and any(other.startswith(f"{key}.") for other in both)}
    keys = [key for key in both if then.get(key) != now.get(key) and key not in (*_FREE, *filled)]
    if keys:
        changes = "; ".join(f"{key} was {then.get(key, 'absent')}, and is {now.get(key, 'absent')}" for key in keys)
        raise GradscopeError(f"{where}: cannot resume: {changes}. Record this run into another store")


def refuse_other_weights(where: StorePath, weights: Mapping[str, str]) -> None:
    """Raise GradscopeError, naming the models, if their weights are not those that a store was begun with."""
    begun = nested(read_attributes(where), "weights_sha256")
    if changed := [key for key in {**begun, **weights} if begun.get(key) != weights.get(key)]:
        raise GradscopeError(f"{where}: the weights of {', '.join(changed)} are not those it was begun with")


def advice(location: Location) -> str:
    """The command that resumes an interrupted run."""
    return f"continue with: gradscope record --resume {shlex.quote(str(location))}"


def resumption(where: StorePath, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The attribute ``resumed`` of a store, with the provenance of this process added.

    Raises
    ------
    GradscopeError
        The configuration, the scheduler or the weights differ from those the store was begun with.
    """
    attributes = open_store(where, dask=False).attrs
    if "configuration" not in attributes:
        raise GradscopeError(f"{where}: cannot resume: it was recorded by gradscope.watch, or by a Recorder of its own")
    refuse_differences(json.loads(attributes["configuration"]), json.loads(provenance["configuration"]), where)
    if "scheduler" in attributes:  # stores of version 0.1 lack it
        then, now = ({"scheduler": json.loads(said["scheduler"])} for said in (attributes, provenance))
        refuse_differences(then, now, where)
    refuse_other_weights(where, provenance["weights_sha256"])
    return {"resumed": [*nested(attributes, "resumed", []), {key: provenance[key] for key in _KEPT}]}


def remarks(where: StorePath) -> list[str]:
    """Differences between the first and the last process that recorded: they may change the last bits of values."""
    attributes = read_attributes(where)
    if not (resumed := nested(attributes, "resumed", [])):
        return []
    begun = {key: attributes.get(key) for key in ("device", "threads")} | {"versions": nested(attributes, "versions")}
    both = {key: (value, resumed[-1].get(key)) for key, value in begun.items()}
    return [f"{key}: begun with {a}, resumed with {b}; bits may differ" for key, (a, b) in both.items() if a != b]


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
