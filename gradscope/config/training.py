"""The configurations of `gradscope train`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from gradscope.config.data import DataConfig
from gradscope.config.fields import Interval, PathText, Positive, Seed, Strict


class TrainingConfig(Strict):
    steps: Positive
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the moving average of the weights; at most (1 + n) / (10 + n) at step n, for short trainings."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: Positive = 500
    seed: Seed = 0


class DenoiserEvaluation(Strict):
    judge: PathText
    extractor: PathText
    samples: Positive = 1000
    num_inference_steps: Positive = 100


class TrainDenoiserConfig(Strict):
    """`gradscope train ddpm`."""

    data: DataConfig
    unet: dict[str, Any]
    """Keyword arguments of `diffusers.UNet2DModel`; size and channels come from `data`."""
    scheduler: dict[str, Any] = {}
    """Keyword arguments of `diffusers.DDPMScheduler`."""
    training: TrainingConfig
    evaluation: DenoiserEvaluation | None = None
    output: PathText
    """Path without suffix: writes OUTPUT.safetensors and its card OUTPUT.yaml."""


class TrainClassifierConfig(Strict):
    """`gradscope train classifier`."""

    data: DataConfig
    timm: str
    options: dict[str, Any] = {}
    train_on: Literal["clean", "x_t"] = "clean"
    """`x_t`: noised by the scheduler's forward process, t uniform over `timesteps`."""
    timesteps: Interval | None = None
    """Timesteps ``first <= t < end`` that `x_t` trains on; default: all of the scheduler's."""
    scheduler: dict[str, Any] = {}
    training: TrainingConfig
    output: PathText
