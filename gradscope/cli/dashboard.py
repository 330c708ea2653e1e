"""`gradscope dashboard`."""

from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.completion import stores as complete
from gradscope.cli.output import refuse_lost
from gradscope.errors import GradscopeError


def dashboard(
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE...",
            help="Zarr stores, finished or being recorded, and answers of check --out.",
            autocompletion=complete,
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. With any other, other machines can open the dashboard.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free port.", min=0, max=65535)] = 8050,
    prefix: Annotated[str, typer.Option("--prefix", help="Path of the app behind a reverse proxy.")] = "/",
) -> None:
    """Explore runs in the browser: one cursor through every gradient. Only reads; Ctrl-C stops it."""
    from dashboards import serve

    if remote := [store for store in stores if "://" in store]:
        raise GradscopeError(f"{remote[0]}: the dashboard reads stores of this machine; copy it")

    def tell(text: str) -> None:
        typer.echo(text)
        refuse_lost()  # the user needs the address

    serve([Path(store) for store in stores], host, port, prefix, tell)
