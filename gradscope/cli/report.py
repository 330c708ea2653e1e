"""`gradscope report`."""

from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.options import StorePath, expanded
from gradscope.errors import GradscopeError


def report(
    store: StorePath,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="NAME.html", help="Also write it as one page that needs no network.", callback=expanded
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Print the findings: what fails, where, on which evidence, and what to try; then the numbers of all cells."""
    from rich.console import Console

    from gradscope.analysis.in_memory import in_memory
    from gradscope.cli.display.report import report_parts
    from gradscope.reporting.report import report as analyse
    from gradscope.reporting.report import to_json
    from gradscope.store import open_store

    if html is not None:
        from gradscope.reporting.html import check_path, to_html  # loads plotly

        check_path(html)
    ds = in_memory(open_store(store, dask=False))
    found = analyse(ds)
    if html is not None:
        _write(html, to_html(found, ds))
    if as_json:
        typer.echo(to_json(found))
        return
    console = Console()
    for part in report_parts(found, ds, console.width):
        console.print(part, highlight=False)
    if html is not None:
        console.print(f"wrote {html}", highlight=False, markup=False)


def _write(path: Path, page: str) -> None:
    from gradscope.store.locations.files import replace_file

    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise GradscopeError(f"--html: {path} could not be written: {error.strerror}") from error
