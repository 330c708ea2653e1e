"""Model of the root of a store that was computed at once, for example a leaderboard; a run's is `root`."""

from typing import Any

from pydantic import Field, ValidationError

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.untrusted.attributes import Attributes
from gradscope.store.untrusted.checks import Text, parsed, refusal
from gradscope.store.untrusted.root import Root


class _Attributes(Attributes):
    schema_version: Any = None
    kind: Text = ""


class DerivedRoot(Root):
    """What gradscope reads of the ``zarr.json`` of such a store's root."""

    attributes: _Attributes = Field({}, validate_default=True)


def parse_derived(content: bytes, where: str) -> DerivedRoot:
    """Parse and check the metadata of such a store's root.

    Raises
    ------
    GradscopeError
        The metadata are too large, not JSON, or not those of a store that can be read safely.
    """
    if len(content) > MAX_METADATA_BYTES:
        raise GradscopeError(f"{where}: its metadata take {len(content)} bytes, at most {MAX_METADATA_BYTES} are read")
    try:
        return DerivedRoot.model_validate(parsed(content, "its zarr.json"))
    except ValidationError as error:
        raise refusal(error, where) from None
    except ValueError as error:
        raise GradscopeError(f"{where}: {error}") from None
