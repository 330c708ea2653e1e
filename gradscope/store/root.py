"""The metadata of a store's root."""

import json
from collections.abc import Mapping
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.store.attributes import as_texts
from gradscope.store.locations.location import ROOT, Location, StorePath, locate, writing
from gradscope.store.untrusted import checksum


class Root:
    """The root's metadata, which include those of all arrays. `write` replaces them atomically.

    Raises
    ------
    GradscopeError
        There is no store, or its metadata do not match their checksum: another one would hide the damage.
    """

    def __init__(self, location: Location) -> None:
        content = location.read(ROOT)
        if content is None:
            raise GradscopeError(f"{location}: the store no longer exists")
        self._location = location
        self._document = json.loads(content)
        if what := checksum.flaw(self._document):
            raise GradscopeError(f"{location}: {what}")
        self.attributes: dict[str, Any] = self._document["attributes"]
        self.arrays: dict[str, Any] = self._document["consolidated_metadata"]["metadata"]

    def write(self) -> None:
        self._document["consolidated_metadata"]["metadata"] = self.arrays
        self._document["attributes"] = self.attributes
        self._location.replace(ROOT, sealed(self._document))


def sealed(document: Mapping[str, Any]) -> bytes:
    """The content of a root's ``zarr.json``, with a checksum among its attributes since schema version 3."""
    about = document["attributes"]
    if about.get("schema_version", 1) >= checksum.SINCE:
        about[checksum.KEY] = checksum.checksum(json.loads(json.dumps(document)))
    return json.dumps(document, indent=2).encode()


def set_attributes(where: StorePath, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a store; the others keep their values."""
    location = locate(where)
    with writing(location):
        root = Root(location)
        root.attributes |= as_texts(attributes)
        root.write()
