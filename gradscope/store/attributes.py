"""Attributes of a store that hold more than one value: JSON texts, which every format takes as an attribute."""

import json
from collections.abc import Mapping
from typing import Any

NESTED = ("versions", "weights_sha256", "deviation", "resumed")
"""Mappings, or lists of them. The first stores have them as they are, and not as text."""


def nested(attributes: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """What an attribute of `NESTED` holds, in either form; `absent` (default: an empty mapping) where it is missing."""
    value = attributes.get(key, {} if absent is None else absent)
    return json.loads(value) if isinstance(value, str) else value


def as_texts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with those of `NESTED` as JSON."""
    return {
        key: json.dumps(value) if key in NESTED and not isinstance(value, str) else value
        for key, value in attributes.items()
    }
