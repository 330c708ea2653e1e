"""The checksum of a store's ``zarr.json``, over its attributes and the metadata of its arrays.

It is one of the attributes. Metadata that are written with other white space, or in another order, have the same one.
"""

import json
from collections.abc import Mapping
from typing import Any

from google_crc32c import value as crc32c

from gradscope.store.arrays import is_dotted

KEY = "metadata_crc32c"
"""Name of the attribute: eight hexadecimal digits, or `UNCHECKED`."""
UNCHECKED = "none"
"""Value of the attribute in a store whose metadata were edited on purpose."""
SINCE = 3
"""First schema version with this attribute."""


def checksum(document: Mapping[str, Any]) -> str:
    """CRC-32C of a parsed ``zarr.json``, without the attribute itself, as eight hexadecimal digits."""
    attributes = {key: value for key, value in document["attributes"].items() if key != KEY}
    text = json.dumps({**document, "attributes": attributes}, sort_keys=True)
    return f"{crc32c(text.encode()):08x}"


def is_summed(document: Mapping[str, Any]) -> bool:
    """Whether a parsed ``zarr.json`` has a checksum that must match. Copies that xarray wrote have none."""
    about = document["attributes"]
    arrays = document["consolidated_metadata"]["metadata"].values()
    known = KEY in about or about.get("schema_version", 1) >= SINCE
    return known and about.get(KEY) != UNCHECKED and any(map(is_dotted, arrays))


def flaw(document: Mapping[str, Any]) -> str | None:
    """What is wrong with the checksum of a parsed ``zarr.json``; None if it matches, or if there is none to check."""
    if not is_summed(document) or document["attributes"].get(KEY) == checksum(document):
        return None
    return (
        f"its metadata do not match their checksum: they are damaged, or another program changed them; if you meant to "
        f"change them, set the attribute {KEY} to {UNCHECKED!r}"
    )
