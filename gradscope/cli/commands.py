"""The app of the command line: its commands in order, their examples, and how errors are printed."""

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gradscope.cli.audit import audit
from gradscope.cli.check import check
from gradscope.cli.dashboard import dashboard
from gradscope.cli.evaluate import evaluate
from gradscope.cli.info import info
from gradscope.cli.init import init
from gradscope.cli.oracle import oracle
from gradscope.cli.output import lasting
from gradscope.cli.record import record
from gradscope.cli.report import report
from gradscope.cli.train import train_classifier, train_ddpm, train_temperature
from gradscope.cli.verify import verify
from gradscope.errors import GradscopeError, GradscopeWarning, hidden_package, notes

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

_INIT_EXAMPLES = """
\b
Examples:
  gradscope init
  gradscope init both --out mine.yaml
  gradscope record --config mine.yaml
"""

_AUDIT_EXAMPLES = """
\b
Examples:
  gradscope audit --config audit.yaml
  gradscope audit --config audit.yaml --out audit.zarr
  gradscope audit --config audit.yaml --set denoiser=none
"""

_ORACLE_EXAMPLES = """
\b
Examples:
  gradscope oracle
  gradscope oracle --out oracle.zarr
  gradscope oracle oracle.zarr
  gradscope oracle --methods classifier@x_t,mine:Method --stabilizers none,mine:Stabilizer
  gradscope oracle --config oracle_full.yaml --out full.zarr
"""


_CHECK_EXAMPLES = """
\b
Examples:
  gradscope check mine:guidance
  gradscope check history
  gradscope check --config both.yaml
  gradscope check --config both.yaml --set guidance.classifier_input=[x0_detached]
"""


class _Commands(TyperGroup):
    """Lists commands with the whole first sentence of their help, not only what fits on one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=999))
                    for name, command in self.commands.items()
                    if not command.hidden
                ]
            )


app = typer.Typer(
    name="gradscope",
    help="Record every gradient of classifier guidance, and see why it fails.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: a help with rich takes three times as long
    cls=_Commands,
    pretty_exceptions_enable=False,
)
app.command(epilog=_INIT_EXAMPLES)(init)
app.command(epilog=_EXAMPLES)(record)
app.command(epilog=_EXAMPLES)(evaluate)
app.command(epilog=_EXAMPLES)(report)
app.command(epilog=_DASHBOARD_EXAMPLES)(dashboard)
app.command()(info)
app.command(epilog=_EXAMPLES)(verify)
app.command(epilog=_AUDIT_EXAMPLES)(audit)
app.command(epilog=_CHECK_EXAMPLES)(check)
app.command("probe-classifier", hidden=True, epilog=_AUDIT_EXAMPLES, help=f"Alias of audit. {audit.__doc__}")(audit)

app.command(epilog=_ORACLE_EXAMPLES)(oracle)

train = typer.Typer(
    help="Train a denoiser or a classifier, and write its weights with a card.", no_args_is_help=True, cls=_Commands
)
train.command("ddpm")(train_ddpm)
train.command("classifier")(train_classifier)
train.command("temperature")(train_temperature)
app.add_typer(train, name="train")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"gradscope {metadata.version('gradscope')}")
        raise typer.Exit


def main() -> None:
    """Run the command line. An error that the user can correct, or a warning, is one paragraph on standard error."""
    # Read when torch is loaded. Threads that spin while waiting slow a run down many times if other processes are busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings(), lasting() as output:
        warnings.showwarning = partial(_show, warnings.showwarning)
        status = _status()
    if output is not None and output.error is not None and not status:
        typer.echo(f"gradscope: {output.failure}; everything else is done", err=True)
        status = 1
    sys.exit(status)


def _status() -> Any:
    """The exit status of the command."""
    try:
        app()
    except GradscopeError as error:
        _print_error(error.for_command(), error)
        return error.exit_status
    except ImportError as error:
        if (hidden := hidden_package(error)) is None:
            raise
        _print_error(hidden.for_command(), hidden)
        return hidden.exit_status
    except BrokenPipeError:
        raise
    except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
        _print_error(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), error)
        return GradscopeError.exit_status
    except SystemExit as end:
        return end.code


def _print_error(text: str, error: Exception) -> None:
    typer.echo(f"gradscope: {' '.join('; '.join([text, *notes(error)]).split())}", err=True)


def _show(others: Callable[..., None], message: Warning | str, category: type[Warning], *arguments: Any) -> None:
    """Print our own warnings as a paragraph; `others` is `warnings.showwarning`, for all else."""
    if issubclass(category, GradscopeWarning):
        typer.echo(f"gradscope: warning: {' '.join(str(message).split())}", err=True)
    else:
        others(message, category, *arguments)
