"""What differs between the configurations of two stores."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import xarray as xr

_HASH = 12
"""Characters of a weights' hash that are shown."""


def configuration_differences(a: xr.Dataset, b: xr.Dataset) -> pd.DataFrame:
    """The settings in which two stores differ.

    Parameters
    ----------
    a, b
        Stores. Their attributes are read, nothing else.

    Returns
    -------
    pandas.DataFrame
        One row for each key: ``key``, joined by dots as in ``sampling.seed``; ``a`` and ``b``, the values as text,
        empty where a store lacks the key. The keys are those of the configuration, the hash of each model's weights
        under ``weights``, and the scheduler's settings under ``scheduler``.

    Examples
    --------
    >>> stores = [xr.Dataset(attrs={"configuration": f'{{"sampling": {{"seed": {seed}}}}}'}) for seed in (0, 1)]
    >>> configuration_differences(*stores).to_dict("records")
    [{'key': 'sampling.seed', 'a': '0', 'b': '1'}]
    """
    first, second = (dict(_settings(ds)) for ds in (a, b))
    keys = [key for key in (*first, *(key for key in second if key not in first)) if first.get(key) != second.get(key)]
    rows = [{"key": key, "a": first.get(key, ""), "b": second.get(key, "")} for key in keys]
    return pd.DataFrame(rows, columns=["key", "a", "b"])


def judge_of(ds: xr.Dataset) -> str:
    """The judge of a store: its name, and the start of its weights' hash where the evaluation kept it."""
    about = _read(ds, "evaluation")
    weights = about.get("weights_sha256", {}).get("judge", "")
    name = about.get("judge", _read(ds, "configuration").get("judge", "unknown"))
    return f"{name} {weights[:_HASH]}".strip()


def _settings(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    yield from _flat(_read(ds, "configuration"))
    yield from ((f"weights.{key}", value[:_HASH]) for key, value in _flat(_read(ds, "weights_sha256")))
    yield from ((f"scheduler.{key}", value) for key, value in _flat(_read(ds, "scheduler")))


def _read(ds: xr.Dataset, name: str) -> Mapping[str, Any]:
    """An attribute that holds JSON; empty where it is missing or no mapping."""
    value = ds.attrs.get(name, {})
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Keys joined by dots, and values as text. An empty mapping is a value: ``stabilizers.none`` has no settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if isinstance(value, str) else json.dumps(value)
