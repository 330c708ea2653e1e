"""`gradscope dashboard`."""

from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.output import refuse_lost
from gradscope.errors import GradscopeError


def dashboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="Recorded zarr stores, or running ones.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine are let in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65535)] = 8050,
    prefix: Annotated[str, typer.Option("--prefix", help="Path of the app behind a reverse proxy.")] = "/",
) -> None:
    """Explore runs in the browser: one cursor through every gradient. Reads only; Ctrl-C ends it."""
    from dashboards import serve

    if remote := [store for store in stores if "://" in store]:
        raise GradscopeError(f"{remote[0]}: the dashboard reads stores of this machine; copy it")

    def tell(text: str) -> None:
        typer.echo(text)
        refuse_lost()  # the page has no other way to be found

    serve([Path(store) for store in stores], host, port, prefix, tell)
