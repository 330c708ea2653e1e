"""A comparison of two cells as text, and as HTML for notebooks."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gradscope.analysis.verdict import verdict

if TYPE_CHECKING:
    from gradscope.analysis.comparison import Comparison

_DIFFERENCE = "b - a"


def table(comparison: "Comparison") -> pd.DataFrame:
    """All numbers of a comparison, one row each: diagnostics, then the judge's accuracy, then distances.

    Parameters
    ----------
    comparison
        The comparison.

    Returns
    -------
    pandas.DataFrame
        Columns: the means a and b, their difference ``b - a`` with its 95 % interval from low to high, the number of
        pairs n, p (of diagnostics: p_holm), and note. Entries that do not exist are NaN or empty.
    """
    scalars = comparison.scalars.drop(columns=["effect", "p"]).rename(
        columns={"mean_a": "a", "mean_b": "b", "estimate": _DIFFERENCE, "p_holm": "p"}
    )
    further: list[dict[str, Any]] = []
    if (test := comparison.accuracy) is not None:
        bounds = {_DIFFERENCE: test.estimate, "low": test.low, "high": test.high}
        further.append({"diagnostic": "judge_accuracy"} | bounds | {"n": test.n, "p": test.p, "note": test.note})
    further += [
        {"diagnostic": name, _DIFFERENCE: found.estimate, "low": found.low, "high": found.high, "note": ""}
        for name, found in comparison.distance.items()
    ]
    records: list[Any] = [*scalars.to_dict("records"), *further]
    rows = pd.DataFrame(records, columns=["diagnostic", "a", "b", _DIFFERENCE, "low", "high", "n", "p", "note"])
    return rows.astype({"n": "Int64"}).set_index("diagnostic")


def as_text(comparison: "Comparison") -> str:
    """The comparison as text: both cells, the table, and what else there is to say."""
    rows = table(comparison)
    shown = rows.to_string(formatters={"n": _count}, float_format=_number, na_rep="-", index_names=False)
    return "\n".join([*_head(comparison), shown, *_remarks(comparison)])


def as_html(comparison: "Comparison") -> str:
    """The comparison as a part of an HTML page. Names of the store are escaped."""
    head, remarks = ("<br>".join(map(escape, lines)) for lines in (_head(comparison), _remarks(comparison)))
    shown = table(comparison).to_html(formatters={"n": _count}, float_format=_number, na_rep="-", index_names=False)
    return f"<p>{head}</p>\n{shown}\n<p>{remarks}</p>"


def _head(comparison: "Comparison") -> Iterator[str]:
    what = "b - a with its 95 % interval; p of diagnostics after Holm's correction"
    yield f"Comparison of two cells over {comparison.samples} samples; {what}"
    for name in ("a", "b"):
        yield f"{name}: {_named(getattr(comparison, name))}"
    yield verdict(comparison)


def _named(cell: Mapping[str, str | float]) -> str:
    return ", ".join(f"{dim} {value}" for dim, value in cell.items())


def _remarks(comparison: "Comparison") -> Iterator[str]:
    for name, clusters in comparison.curves.items():
        for found in clusters:
            yield f"{name} at timesteps {found.first} to {found.last}: p {_number(found.p)}"
    for name, reason in comparison.missing.items():
        yield f"no {name}: {reason}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _count(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.0f}"
