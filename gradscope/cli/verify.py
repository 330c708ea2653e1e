"""`gradscope verify`."""

import typer

from gradscope.cli.options import StorePath


def verify(store: StorePath) -> None:
    """Check a store: its structure, every chunk that is marked as written, and scalars against tensors."""
    from rich.console import Console

    from gradscope.cli.display import verification as display
    from gradscope.verification.verify import verify as check

    found = check(store)
    for line in display.verification_lines(found):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if not found.sound:
        raise typer.Exit(1)
