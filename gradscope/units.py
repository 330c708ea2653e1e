"""Numbers as one reads them."""


def size(count: float) -> str:
    """A number of bytes."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
