"""Cells in a URL: a hexadecimal number in which bit i stands for cell i."""

import re


def mask(cells: tuple[int, ...]) -> str:
    """Encode cells as a hexadecimal number in which bit i stands for cell i."""
    return f"{sum(1 << number for number in cells):x}"


def unmask(text: str) -> tuple[int, ...]:
    """Decode a `mask`; ValueError where the text is not one."""
    if not re.fullmatch("[0-9a-f]{1,256}", text):
        raise ValueError(f"not a hexadecimal number: {text[:40]}")
    bits = int(text, 16)
    return tuple(i for i in range(bits.bit_length()) if bits >> i & 1)
