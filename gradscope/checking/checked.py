"""The result of a check, and its forms in terminals and notebooks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from gradscope.checking.verdicts import VERDICTS

if TYPE_CHECKING:
    from rich.console import RenderableType

Confidence = Literal["high", "medium", "low", "none"]


@dataclass(frozen=True)
class Checked:
    """The answer of `gradscope.check`.

    Examples
    --------
    >>> found = gradscope.check(lambda x, t: -x, lambda x, t: -0.5 * x.square().sum(dim=1), torch.ones(2, 3), 10)
    >>> found.verdict, found.right
    ('right', True)
    """

    verdict: str
    """``right``, or a name of `gradscope.checking.verdicts.VERDICTS`."""
    cause: str = ""
    """Which factor, point, timestep or label, where the verdict leaves that open."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Numbers by name. ``deviation`` is ``|c - g| / max(|c|, |g|)`` and ``allowed`` what rounding explains of it, both
    of the worst sample. ``wrong_samples``, of a fault: the places in the batch where rounding does not explain it."""
    confidence: Confidence = "high"
    """``high``: every element was compared; ``medium``: some directions, or with rounding of 1 to 10 %; ``low``: with
    more; ``none``: nothing was compared."""
    others: tuple[tuple[str, str], ...] = ()
    """Further verdicts and causes that explain the gradient as well."""
    remarks: tuple[str, ...] = ()
    """What else was noticed."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Verdicts that were not tested, each with what it needs or why its test failed."""

    @property
    def right(self) -> bool:
        """Whether no fault was found; also where gradient and derivative are both zero (``flat``)."""
        return VERDICTS[self.verdict].kind == "right"

    @property
    def advice(self) -> str:
        """What to change."""
        return VERDICTS[self.verdict].advice

    @property
    def meaning(self) -> str:
        """The verdict in a sentence."""
        return VERDICTS[self.verdict].meaning

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.title}: {self.meaning}"
        if not self.right:
            yield f"change: {self.advice}"
        if self.evidence:
            yield "evidence: " + ", ".join(f"{name} {shown(value)}" for name, value in self.evidence.items())
        yield f"confidence: {self.confidence}"
        if self.others:
            yield "fits as well: " + "; ".join(" ".join(filter(None, (v, c and f"({c})"))) for v, c in self.others)
        yield from (f"note: {remark}" for remark in self.remarks)
        if self.needs and self.verdict not in ("right", "flat"):
            yield "not tested: " + "; ".join(f"{name} ({why})" for name, why in self.needs.items())

    @property
    def title(self) -> str:
        """Verdict and cause."""
        return f"{self.verdict} ({self.cause})" if self.cause else self.verdict

    def __rich__(self) -> "RenderableType":
        from rich.text import Text

        first, *rest = self._lines()
        style = "bold green" if self.right else "bold red"
        text = Text.assemble((self.title, style), first.removeprefix(self.title))
        for line in rest:
            head, _, tail = line.partition(": ")
            text.append("\n").append(f"{head}: ", style="bold").append(tail)
        return text

    def _repr_html_(self) -> str:
        first, *rest = self._lines()
        colour = "#1a7f37" if self.right else "#cf222e"
        rows = [line.partition(": ")[::2] for line in rest]
        body = "".join(
            f'<tr><th style="text-align:left;vertical-align:top">{escape(head)}</th>'
            f'<td style="text-align:left">{escape(tail)}</td></tr>'
            for head, tail in rows
        )
        return (
            f'<div><strong style="color:{colour}">{escape(self.title)}</strong>'
            f"{escape(first.removeprefix(self.title))}<table>{body}</table></div>"
        )


def shown(value: object) -> str:
    """A number of the evidence with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
