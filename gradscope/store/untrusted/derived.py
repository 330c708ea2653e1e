"""Model of the root of a store that was computed at once, for example a leaderboard; a run's is `root`."""

from typing import Any

from pydantic import Field

from gradscope.store.untrusted.attributes import Attributes
from gradscope.store.untrusted.checks import Text
from gradscope.store.untrusted.root import Root, validated


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
    return validated(DerivedRoot, content, where)
