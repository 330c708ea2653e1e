"""The metrics of a card, measured with the stored weights on held-out data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from gradscope.config import DataConfig, DenoiserEvaluation, TrainDenoiserConfig
from gradscope.data import datasets
from gradscope.errors import GradscopeError
from gradscope.evaluation.distances import Frechet
from gradscope.evaluation.features import Features, distance_names, load_extractor
from gradscope.evaluation.real import held_out
from gradscope.intervals import wilson
from gradscope.models import cards
from gradscope.models.cards import Card, Metric
from gradscope.models.classifiers import load_classifier
from gradscope.models.diffusion import Denoiser, load_denoiser
from gradscope.models.training import DEFAULT_PROCESS, noised, target
from probes.timed import ask

_BATCH = 256
_HELD_OUT = 8192
"""Largest number of held-out images."""


def measure_classifier(path: Path, device: torch.device) -> Card:
    """Add the accuracy on clean images and on x_t (t uniform) to the card at `path`."""
    card = cards.read(path)
    shape = (card.data.channels, card.data.size, card.data.size)
    module = load_classifier(str(path), str(path), shape, device).module
    process = card.architecture.get("scheduler", DEFAULT_PROCESS)
    scheduler: Any = DDPMScheduler(**process)
    torch.manual_seed(card.seed)
    right = {"accuracy_clean": 0, "accuracy_x_t": 0}
    n = 0
    for images, labels in held_out(card.data, _HELD_OUT, device):
        x_t, _, t = noised(scheduler, images)
        looks = {"accuracy_clean": (images, torch.zeros_like(t)), "accuracy_x_t": (x_t, t)}
        for name, (x, timestep) in looks.items():
            with torch.no_grad():
                right[name] += int((ask(module, x, timestep).argmax(dim=1) == labels).sum())
        n += len(labels)
    schedule = f"{scheduler.config.num_train_timesteps} timesteps, {scheduler.config.beta_schedule} betas"
    about = {"accuracy_clean": "clean images", "accuracy_x_t": f"x_t, t uniform over {schedule}"}
    metrics = {name: _share(k, n, about[name]) for name, k in right.items()}
    return _write(path, card, metrics)


def measure_denoiser(path: Path, evaluation: DenoiserEvaluation | None, device: torch.device) -> Card:
    """Add the loss on held-out data and, with an evaluation, properties of unguided samples to the card at `path`.

    The properties are shares of classes by the judge, the mean pixel beside the data's, and the Frechet distance to
    held-out images beside that of other held-out images (the floor).
    """
    card = cards.read(path)
    denoiser = load_denoiser(str(path), device)
    torch.manual_seed(card.seed)
    losses = []
    for images, _ in held_out(card.data, _HELD_OUT, device):
        x_t, noise, t = noised(denoiser.scheduler, images)
        with torch.no_grad():
            wanted = target(denoiser.scheduler, images, noise, t)
            losses.append((denoiser.unet(x_t, t).sample - wanted).square().mean(dim=(1, 2, 3)))
    loss = torch.cat(losses).double()
    half = 1.96 * float(loss.std()) / len(loss) ** 0.5
    mean = float(loss.mean())
    metrics = {
        "loss": Metric(
            value=mean, n=len(loss), interval=[mean - half, mean + half], about="mean squared, as in training"
        )
    }
    if evaluation is not None:
        metrics |= _samples(card, denoiser, evaluation, device)
    return _write(path, card, metrics)


def check_evaluation(config: TrainDenoiserConfig, device: torch.device) -> None:
    """Raise GradscopeError before training if the evaluation after it would fail."""
    if config.evaluation is None:
        return
    there = min(_HELD_OUT, len(datasets.load(config.data, "test")))
    if config.evaluation.samples > there // 2:
        raise GradscopeError(
            f"evaluation.samples: got {config.evaluation.samples}; at most {there // 2}, half of the held-out images"
        )
    _evaluators(config.evaluation, config.data, device)


def unguided_samples(denoiser: Denoiser, n: int, num_inference_steps: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of unguided samples of a denoiser, n in total, by diffusers' own loop."""
    scheduler = type(denoiser.scheduler).from_config(denoiser.scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(0)
    config: Any = denoiser.unet.config
    for first in range(0, n, _BATCH):
        shape = (min(_BATCH, n - first), config.in_channels, config.sample_size, config.sample_size)
        x = torch.randn(shape, generator=generator).to(device)
        for t in scheduler.timesteps:
            with torch.no_grad():
                x = scheduler.step(denoiser.unet(x, t).sample, t, x, generator=generator).prev_sample
        yield x


def _samples(card: Card, denoiser: Denoiser, evaluation: DenoiserEvaluation, device: torch.device) -> dict[str, Metric]:
    judge, extractor = _evaluators(evaluation, card.data, device)
    fake = list(unguided_samples(denoiser, evaluation.samples, evaluation.num_inference_steps, device))
    with torch.no_grad():
        verdict = torch.cat([judge(batch).argmax(dim=1) for batch in fake]).cpu().numpy()
    real = [images for images, _ in held_out(card.data, _HELD_OUT, device)]
    floor, reference = torch.cat(real)[: evaluation.samples], torch.cat(real)[evaluation.samples :]
    n, (name, _) = len(verdict), distance_names(evaluation.extractor)
    frechet = Frechet(extractor.of(reference.split(_BATCH)))
    about = f"{n} samples against {len(reference)} held-out images"
    metrics = {
        f"share_{label}": _share(int((verdict == k).sum()), n, "of unguided samples, by the judge")
        for k, label in enumerate(card.classes)
    }
    metrics["mean_pixel"] = Metric(value=float(torch.cat(fake).mean()), n=n, about="unguided samples, range [-1, 1]")
    metrics["mean_pixel_data"] = Metric(value=float(torch.cat(real).mean()), n=len(torch.cat(real)), about="held-out")
    metrics[name] = Metric(value=frechet.distance(extractor.of(fake)), n=n, about=about)
    metrics[f"{name}_floor"] = Metric(
        value=frechet.distance(extractor.of(floor.split(_BATCH))),
        n=len(floor),
        about=f"{len(floor)} other held-out images instead of samples",
    )
    return metrics


def _evaluators(
    evaluation: DenoiserEvaluation, data: DataConfig, device: torch.device
) -> tuple[torch.nn.Module, Features]:
    shape = (data.channels, data.size, data.size)
    judge = load_classifier(evaluation.judge, "evaluation.judge", shape, device).module
    return judge, load_extractor(evaluation.extractor, "evaluation.extractor", shape, device)


def _share(successes: int, n: int, about: str) -> Metric:
    low, high = wilson(successes, n)
    return Metric(value=successes / n, n=n, interval=[round(float(low), 5), round(float(high), 5)], about=about)


def _write(path: Path, card: Card, metrics: dict[str, Metric]) -> Card:
    rounded = {k: m.model_copy(update={"value": round(m.value, 5)}) for k, m in metrics.items()}
    measured = card.model_copy(update={"metrics": rounded})
    cards.write(path, measured)
    return measured
