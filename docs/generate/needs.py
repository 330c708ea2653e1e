"""What probes and failure signatures need of a guide: from the probes' `needs` and the signatures' variables."""

from collections.abc import Iterable
from typing import Any

from markdown_tables import code, table
from torch import nn

from gradscope.analysis.missing import from_evaluate
from gradscope.analysis.signatures import CURVES, OTHERS
from gradscope.recording.load_probes import CLASSIFIER_FREE
from probes import CATALOGUE, NAMED

_REQUIRED: dict[str, dict[str, Any]] = {"reference": {"classifier": nn.Identity()}, "layers": {"names": ["classifier"]}}
"""Options without which a probe cannot be made; they change nothing of what it needs."""
ANY, CLASSIFIER, FREE = "any", "a classifier", "none: classifier-free guidance in a loop of your own"


def probes() -> dict[str, tuple[str, ...]]:
    """By entry under ``probes``: the fields of `GuidedStep` that must be there."""
    made = {name: make(**_REQUIRED.get(name, {})) for name, make in NAMED.items()}
    return {name: _once(need for probe in group for need in probe.needs) for name, group in made.items()}


def signatures() -> dict[str, tuple[str, ...]]:
    """By signature: the variables that it reads."""
    return {curve.name: tuple(curve.needs) for curve in CURVES} | OTHERS


def guide_of_probe(needs: Iterable[str]) -> str:
    """The guides that give these fields: only a classifier has logits."""
    if not set(CLASSIFIER_FREE).isdisjoint(needs):
        return FREE
    return CLASSIFIER if "logits" in needs else ANY


def guide_of_signature(variables: Iterable[str]) -> str:
    """The guides of which a store has these variables."""
    needs = probes()
    asked = {CATALOGUE[name].probe for name in variables if name in CATALOGUE} & set(needs)
    only = any(name.startswith("own_") for name in variables) or any(
        guide_of_probe(needs[probe]) == CLASSIFIER for probe in asked
    )
    return CLASSIFIER if only else ANY


def text() -> str:
    """A table of the probes and a table of the signatures."""
    of_probes = [(code(name), ", ".join(map(code, needs)), guide_of_probe(needs)) for name, needs in probes().items()]
    of_signatures = [
        (f"[{code(name)}](signatures.md#{name})", ", ".join(map(code, variables)), _source(variables),
         guide_of_signature(variables))
        for name, variables in signatures().items()
    ]  # fmt: skip
    return "\n".join(
        [
            "## Probes\n",
            table(("probe", "needs of the step", "guide"), of_probes),
            "## Signatures\n",
            table(("signature", "reads", "which is recorded by", "guide"), of_signatures),
        ]
    )


def _source(variables: Iterable[str]) -> str:
    """What records these variables."""
    return ", ".join(_once(_recorder(name) for name in variables))


def _recorder(name: str) -> str:
    if name.startswith("judge_"):
        return "a judge"
    if from_evaluate(name):
        return "`gradscope evaluate`"
    return code(CATALOGUE[name].probe) if CATALOGUE[name].probe else "every run"


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
