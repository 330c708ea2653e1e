"""Whether judge and feature extractor are independent of the guides: else their numbers say less than they seem to."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr


def also_guides(ds: xr.Dataset) -> dict[str, list[str]]:
    """Guides of a store that are its ``judge`` or ``extractor``, by that; without those that are none.

    The evaluation says so, by the models' weights; where it does not, as in stores of version 0.1, the configuration
    does, by their names.
    """
    about = json.loads(ds.attrs.get("evaluation", "{}"))
    if "also_guides" in about:
        return dict(about["also_guides"])
    guides: Mapping[str, Any] = json.loads(ds.attrs.get("configuration", "{}")).get("classifiers", {})
    same = {
        role: [name for name, spec in guides.items() if spec == about.get(role) is not None]
        for role in ("judge", "extractor")
    }
    return {role: names for role, names in same.items() if names}


def warnings(same: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a reader of the numbers must know, by ``judge`` and ``extractor``; nothing where they are independent."""
    said = {
        "judge": "the judge is no independent one: it has the weights of the guide {}; of samples that it guided it "
        "sees what they were made to show it",
        "extractor": "the distances are not independent of the guides: their features are those of the guide {}; "
        "guidance may lower them without better images",
    }
    return {role: text.format(", ".join(same[role])) for role, text in said.items() if same.get(role)}
