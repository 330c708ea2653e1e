"""A store's text, for the terminal."""

from rich.text import Text


def plain(value: object) -> Text:
    """A text without rich's markup, control characters escaped."""
    return Text("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value)))
