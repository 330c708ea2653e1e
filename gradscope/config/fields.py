"""The strict base of every configuration, and the kinds of value that several of them hold."""

import os
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field


class Strict(BaseModel):
    """No unknown keys, no conversions, no change after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def form(value: Any) -> str | None:
    """Which member of a union a value is meant for, so that errors speak of that one alone."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    return "<mapping>" if isinstance(value, dict | Strict) else None


def form_of(what: str, form: Callable[[Any], str | None] = form) -> Discriminator:
    """Of a union whose members are tagged with their form; `what` tells what is possible."""
    return Discriminator(form, custom_error_type="form", custom_error_message=f"Input should be {what}")


def _ordered(interval: list[int]) -> list[int]:
    if interval[0] >= interval[1]:
        raise ValueError(f"is [first, end) and first must be below end, got {interval}")
    return interval


PathText = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, or a name that stands where a path may; a `~` at its beginning is the user's folder."""
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Interval = Annotated[list[int], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
