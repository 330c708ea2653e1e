"""`gradscope train`."""

from pathlib import Path
from typing import Any

from gradscope.cli.options import Config, Device, Overwrite, Set


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


def _print_card(path: Path, card: Any) -> None:
    from rich.console import Console

    console = Console(markup=False)
    console.print(f"wrote {path.with_suffix('.safetensors')} and {path}")
    for name, metric in card.metrics.items():
        interval = f" [{metric.interval[0]:.4f}, {metric.interval[1]:.4f}]" if metric.interval else ""
        console.print(f"  {name}: {metric.value:.4f}{interval}, N = {metric.n} ({metric.about})", highlight=False)
