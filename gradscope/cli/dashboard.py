"""`gradscope dashboard`."""

from typing import Annotated

import typer

from gradscope.cli.completion import stores as complete
from gradscope.cli.output import refuse_lost


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
        str,
        typer.Option(
            "--host", help="Address to listen on. 0.0.0.0: other machines can open the dashboard, with the token."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free port.", min=0, max=65535)] = 8050,
    prefix: Annotated[str, typer.Option("--prefix", help="Path of the app behind a reverse proxy.")] = "/",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="GRADSCOPE_TOKEN",
            show_envvar=True,
            metavar="TEXT",
            help="What visitors have to know. Where other machines can open the dashboard, one is generated.",
        ),
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let everyone in who reaches the address.")] = False,
) -> None:
    """Explore runs in the browser: one cursor through every gradient. Only reads; Ctrl-C stops it."""
    from dashboards import serve

    def tell(text: str) -> None:
        typer.echo(text)
        refuse_lost()  # the user needs the address

    serve(stores, host, port, prefix, tell, token, no_token)
