"""The command line. Commands import everything heavy themselves, so that --help is fast."""

from gradscope.cli.commands import app, main

__all__ = ["app", "main"]
