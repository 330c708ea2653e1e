"""Check that a store's metadata agree with each other and with its files."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.store.arrays import is_dotted
from gradscope.store.config_hash import config_hash
from gradscope.store.dims import CELL_DIMS, COORDINATES, cell_dims_of, sample_dims_of
from gradscope.store.grid import AUXILIARY
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.locations.location import ROOT, Location
from gradscope.store.replacement import journaled
from gradscope.store.schema import VERSION, WRITTEN
from gradscope.store.untrusted import checksum
from gradscope.store.untrusted.checks import NAME, parsed
from gradscope.store.untrusted.content import check_links
from gradscope.store.untrusted.root import ARRAYS, parse
from probes.variable import IMAGE_DIMS

MOST = 20
"""Number of findings about an array that are listed."""
_CONSOLIDATED = {"kind": "inline", "must_understand": False}
_STATUS = ("recording", "interrupted", "partial", "complete")
RECORD_AGAIN = "record the run again"
_SPACE = "its white space, or the way that its numbers are written, was changed; its content is right"


@dataclass(frozen=True)
class Finding:
    """An error in a store."""

    array: str
    """Name of the array; empty if the finding is not about one."""
    place: str
    """File, chunk, or cell, sample and timestep."""
    what: str
    """What is wrong."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{': '.join(filter(None, (self.place, self.what)))}; {self.remedy}"


def bounded(found: Iterator[Finding], most: int = MOST) -> Iterator[Finding]:
    """At most `most` findings of each array, then one that says that there are more."""
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding.array] = count = counts.get(finding.array, 0) + 1
        if count <= most:
            yield finding
        elif count == most + 1:
            yield Finding(finding.array, finding.array, "and more of this kind", finding.remedy)


class Metadata:
    """The metadata of a store's root, with its copies of the arrays' metadata.

    Raises
    ------
    GradscopeError
        There is no store, or this version does not read it.
    """

    def __init__(self, location: Location) -> None:
        content = location.read(ROOT)
        if content is None:
            raise GradscopeError(f"{location} is not a zarr store (no {ROOT} in it)")
        self._location = location
        self.files: Mapping[str, int] = dict(location.listing())
        """Size in bytes of every file or object, by key."""
        self.refused = ""
        """Why the store cannot be read; empty if it can."""
        self.being_replaced = journaled(location)
        """Arrays of an evaluation that is running or was interrupted. The arrays in the root are complete."""
        self.document = _document(content)
        self._content = content
        try:
            parse(content, str(location))
            if location.path is not None:
                check_links(location.path)
        except GradscopeError as error:
            if not self._is_store():
                raise
            self.refused = str(error).removeprefix(f"{location}").lstrip(":, ")

    def _is_store(self) -> bool:
        """Whether it is a damaged gradscope store, and not something else."""
        version = self.attributes.get("schema_version")
        if type(version) is int and version > VERSION:
            return False
        return version is not None or self._location.read(f"{WRITTEN.name}/{ROOT}") is not None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The root's attributes."""
        return _mapping(self.document.get("attributes"))

    @property
    def arrays(self) -> Mapping[str, Any]:
        """The root's copies of the arrays' metadata, by name."""
        return _mapping(_mapping(self.document.get("consolidated_metadata")).get("metadata"))

    @property
    def evaluation(self) -> frozenset[str]:
        """Names of the arrays that an evaluation added."""
        return frozenset(_texts(_embedded(self.attributes, "evaluation").get("variables")))

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """Dimensions of cells."""
        return cell_dims_of({"cell_dims": _texts(self.attributes.get("cell_dims")) or CELL_DIMS})

    @property
    def sample_dims(self) -> tuple[str, ...]:
        """Dimensions of a sample."""
        return sample_dims_of({"sample_dims": _texts(self.attributes.get("sample_dims")) or IMAGE_DIMS})

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Coordinates that every store of this schema version has."""
        later = ("signal", "noise", "log_snr") if self.attributes.get("schema_version") == 1 else ()
        return (*(name for name in COORDINATES if name not in later), *self.cell_dims[len(CELL_DIMS) :])

    @property
    def auxiliary(self) -> str:
        """Value of the attribute `coordinates` in a store of this schema version."""
        return " ".join(name for name in AUXILIARY.split() if name in self.coordinates)

    @property
    def recorded(self) -> frozenset[str]:
        """Names of the recorded arrays: as listed or, in older stores, judged by their dimensions."""
        if "recorded" in self.attributes:
            return frozenset(_texts(self.attributes["recorded"]))
        over = [*self.cell_dims, "sample"]
        found = (name for name, about in self.arrays.items() if _dims(about)[: len(over)] == over)
        return frozenset(found) - self.evaluation

    @property
    def is_copy(self) -> bool:
        """Whether xarray wrote the store, as a copy or a selection of another one."""
        return not is_dotted(_mapping(self.arrays.get(WRITTEN.name)))

    @property
    def recording(self) -> Mapping[str, Any]:
        """Settings under ``recording``; empty if the store has none."""
        return _mapping(_embedded(self.attributes, "configuration").get("recording"))

    @property
    def is_summed(self) -> bool:
        """Whether the root has a checksum, and no copy made by xarray; only if `refused` is empty."""
        return checksum.is_summed(self.document)

    def findings(self) -> Iterator[Finding]:
        """Findings about the metadata."""
        if self.refused:
            yield Finding("", ROOT, self.refused, RECORD_AGAIN)
        elif self.is_summed and not _is_as_written(self._content, self.document):
            yield Finding("", ROOT, _SPACE, "format it as JSON")
        if len(self.arrays) > ARRAYS:
            return
        yield from self._differing()
        yield from self._missing()
        yield from self._foreign()
        yield from self._attributes()

    @property
    def resume(self) -> str:
        """The command that resumes the recording; for one from Python, the call."""
        configured = "classifiers" in _embedded(self.attributes, "configuration")
        quoted = shlex.quote(str(self._location))
        return f"gradscope record --resume {quoted}" if configured else "gradscope.record(..., resume=True)"

    def remedy(self, name: str) -> str:
        """How to restore an array."""
        if name in self.evaluation:
            return f"`gradscope evaluate {shlex.quote(str(self._location))}` makes it again"
        return RECORD_AGAIN

    def _differing(self) -> Iterator[Finding]:
        for name, copy in self.arrays.items():
            place = f"{name}/{ROOT}"
            if not NAME.fullmatch(name) or name in self.being_replaced:
                continue  # refused already, or being replaced or enlarged: the copy in the root counts
            if self.files.get(place, 0) > MAX_METADATA_BYTES:
                yield Finding(name, place, f"it takes {self.files[place]} bytes", self.remedy(name))
                continue
            content, why = _read(self._location, place)
            if content is None and name == WRITTEN.name and place not in self.files:
                yield Finding(name, place, why, f"the next evaluation or resumption makes it from the copy in {ROOT}")
            elif content is None:
                yield Finding(name, place, why, f"restore it from the copy in {ROOT}, or {self.remedy(name)}")
            elif keys := _differing_keys(own := _document(content), _mapping(copy)):
                what = (
                    f"it differs from the copy in {ROOT} in {', '.join(keys)}" if own else "it cannot be read as JSON"
                )
                yield Finding(
                    name, place, what, f"restore it from the copy in {ROOT}; if that is wrong, {self.remedy(name)}"
                )
            elif not self.refused and self.is_summed and not _is_as_written(content, own):
                yield Finding(name, place, _SPACE, f"restore it from the copy in {ROOT}")

    def _missing(self) -> Iterator[Finding]:
        needed = {*self.cell_dims, "sample", "timestep", "label", WRITTEN.name}
        if not self.is_copy:  # a selection may leave out variables
            needed |= {*self.coordinates, *self.recorded, *self.evaluation}
        for name in sorted(needed - self.arrays.keys()):
            yield Finding(name, name, "the array is missing", self.remedy(name))

    def _foreign(self) -> Iterator[Finding]:
        if "recorded" not in self.attributes or self.is_copy:
            return
        own = {dim for name in self.recorded for dim in _dims(self.arrays.get(name))}
        known = {*self.coordinates, *self.recorded, *self.evaluation, *own}
        for name in self.arrays:
            if name not in known:
                what = "neither the recording nor the evaluation has this array"
                yield Finding(name, name, what, "remove it from the store")

    def _attributes(self) -> Iterator[Finding]:
        """Findings about the root's attributes, in stores that list what they record."""
        if "recorded" not in self.attributes:
            if any(_mapping(codec).get("name") == "crc32c" for codec in self._codecs(WRITTEN.name)):
                yield Finding("", f"{ROOT}, recorded", "the names of the recorded arrays are missing", RECORD_AGAIN)
            return
        consolidated = _mapping(self.document.get("consolidated_metadata"))
        if (about := {key: value for key, value in consolidated.items() if key != "metadata"}) != _CONSOLIDATED:
            yield Finding("", f"{ROOT}, consolidated_metadata", f"{about}, wanted: {_CONSOLIDATED}", RECORD_AGAIN)
        if (status := self.attributes.get("status")) not in _STATUS:
            what = f"it is {status!r}; one of: {', '.join(_STATUS)}"
            yield Finding("", f"{ROOT}, status", what, f"`{self.resume}` sets it")
        if (named := self.attributes.get("coordinates")) != self.auxiliary and not self.is_copy:
            yield Finding("", f"{ROOT}, coordinates", f"they are {named!r}, wanted: {self.auxiliary!r}", RECORD_AGAIN)
        said = self.attributes.get("configuration_hash")
        if said is not None and said != (digest := self._hash()):
            yield Finding("", f"{ROOT}, configuration", f"its hash is {digest}, not {said}", RECORD_AGAIN)

    def _codecs(self, name: str) -> list[Any]:
        codecs = _mapping(self.arrays.get(name)).get("codecs")
        return codecs if isinstance(codecs, list) else []

    def _hash(self) -> str:
        """Hash of the stored configuration and, if stored, the scheduler's settings."""
        scheduler = _embedded(self.attributes, "scheduler") if "scheduler" in self.attributes else None
        return config_hash(_embedded(self.attributes, "configuration"), scheduler)


def _read(location: Location, key: str) -> tuple[bytes | None, str]:
    """Content of a key; None, and why, if it cannot be read."""
    try:
        content = location.read(key)
    except GradscopeError as error:
        return None, str(error)
    return content, "" if content is not None else "it is missing"


def _differing_keys(own: Mapping[str, Any], copy: Mapping[str, Any]) -> list[str]:
    """Keys at which two documents differ, compared as JSON text, where NaN equals NaN."""
    both = {key: [json.dumps(each.get(key), sort_keys=True) for each in (own, copy)] for key in {*own, *copy}}
    return sorted(key for key, (ours, theirs) in both.items() if ours != theirs)


def _is_as_written(content: bytes, document: Mapping[str, Any]) -> bool:
    """Whether a JSON file is one that a program writes of its content, to the byte, with any indent."""
    second = content.partition(b"\n")[2]
    indent = len(second) - len(second.lstrip(b" ")) if second else None
    return content.decode(errors="replace") in (
        json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
        for ascii_only in (True, False)
        for separators in (None, (",", ":"))
    )


def _document(content: str | bytes) -> dict[str, Any]:
    """The mapping that JSON text holds; empty if it holds none, or one that is nested too deep."""
    try:
        return _mapping(parsed(content, ROOT))
    except ValueError:
        return {}


def _embedded(attributes: Mapping[str, Any], key: str) -> dict[str, Any]:
    text = attributes.get(key)
    return _document(text) if isinstance(text, str) else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _dims(about: Any) -> list[str]:
    return _texts(_mapping(about).get("dimension_names"))
