"""Equations as MathML."""

import re
from html import unescape

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</\1>', re.S)


def as_mathml(html: str) -> str:
    """A page whose LaTeX, as pymdownx.arithmatex leaves it, is MathML."""
    return _EQUATION.sub(_converted, html)


def _converted(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(unescape(found[2]).strip(), display=display)
