"""The verdicts of `gradscope check`: a table from their definitions."""

from markdown_tables import code, escaped, table

from gradscope.checking.verdicts import VERDICTS

_GIVEN = {"loop": "`check_loop`"}


def text() -> str:
    """A table of all verdicts."""
    rows = [
        (
            code(verdict.name),
            escaped(verdict.meaning),
            escaped(verdict.advice),
            ", ".join(_GIVEN.get(need, code(f"{need}=")) for need in verdict.needs),
        )
        for verdict in VERDICTS.values()
    ]
    return table(("verdict", "meaning", "what to change", "needs"), rows)
