"""Markdown tables."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a ``|`` within a cell stays one."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines) + "\n"


def code(text: object) -> str:
    """Text as code, in a table or outside of one."""
    return f"<code>{escaped(str(text))}</code>"


def escaped(text: str) -> str:
    """Text without markup."""
    return "".join(f"&#{ord(letter)};" if letter in "&<>|*_`$\\[]" else letter for letter in text)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "&#124;")
