"""Training of denoisers (DDPM, arXiv 2006.11239) and classifiers, with a moving average and exact resumption."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from gradscope.config import TrainClassifierConfig, TrainDenoiserConfig, TrainingConfig
from gradscope.data import datasets
from gradscope.errors import GradscopeError, one_of
from gradscope.models import cards
from gradscope.models.adversarial import attacked
from gradscope.models.classifiers import build_trained
from gradscope.models.device import device_name
from gradscope.models.precision import channels_last
from probes.timed import ask

_RESTART = {
    "python": "or start from the beginning: overwrite=True",
    "command": "or start from the beginning: --overwrite",
}

DEFAULT_PROCESS = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
"""Arguments of the scheduler that makes x_t for a classifier trained on clean images."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def train_denoiser(config: TrainDenoiserConfig, device: torch.device, overwrite: bool = False) -> Path:
    """Train a U-Net as a denoiser; write weights and card, and return the card's path."""
    data = datasets.load(config.data, "train")
    torch.manual_seed(config.training.seed)
    try:
        unet = UNet2DModel(
            sample_size=config.data.size,
            in_channels=config.data.channels,
            out_channels=config.data.channels,
            **config.unet,
        )
    except Exception as error:
        raise GradscopeError(f"unet: diffusers refused these arguments: {error}") from error
    scheduler = _scheduler(config.scheduler)

    def loss(model: nn.Module, x_0: Tensor, label: Tensor) -> Tensor:
        x_t, noise, t = noised(scheduler, x_0)
        return nn.functional.mse_loss(model(x_t, t).sample.float(), target(scheduler, x_0, noise, t))

    fitted = _fit(unet, loss, data, config, device, overwrite)
    architecture = {"unet": config.unet, "scheduler": config.scheduler}
    return _save(fitted, config, "denoiser", architecture, data.classes, "x_t", device)


def train_classifier(config: TrainClassifierConfig, device: torch.device, overwrite: bool = False) -> Path:
    """Train a timm classifier on clean images or on x_t; write weights and card, and return the card's path."""
    data = datasets.load(config.data, "train")
    if len(data.classes) < 2:
        raise GradscopeError(f"data: a classifier needs at least two classes, got {', '.join(data.classes)}")
    scheduler = _scheduler(config.scheduler)
    steps = scheduler.config.num_train_timesteps
    for key in ("timesteps", "calibrate"):
        if (interval := getattr(config, key)) is not None:
            refuse_timesteps(interval, steps, key)
    architecture = _classifier_architecture(config, steps)
    torch.manual_seed(config.training.seed)
    model = build_trained(architecture, len(data.classes), config.data.channels)

    def loss(model: nn.Module, x_0: Tensor, label: Tensor) -> Tensor:
        if config.train_on == "x_t":
            x_t, _, t = noised(scheduler, x_0, config.timesteps)
            logits = ask(model, x_t, t)
        else:
            logits = model(x_0 if config.adversarial is None else attacked(model, x_0, label, config.adversarial))
        return nn.functional.cross_entropy(logits.float(), label)

    fitted = _fit(model, loss, data, config, device, overwrite)
    return _save(fitted, config, "classifier", architecture, data.classes, config.train_on, device)


def _classifier_architecture(config: TrainClassifierConfig, num_train_timesteps: int) -> dict[str, Any]:
    """The card's `architecture`: how the model is built, and how its training images are made."""
    architecture: dict[str, Any] = {"timm": config.timm, "options": config.options}
    if config.train_on == "x_t":
        architecture |= {"scheduler": config.scheduler, "timesteps": config.timesteps}
    if config.takes_timestep:
        architecture |= {"num_train_timesteps": num_train_timesteps}
    if config.adversarial is not None:
        architecture |= {"adversarial": config.adversarial.model_dump()}
    return architecture


def _scheduler(options: dict[str, Any]) -> DDPMScheduler:
    try:
        return DDPMScheduler(**options)
    except Exception as error:
        raise GradscopeError(f"scheduler: diffusers refused these arguments: {error}") from error


def refuse_timesteps(interval: Sequence[int], steps: int, where: str) -> None:
    """Raise GradscopeError unless ``[first, end)`` lies within the `steps` training timesteps."""
    if not 0 <= interval[0] < interval[1] <= steps:
        raise GradscopeError(f"{where}: first and end with 0 <= first < end <= {steps}, got {list(interval)}")


def noised(scheduler: Any, x_0: Tensor, timesteps: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Noise images at timesteps drawn uniformly from ``[first, end)`` (default: all); returns x_t, noise and t.

    The random numbers are those of torch's global generator.
    """
    first, end = timesteps or (0, scheduler.config.num_train_timesteps)
    noise = torch.randn_like(x_0)
    t = torch.randint(first, end, x_0.shape[:1], device=x_0.device)
    return scheduler.add_noise(x_0, noise, t), noise, t


def target(scheduler: Any, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Target of a denoiser by the scheduler's prediction type: epsilon, v (arXiv 2202.00512) or x0."""
    match scheduler.config.prediction_type:
        case "epsilon":
            return noise
        case "v_prediction":
            return scheduler.get_velocity(x_0, noise, t)
        case "sample":
            return x_0
        case other:
            raise GradscopeError(
                f"scheduler.prediction_type: got {other!r}; {one_of(other, ('epsilon', 'v_prediction', 'sample'))}"
            )


@dataclass(frozen=True)
class _Fitted:
    model: nn.Module
    seconds: float
    checkpoint: Path


def _fit(
    model: nn.Module,
    loss: Loss,
    data: datasets.Images,
    config: TrainDenoiserConfig | TrainClassifierConfig,
    device: torch.device,
    overwrite: bool,
) -> _Fitted:
    """Train with AdamW, a cosine schedule with warm-up, gradient clipping at 1, and an EMA of weights and buffers.

    The EMA's decay is min(ema_decay, (1 + step) / (10 + step)). Every random number of a step is a function of
    (seed, step), so a resumed training gives the same weights as an uninterrupted one.
    """
    training = config.training
    checkpoint = Path(f"{config.output}.checkpoint.pt")
    _refuse_overwriting(config, checkpoint, overwrite)
    model = channels_last(model.to(device)).train()
    ema = AveragedModel(model, use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, training.warmup_steps, training.steps)
    parts: dict[str, Any] = {"model": model, "ema": ema, "optimizer": optimizer, "schedule": schedule}

    first, seconds = 0, 0.0
    if checkpoint.is_file():
        saved = _read(checkpoint, device)
        if saved["config"] != config.model_dump_json():
            raise GradscopeError(
                f"output: {checkpoint} is of another configuration; finish that training, choose another output",
                **_RESTART,
            )
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, seconds = saved["step"], saved["seconds"]

    workers = 0 if device.type == "cpu" else 4
    loader = DataLoader(data, batch_sampler=_Batches(len(data), training, first), num_workers=workers)
    start = time.monotonic() - seconds
    kept = [first]
    with (
        _noted(checkpoint, kept, training.steps),
        Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), TextColumn("{task.fields[loss]}")) as bar,
    ):
        task = bar.add_task(str(config.output), total=training.steps, completed=first, loss="")
        for step, (images, labels) in enumerate(_loaded(loader), first):
            torch.manual_seed(_step_seed(training.seed, step))
            images = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=_bfloat16(training, device)):
                value = loss(model, images, labels.to(device))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            # A constant decay keeps a share decay^steps of the untrained weights: 0.78 for 0.999 and 250 steps.
            ema.multi_avg_fn = get_ema_multi_avg_fn(min(training.ema_decay, (1 + step) / (10 + step)))
            ema.update_parameters(model)
            done = step + 1
            if done % 50 == 0:
                bar.update(task, completed=done, loss=f"loss {value.item():.4f}")
            if done % training.checkpoint_every == 0 or done == training.steps:
                states = {name: part.state_dict() for name, part in parts.items()}
                progress = {"step": done, "seconds": time.monotonic() - start, "config": config.model_dump_json()}
                _replace(checkpoint, states | progress)
                kept.append(done)
    return _Fitted(ema.module.eval(), time.monotonic() - start, checkpoint)


@contextmanager
def _noted(checkpoint: Path, kept: Sequence[int], steps: int) -> Iterator[None]:
    """Add a note to an error that says how far the training came; `kept` lists the steps of saved checkpoints."""
    try:
        yield
    except BaseException as error:
        where = f"are kept in {checkpoint}" if kept[-1] else "are kept: there was no checkpoint yet"
        error.add_note(f"{kept[-1]} of {steps} steps {where}")
        raise


class _Batches:
    """Indices of each step's batch, drawn with replacement, as a function of (seed, step)."""

    def __init__(self, samples: int, training: TrainingConfig, first: int) -> None:
        self.samples, self.training, self.first = samples, training, first

    def __len__(self) -> int:
        return self.training.steps - self.first

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.training.steps):
            rng = np.random.default_rng([self.training.seed, step])
            yield rng.integers(self.samples, size=self.training.batch_size).tolist()


def _loaded(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches; an error of a worker process loses that process's traceback."""
    try:
        yield from loader
    except GradscopeError as error:
        raise GradscopeError(str(error).strip().rpartition(f"{GradscopeError.__name__}: ")[2]) from None


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _bfloat16(training: TrainingConfig, device: torch.device) -> bool:
    if training.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return training.precision == "bfloat16"


def _refuse_overwriting(config: TrainDenoiserConfig | TrainClassifierConfig, checkpoint: Path, overwrite: bool) -> None:
    card = Path(f"{config.output}.yaml")
    card.parent.mkdir(parents=True, exist_ok=True)
    if overwrite:
        checkpoint.unlink(missing_ok=True)
    elif card.exists() and not checkpoint.exists():
        raise GradscopeError(f"output: {card} exists; choose another output", **_RESTART)


def _read(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    needed = ("model", "ema", "optimizer", "schedule", "step", "seconds", "config")
    try:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
    except Exception as error:  # of many types, for truncated files and other content
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GradscopeError(f"output: {checkpoint} cannot be read: {reason}", **_RESTART) from error
    if not isinstance(saved, dict) or any(key not in saved for key in needed):
        raise GradscopeError(f"output: {checkpoint} is no checkpoint of a training", **_RESTART)
    return saved


def _replace(path: Path, content: dict) -> None:
    """Write a new file, then rename it: an interruption leaves the old checkpoint intact."""
    beside = path.with_suffix(".new")
    torch.save(content, beside)
    beside.replace(path)


def _save(
    fitted: _Fitted,
    config: TrainDenoiserConfig | TrainClassifierConfig,
    kind: str,
    architecture: dict,
    classes: tuple[str, ...],
    train_on: str,
    device: torch.device,
) -> Path:
    path = Path(f"{config.output}.yaml")
    card: dict[str, Any] = {
        "kind": kind,
        "architecture": architecture,
        "classes": list(classes),
        "data": config.data.model_dump(),
        "train_on": train_on,
        "seed": config.training.seed,
        "steps": config.training.steps,
        "batch_size": config.training.batch_size,
        "duration": round(fitted.seconds, 1),
        "device": device_name(device),
        "versions": {name: metadata.version(name) for name in ("torch", "diffusers", "timm")},
        "sha256": cards.save_weights(path, fitted.model),
    }
    cards.write(path, cards.Card(**card))
    fitted.checkpoint.unlink()
    return path
