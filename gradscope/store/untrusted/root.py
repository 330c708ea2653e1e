"""Model of a store's root: read before zarr or xarray interpret the store, which may come from a stranger."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.untrusted import checksum, known
from gradscope.store.untrusted.arrays import Array
from gradscope.store.untrusted.attributes import Attributes
from gradscope.store.untrusted.checks import NAME, Strict, parsed, refusal
from gradscope.text import short

ARRAYS = 1000
"""Largest number of arrays that is read. A run records dozens, and each of them takes time to open."""


def _consolidated(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(arrays := value.get("metadata"), dict):
        raise ValueError("its metadata are not consolidated, so it is not complete")
    if len(arrays) > ARRAYS:
        raise ValueError(f"it has {len(arrays)} arrays, at most {ARRAYS} are read")
    for name in arrays:
        if not NAME.fullmatch(name):
            raise ValueError(f"an array cannot be named {short(name)}")
    return value


class _Consolidated(Strict):
    metadata: dict[str, Array]


class Root(Strict):
    """What gradscope reads of the ``zarr.json`` of a store's root."""

    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: Attributes = Field({}, validate_default=True)
    consolidated_metadata: Annotated[_Consolidated, BeforeValidator(_consolidated)] = Field(None, validate_default=True)

    @property
    def arrays(self) -> dict[str, Array]:
        """Metadata of the arrays by name."""
        return self.consolidated_metadata.metadata


AnyRoot = TypeVar("AnyRoot", bound=Root)


def parse(content: bytes, where: str) -> Root:
    """Parse and check the metadata of a store's root.

    Raises
    ------
    GradscopeError
        The metadata are too large, not JSON, not those of a store that can be read safely, or do not match their
        checksum.
    """
    root = validated(Root, content, where)
    known.check(root.arrays, root.attributes.cell_dims, root.attributes.sample_dims, where)
    if what := checksum.flaw(json.loads(content)):
        raise GradscopeError(f"{where}: {what}")
    return root


def validated(model: type[AnyRoot], content: bytes, where: str) -> AnyRoot:
    """The metadata as a model; errors as those of `parse`."""
    if len(content) > MAX_METADATA_BYTES:
        raise GradscopeError(f"{where}: its metadata take {len(content)} bytes, at most {MAX_METADATA_BYTES} are read")
    try:
        return model.model_validate(parsed(content, "its zarr.json"))
    except ValidationError as error:
        raise refusal(error, where) from None
    except ValueError as error:
        raise GradscopeError(f"{where}: {error}") from None
