"""The command line. Everything heavy is imported inside the commands, so that --help is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gradscope.errors import GradscopeError

# After \b a paragraph's lines stay as they are.
_EXAMPLES = """
\b
Examples:
  gradscope record --config both.yaml
  gradscope record --config both.yaml --store b.zarr --set sampling.samples=4
  gradscope record --resume b.zarr
  gradscope verify b.zarr
  gradscope evaluate b.zarr
  gradscope report b.zarr --html b.html
  gradscope dashboard b.zarr
  gradscope train classifier --config mine.yaml
"""

_DASHBOARD_EXAMPLES = """
\b
Examples:
  gradscope dashboard runs/both.zarr
  gradscope dashboard runs/*.zarr --port 8051

\b
Behind a reverse proxy that serves it below a path:
  gradscope dashboard runs/both.zarr --prefix /gradscope/
"""

_AUDIT_EXAMPLES = """
\b
Examples:
  gradscope probe-classifier --config audit.yaml
  gradscope probe-classifier --config audit.yaml --out audit.zarr
  gradscope probe-classifier --config audit.yaml --set denoiser=none
"""


class _Commands(TyperGroup):
    """Commands with the whole first sentence of their help, not with as much of it as fits on one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=999)) for name, command in self.commands.items()]
            )


app = typer.Typer(
    name="gradscope",
    help="Record every gradient of classifier guidance, and see why it fails.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: a help with rich takes three times as long
    cls=_Commands,
    pretty_exceptions_enable=False,
)
train = typer.Typer(
    help="Train a denoiser or a classifier; writes weights with a card.", no_args_is_help=True, cls=_Commands
)
app.add_typer(train, name="train")

Config = Annotated[str, typer.Option("--config", help="YAML file: as given, or in runs/, or the name of a preset.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key, with dots below it; values are YAML. Repeatable."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
StorePath = Annotated[str, typer.Argument(metavar="STORE", help="A recorded zarr store: a path or URL.")]


@app.command(epilog=_EXAMPLES)
def record(
    config: Annotated[
        str | None, typer.Option("--config", help="YAML file: as given, or in runs/, or the name of a preset.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Where to record, a path or URL; default: recording.path.")
    ] = None,
    overrides: Set = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="STORE", help="Go on with a run that was interrupted.")
    ] = None,
    stop_on_nonfinite: Annotated[
        bool, typer.Option("--stop-on-nonfinite", help="End with status 3 at the first gradient that is not finite.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Record with so many processes.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Record on the workers of a dask scheduler."),
    ] = None,
) -> None:
    """Record a run: every cell of the configuration's grid, into one store; then judge the samples."""
    from gradscope.recording_command import Request, Terminated, run

    try:
        run(Request(config, resume, store, overrides or (), device, overwrite, stop_on_nonfinite, workers, scheduler))
    except KeyboardInterrupt as error:
        word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        typer.echo("; ".join([f"gradscope: {word}", *_notes(error)]), err=True)
        raise typer.Exit(status) from None


@app.command(epilog=_EXAMPLES)
def evaluate(store: StorePath, overrides: Set = None, device: Device = "auto") -> None:
    """Judge a store's samples and compare them with real images; --set changes `judge` and `evaluation` only."""
    from rich.console import Console

    from gradscope import console as display
    from gradscope.device import set_device
    from gradscope.evaluation.evaluate import evaluate_store
    from gradscope.evaluation.evaluators import load_evaluators
    from gradscope.store import open_store

    console = Console()

    def tell(text: str) -> None:
        console.print(text, highlight=False)

    where = set_device(device)
    evaluators = load_evaluators(open_store(store), overrides or (), where, tell)
    evaluate_store(store, evaluators, where, tell)
    for table in display.evaluation_tables(open_store(store)):
        console.print(table)


@app.command(epilog=_EXAMPLES)
def report(
    store: StorePath,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="NAME.html", help="Write it as one page, readable offline, too.")
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
        html.write_text(to_html(found, ds), encoding="utf-8")
    if as_json:
        typer.echo(to_json(found))
        return
    console = Console()
    for part in report_parts(found, ds):
        console.print(part, highlight=False)
    if html is not None:
        console.print(f"wrote {html}", highlight=False)


@app.command(epilog=_DASHBOARD_EXAMPLES)
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
    serve([Path(store) for store in stores], host, port, prefix, tell=typer.echo)


@app.command()
def info(store: StorePath) -> None:
    """Print what a store holds and where it comes from."""
    from rich.console import Console

    from gradscope import console as display
    from gradscope.resuming import advice
    from gradscope.store import open_store
    from gradscope.store.location import locate

    console, ds = Console(), open_store(store)
    display.print_info(console, ds)
    if ds.attrs.get("status") == "interrupted" and "classifiers" in ds.attrs.get("configuration", ""):
        console.print(advice(locate(store)), highlight=False)


@app.command(epilog=_EXAMPLES)
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


@app.command("probe-classifier", epilog=_AUDIT_EXAMPLES)
def probe_classifier(
    config: Config,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="NAME.zarr", help="Where to save the numbers.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Audit classifiers on noised held-out images: at which timesteps can each guide? Before any sampling."""
    from rich.console import Console
    from rich.progress import Progress

    from gradscope import console_audit as display
    from gradscope.auditing import refuse_out, run_audit, save
    from gradscope.config import AuditConfig, load

    console = Console()
    settings = load(AuditConfig, config, overrides or ())
    if out is not None:
        refuse_out(out, overwrite)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("auditing", total=None)
        ds = run_audit(
            settings,
            device,
            on_step=lambda done, total: progress.update(task, completed=done, total=total),
            command=sys.argv,
        )
    if out is not None:
        save(ds, out)
        console.print(f"wrote {out}")
    for table in display.audit_tables(ds):
        console.print(table)
    for verdict in display.audit_verdicts(ds):
        console.print(verdict, highlight=False)


@train.command("ddpm")
def train_ddpm(config: Config, overrides: Set = None, device: Device = "auto", overwrite: Overwrite = False) -> None:
    """Train an unconditional U-Net; an interrupted training goes on where it was."""
    from gradscope.config import TrainDenoiserConfig, load
    from gradscope.device import set_device
    from gradscope.evaluation.cards import check_evaluation, measure_denoiser
    from gradscope.models.training import train_denoiser

    settings = load(TrainDenoiserConfig, config, overrides or ())
    where = set_device(device)
    check_evaluation(settings, where)
    path = train_denoiser(settings, where, overwrite)
    _print_card(path, measure_denoiser(path, settings.evaluation, where))


@train.command("classifier")
def train_classifier(
    config: Config, overrides: Set = None, device: Device = "auto", overwrite: Overwrite = False
) -> None:
    """Train a timm classifier on clean images or on x_t; an interrupted training goes on where it was."""
    from gradscope.config import TrainClassifierConfig, load
    from gradscope.device import set_device
    from gradscope.evaluation.cards import measure_classifier
    from gradscope.models import training

    settings = load(TrainClassifierConfig, config, overrides or ())
    where = set_device(device)
    path = training.train_classifier(settings, where, overwrite)
    _print_card(path, measure_classifier(path, where))


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"gradscope {metadata.version('gradscope')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error that the user can mend is one paragraph on standard error."""
    # Read when torch is loaded. Threads that spin while they wait make a run many times slower beside any busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except GradscopeError as error:
        typer.echo(f"gradscope: {' '.join('; '.join([str(error), *_notes(error)]).split())}", err=True)
        sys.exit(error.exit_status)


def _print_card(path: Path, card: Any) -> None:
    from rich.console import Console

    console = Console()
    console.print(f"wrote {path.with_suffix('.safetensors')} and {path}")
    for name, metric in card.metrics.items():
        interval = f" [{metric.interval[0]:.4f}, {metric.interval[1]:.4f}]" if metric.interval else ""
        console.print(f"  {name}: {metric.value:.4f}{interval}, N = {metric.n} ({metric.about})", highlight=False)


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way."""
    return getattr(error, "__notes__", [])
