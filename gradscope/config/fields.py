"""The strict base of every configuration, and the types of value that several of them share."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, PlainSerializer, Tag
from typing_extensions import TypeAliasType

TAGS = {
    "<null>",
    "<bool>",
    "<int>",
    "<float>",
    "<text>",
    "<list>",
    "<mapping>",
    "<inception>",
    "<module>",
    "<energy>",
    "<measurement>",
    "<sum>",
}
"""Tags of unions' members, which errors have among the keys."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Strict(BaseModel):
    """Base of every configuration: it refuses unknown keys, converts nothing, and is frozen."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def form(value: Any) -> str | None:
    """The member of a union that a value is meant for, so that errors concern that member alone."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    return "<mapping>" if isinstance(value, dict | Strict) else None


def form_of(possible: str, form: Callable[[Any], str | None] = form) -> Discriminator:
    """Discriminator of a union whose members are tagged with their form; errors say what is `possible`."""
    return Discriminator(form, custom_error_type="form", custom_error_message=f"Input should be {possible}")


def _plain_form(value: Any) -> str | None:
    kinds = {type(None): "<null>", bool: "<bool>", int: "<int>", float: "<float>"}
    return kinds.get(type(value)) or form(value)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"must have no control characters, got {text!r:.80}")
    return text


def _plain(time: float) -> int | float:
    return int(time) if time.is_integer() else time


def _ordered(interval: list[Any]) -> list[Any]:
    if interval[0] >= interval[1]:
        shown = ", ".join(f"{time}".removesuffix(".0") for time in interval)
        raise ValueError(f"is [first, end) and first must be below end, got [{shown}]")
    return interval


Text = Annotated[str, Field(max_length=10_000), AfterValidator(_printable)]
PathText = Annotated[Text, AfterValidator(os.path.expanduser)]
"""A path, or a name that may stand in place of one; a `~` at its beginning is the home folder."""
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Times = Annotated[
    list[Annotated[float, PlainSerializer(_plain)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)
]
"""Two timesteps, which need not be whole; those that are stay whole numbers."""
Interval = Annotated[list[Whole], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
if TYPE_CHECKING:
    Plain = Any
else:
    Plain = TypeAliasType(
        "Plain",
        Annotated[
            Annotated[None, Tag("<null>")]
            | Annotated[bool, Tag("<bool>")]
            | Annotated[Whole, Tag("<int>")]
            | Annotated[float, Tag("<float>")]
            | Annotated[Text, Tag("<text>")]
            | Annotated[list["Plain"], Tag("<list>")]
            | Annotated[dict[Text, "Plain"], Tag("<mapping>")],
            form_of("text, a number, true, false, null, a list or a mapping", _plain_form),
        ],
    )
"""Any value that JSON has: YAML also has dates, sets, bytes, infinity and NaN."""
Options = dict[Text, Plain]
"""Keyword arguments of a function that checks them itself."""
