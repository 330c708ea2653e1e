"""`gradscope train`."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gradscope.cli.interruption import interruptible
from gradscope.cli.options import Config, Device, Overwrite, Set


def train_ddpm(config: Config, overrides: Set = None, device: Device = "auto", overwrite: Overwrite = False) -> None:
    """Train an unconditional U-Net; an interrupted training continues from its checkpoint."""
    from gradscope.config import TrainDenoiserConfig, load
    from gradscope.evaluation.cards import check_evaluation, measure_denoiser
    from gradscope.models.device import set_device
    from gradscope.models.training import train_denoiser

    settings = load(TrainDenoiserConfig, config, overrides or ())
    where = set_device(device)
    check_evaluation(settings, where)
    with interruptible():
        with _noted(lambda: _how_to_continue(settings.output)):
            path = train_denoiser(settings, where, overwrite)
        with _noted(lambda: _unmeasured(path)):
            card = measure_denoiser(path, settings.evaluation, where)
    _print_card(path, card)


def train_classifier(
    config: Config, overrides: Set = None, device: Device = "auto", overwrite: Overwrite = False
) -> None:
    """Train a timm classifier on clean images or on x_t; an interrupted training continues from its checkpoint."""
    from gradscope.config import TrainClassifierConfig, load
    from gradscope.evaluation.cards import measure_classifier
    from gradscope.evaluation.temperature import calibrate
    from gradscope.models import training
    from gradscope.models.device import set_device

    settings = load(TrainClassifierConfig, config, overrides or ())
    where = set_device(device)
    with interruptible():
        with _noted(lambda: _how_to_continue(settings.output)):
            path = training.train_classifier(settings, where, overwrite)
        with _noted(lambda: _unmeasured(path)):
            card = measure_classifier(path, where)
            if settings.calibrate is not None:
                card = calibrate(path, settings.calibrate, where)
    _print_card(path, card)


def train_temperature(
    card: Annotated[str, typer.Option("--card", help="Card of a trained classifier: CARD.yaml or zoo:SET/NAME.")],
    output: Annotated[Path, typer.Option("--output", help="New card, NAME.yaml; its weights lie beside it.")],
    timesteps: Annotated[
        tuple[int, int], typer.Option("--timesteps", metavar="FIRST END", help="Timesteps of the held-out x_t.")
    ],
    device: Device = "auto",
) -> None:
    """Calibrate a trained classifier: fit a temperature to held-out x_t, and write a new card."""
    from gradscope.evaluation.temperature import calibrate
    from gradscope.models import cards
    from gradscope.models.device import set_device

    path = output.expanduser()
    _print_card(path, calibrate(cards.resolve(card, "--card"), timesteps, set_device(device), path))


@contextmanager
def _noted(note: Callable[[], str]) -> Iterator[None]:
    """Add a note to an interruption."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(note())
        raise


def _how_to_continue(output: str) -> str:
    """The command that continues an interrupted training, or starts it again."""
    if Path(f"{output}.checkpoint.pt").exists():  # which --overwrite would remove
        return f"continue with: {_command(without='--overwrite')}"
    return f"start again with: {_command()}"


def _command(without: str = "") -> str:
    return shlex.join(["gradscope", *(word for word in sys.argv[1:] if word != without)])


def _unmeasured(path: Path) -> str:
    return f"{path.with_suffix('.safetensors')} is trained; its card, {path}, has no measured numbers"


def _print_card(path: Path, card: Any) -> None:
    from rich.console import Console

    console = Console(markup=False)
    console.print(f"wrote {path.with_suffix('.safetensors')} and {path}")
    for name, metric in card.metrics.items():
        interval = f" [{metric.interval[0]:.4f}, {metric.interval[1]:.4f}]" if metric.interval else ""
        console.print(f"  {name}: {metric.value:.4f}{interval}, N = {metric.n} ({metric.about})", highlight=False)
