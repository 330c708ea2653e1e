"""Which combinations of scheduler, prediction, method and guide are exact, from what `tests/exactness.py` measured."""

import json
from pathlib import Path
from typing import Any

from markdown_tables import code, escaped, table

MEASURED = Path(__file__).parents[2] / "tests" / "exactness.json"
_FIRST, _PLAIN = "classifier", "classifier f(x)"


def text() -> str:
    """Tables by prediction, by method and by guide, and the reasons of refusals."""
    found = {tuple(key.split(" | ")): value for key, value in json.loads(MEASURED.read_text(encoding="utf-8")).items()}
    schedulers, predictions, methods, guides = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    of_predictions = [
        (code(s), _evaluations(found, s), *(_cell(found.get((s, p, _FIRST, _PLAIN))) for p in predictions))
        for s in schedulers
    ]
    of_methods = []
    for s in schedulers:
        p = next(key[1] for key in found if key[0] == s)
        row = (found.get((s, p, m, "measurement" if m == "pigdm" else _PLAIN)) for m in methods)
        of_methods.append((code(s), *map(_cell, row)))
    of_guides = [
        (f"{code(s)}, {escaped(g)}", *(_cell(found.get((s, "epsilon", m, g))) for m in methods))
        for s in ("ddpm", "ddim")
        for g in guides
    ]
    reasons = dict.fromkeys(_reason(value["refused"]) for value in found.values() if value["refused"])
    return "\n".join(
        [
            "**By prediction**, with classifier guidance:\n",
            table(("scheduler", "evaluations in five steps", *map(code, predictions)), of_predictions),
            "**By method**, with the first prediction; PiGDM with a measurement, the others with a classifier. "
            "`freedom` and `universal` are measured with `recurrence: 2`, which solvers that step on from a sample "
            "that they kept refuse. With `recurrence: 1` `universal` runs on these, too:\n",
            table(("scheduler", *map(code, methods)), of_methods),
            "**By guide**, with an epsilon prediction:\n",
            table(("scheduler, guide", *map(code, methods)), of_guides),
            "Refusals, by name, before the first step:\n",
            "".join(f"- {escaped(reason)}\n" for reason in reasons),
        ]
    )


def _evaluations(found: dict[tuple[str, ...], Any], scheduler: str) -> str:
    return str(next(value["evaluations"] for key, value in found.items() if key[0] == scheduler))


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    return "refused" if value["refused"] else f"{value['deviation']:.0e}"


def _reason(text: str) -> str:
    """A refusal without the class that it was met with."""
    words = [word for word in text.split() if not word.endswith("Scheduler")]
    kept = " ".join(words).split("; ")[0]
    return kept.split(", got ")[0]
