"""Commands on what was recorded: judge, report, show, describe, verify."""

from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.interruption import interruptible
from gradscope.cli.options import Device, Set, StorePath, expanded
from gradscope.cli.output import refuse_lost
from gradscope.errors import GradscopeError


def evaluate(store: StorePath, overrides: Set = None, device: Device = "auto") -> None:
    """Judge a store's samples and compare them with real images; --set changes `judge` and `evaluation` only."""
    from rich.console import Console

    from gradscope import console as display
    from gradscope.device import set_device
    from gradscope.evaluation.evaluate import evaluate_store
    from gradscope.evaluation.evaluators import load_evaluators
    from gradscope.store import open_store

    console = Console(markup=False)  # names and paths are what they are

    def tell(text: str) -> None:
        console.print(text, highlight=False)

    with interruptible():
        where = set_device(device)
        evaluators = load_evaluators(open_store(store), overrides or (), where, tell)
        evaluate_store(store, evaluators, where, tell)
    for table in display.evaluation_tables(open_store(store)):
        console.print(table)


def report(
    store: StorePath,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="NAME.html", help="Write it as one page, readable offline, too.", callback=expanded
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")] = False,
) -> None:
    """Say what fails in a store, where, how sure one can be, and what to try; then the numbers of its cells."""
    from rich.console import Console

    from gradscope.analysis.contents import in_memory
    from gradscope.analysis.html import check_path, to_html
    from gradscope.analysis.report import report as analyse
    from gradscope.analysis.report import to_json
    from gradscope.console_report import report_parts
    from gradscope.store import open_store

    if html is not None:
        check_path(html)
    ds = in_memory(open_store(store))
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
    from gradscope.store.files import replace_file

    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise GradscopeError(f"--html: {path} could not be written: {error.strerror}") from error


def dashboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="Recorded zarr stores, or running ones.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine are let in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65535)] = 8050,
    prefix: Annotated[str, typer.Option("--prefix", help="Path of the app behind a reverse proxy.")] = "/",
) -> None:
    """Explore runs in the browser: one cursor through every gradient. Reads only; Ctrl-C ends it."""
    import gc

    gc.disable()  # nothing of what is loaded is garbage; looking for some takes an eighth of the time
    from dashboards import serve

    gc.enable()
    gc.freeze()
    if remote := [store for store in stores if "://" in store]:
        raise GradscopeError(f"{remote[0]}: the dashboard reads stores of this machine; copy it")

    def tell(text: str) -> None:
        typer.echo(text)
        refuse_lost()  # the page has no other way to be found

    serve([Path(store) for store in stores], host, port, prefix, tell)


def info(store: StorePath) -> None:
    """Print what a store holds and where it comes from."""
    from rich.console import Console

    from gradscope import console as display
    from gradscope.resuming import advice
    from gradscope.store import open_store
    from gradscope.store.location import locate

    console, ds = Console(markup=False), open_store(store)
    display.print_info(console, ds)
    if ds.attrs.get("status") == "interrupted" and "classifiers" in ds.attrs.get("configuration", ""):
        console.print(advice(locate(store)), highlight=False, soft_wrap=True)


def verify(store: StorePath) -> None:
    """Check a store: its structure, every chunk that is marked, and scalars against the tensors beside them."""
    from rich.console import Console

    from gradscope import console_verification as display
    from gradscope.analysis.verification import verify as check

    found = check(store)
    for line in display.verification_lines(found):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if not found.sound:
        raise typer.Exit(1)
