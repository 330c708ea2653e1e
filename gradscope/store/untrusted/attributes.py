"""Model of the attributes of a store's root."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from gradscope.store.dims import CELL_DIMS
from gradscope.store.schema import VERSION
from gradscope.store.untrusted.checks import NAME, Count, Mapping, Positive, Strict, Text, Texts, parsed, wanted
from gradscope.text import short
from probes.variable import IMAGE_DIMS


def _version(version: Any) -> int:
    if version is None:
        raise ValueError("it is a zarr store, but not one of gradscope's (no schema_version)")
    if type(version) is not int or version < 1:
        raise ValueError(f"schema_version must be a whole number of at least 1, got {short(version)}")
    if version > VERSION:
        raise ValueError(f"it has schema version {short(version)}, this gradscope reads up to {VERSION}")
    return version


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names) or not all(map(NAME.fullmatch, names)):
        raise ValueError("not different names")
    return names


def _of_cells(names: list[str]) -> list[str]:
    if tuple(names[: len(CELL_DIMS)]) != CELL_DIMS:
        raise ValueError("others come first")
    return names


def _counts(values: dict[Any, Any]) -> dict[str, int]:
    if not all(type(count) is int and abs(count) < 2**63 for count in values.values()):
        raise ValueError("not counts")
    return values


def _embedded(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("wanted", "JSON text")
    return parsed(value, str(info.field_name))


def _either(value: Any, info: ValidationInfo) -> Any:
    """Mappings are stored as JSON text; in older stores as they are."""
    return _embedded(value, info) if isinstance(value, str) else value


_Embedded, _Either = BeforeValidator(_embedded), BeforeValidator(_either)
_Names = Annotated[list[str], Field(min_length=1, max_length=8), AfterValidator(_different)]
_Number = Annotated[float, Field(gt=-(2**63), lt=2**63)]
_Interval = Annotated[
    Annotated[list[_Number], Field(min_length=2, max_length=2)] | None, wanted("two timesteps, or null")
]


class _Guidance(Strict):
    interval: _Interval = None


class _Recording(Strict):
    tensor_samples: Count = 0
    tensor_every: Positive = 1


class _Configuration(_Guidance):
    """Parts of a configuration that are read from stores; `interval` is here in older ones."""

    guidance: _Guidance = _Guidance()
    recording: _Recording = _Recording()
    sampling: Mapping = {}
    classifiers: Mapping = {}


class _Evaluation(Strict):
    distances: Texts = []
    variables: Texts = []
    excluded: Annotated[dict[Any, Any], AfterValidator(_counts), wanted("a mapping of counts")] = {}


class Attributes(Strict):
    """The attributes that gradscope reads. A store may have others."""

    schema_version: Annotated[Any, AfterValidator(_version)] = Field(None, validate_default=True)
    status: Text = ""
    run_id: Text = ""
    configuration_hash: Text = ""
    created: Text = ""
    device: Text = ""
    command: Text = ""
    coordinates: Text = ""
    guidance_kind: Text = ""
    unseen: Annotated[Mapping, _Embedded] = {}
    seen: Annotated[Mapping, _Embedded] = {}
    classes: Texts = []
    recorded: Texts = []
    cell_dims: Annotated[_Names, AfterValidator(_of_cells), wanted(f"{', '.join(CELL_DIMS)}, and further names")] = (
        list(CELL_DIMS)
    )
    sample_dims: Annotated[_Names, wanted("one to eight names")] = list(IMAGE_DIMS)
    repetitions: Annotated[list[Positive], Field(max_length=10**6, fail_fast=True), wanted("a list of counts")] = []
    resumed: Annotated[list[dict[Any, Any]], Field(fail_fast=True), wanted("a list of mappings"), _Either] = []
    versions: Annotated[Mapping, _Either] = {}
    weights_sha256: Annotated[Mapping, _Either] = {}
    deviation: Annotated[Mapping, _Either] = {}
    configuration: Annotated[_Configuration, _Embedded] = _Configuration()
    evaluation: Annotated[_Evaluation, _Embedded] = _Evaluation()
