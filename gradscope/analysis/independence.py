"""Are judge and feature extractor independent of the guides? If not, their numbers prove less than they seem to."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr


def also_guides(ds: xr.Dataset) -> dict[str, list[str]]:
    """Guides of a store that also serve as its ``judge`` or its ``extractor``.

    The evaluation compared the models' weights. Stores of version 0.1 lack this; there the names in the configuration
    are compared.

    Returns
    -------
    dict
        Names of the guides under ``judge`` and ``extractor``; a role that no guide has is left out.

    Examples
    --------
    >>> also_guides(xr.Dataset(attrs={"evaluation": '{"also_guides": {"judge": ["robust"]}}'}))
    {'judge': ['robust']}
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
    """What a reader of the numbers must know, under ``judge`` and ``extractor``; empty where both are independent.

    Parameters
    ----------
    same
        As `also_guides` returns it.

    Examples
    --------
    >>> warnings({})
    {}
    """
    texts = {
        "judge": "the judge is not independent: it has the weights of the guide {}, and samples of that guide were "
        "made to convince it",
        "extractor": "the distances are not independent of the guides: their features are those of the guide {}; "
        "guidance may lower them without better images",
    }
    return {role: text.format(", ".join(same[role])) for role, text in texts.items() if same.get(role)}
