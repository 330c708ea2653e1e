"""Attributes of a store that hold mappings. They are stored as JSON text, because netCDF has no mappings."""

import json
from collections.abc import Mapping
from typing import Any

NESTED = ("versions", "weights_sha256", "deviation", "resumed")
"""Attributes that hold a mapping or a list of mappings. In older stores they are not text."""


def nested(attributes: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """Value of an attribute of `NESTED`, read from either form; `absent` (default: an empty mapping) if missing."""
    value = attributes.get(key, {} if absent is None else absent)
    return json.loads(value) if isinstance(value, str) else value


def as_texts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes, with those of `NESTED` as JSON text."""
    return {
        key: json.dumps(value) if key in NESTED and not isinstance(value, str) else value
        for key, value in attributes.items()
    }
