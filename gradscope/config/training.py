"""The configurations of `gradscope train`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gradscope.config.data import DataConfig
from gradscope.config.fields import Count, Interval, Options, PathText, Positive, Strict, Text


class TrainingConfig(Strict):
    """AdamW with a cosine schedule and a moving average of the weights."""

    steps: Positive
    """Number of optimiser steps."""
    batch_size: Positive = 64
    """Number of images per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate, reached after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    warmup_steps: Count = 200
    """Number of steps over which the learning rate rises from 0."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the weights' moving average; at step n at most (1 + n) / (10 + n), for short trainings."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type in which the model runs. auto: bfloat16 on CUDA devices that have it, else float32."""
    checkpoint_every: Positive = 500
    """Number of steps between checkpoints, from which an interrupted training continues."""
    seed: Count = 0
    """Seed of initial weights, batches and noise."""


class DenoiserEvaluation(Strict):
    """How the samples of a trained denoiser are measured."""

    judge: PathText
    """Classifier that counts the classes of unguided samples."""
    extractor: PathText
    """Classifier whose features give the Frechet distance to held-out images."""
    samples: Positive = 1000
    """Number of unguided samples, at most half the number of held-out images."""
    num_inference_steps: Positive = 100
    """Number of timesteps to sample with."""


class TrainDenoiserConfig(Strict):
    """The configuration of `gradscope train ddpm`."""

    data: DataConfig
    """The data set to train on."""
    unet: Options
    """Keyword arguments of diffusers.UNet2DModel; `data` gives the size and the channels."""
    scheduler: Options = {}
    """Keyword arguments of diffusers.DDPMScheduler."""
    training: TrainingConfig
    """How the model is trained."""
    evaluation: DenoiserEvaluation | None = None
    """How unguided samples are measured for the card. null: only the loss is measured."""
    output: PathText
    """Path without suffix: training writes OUTPUT.safetensors and its card OUTPUT.yaml."""


class AdversarialConfig(Strict):
    """Training on images moved by projected gradient ascent of the loss (PGD, arXiv 1706.06083)."""

    radius: Annotated[float, Field(gt=0)]
    """Largest distance between an image, in [-1, 1], and the moved one."""
    norm: Literal["l2", "linf"] = "l2"
    """Norm of that distance, over all elements of the image."""
    steps: Positive = 3
    """Number of steps; each costs a pass forward and back."""
    step_size: Annotated[float, Field(gt=0)] | None = None
    """Length of a step in the same norm. null: 2.5 * radius / steps."""


class TrainClassifierConfig(Strict):
    """The configuration of `gradscope train classifier`."""

    data: DataConfig
    """The data set to train on."""
    timm: Text
    """Name of a timm architecture."""
    options: Options = {}
    """Further keyword arguments of timm.create_model."""
    train_on: Literal["clean", "x_t"] = "clean"
    """Clean images, or images noised by the scheduler's forward process at uniformly drawn timesteps (x_t)."""
    timesteps: Interval | None = None
    """Timesteps [first, end) that x_t is drawn from: first <= t < end. null: all."""
    takes_timestep: bool = False
    """Whether the classifier is noise-aware, f(x_t, t): one more input channel holds t / num_train_timesteps. Needs
    train_on: x_t."""
    scheduler: Options = {}
    """Keyword arguments of diffusers.DDPMScheduler, which noises the images."""
    adversarial: AdversarialConfig | None = None
    """Training on adversarial images. Needs train_on: clean. null: on the images as they are."""
    calibrate: Interval | None = None
    """Timesteps [first, end) of the held-out x_t that a temperature is fitted to after training (arXiv 1706.04599);
    [0, 1] is almost clean. null: no temperature."""
    training: TrainingConfig
    """How the model is trained."""
    output: PathText
    """Path without suffix: training writes OUTPUT.safetensors and its card OUTPUT.yaml."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.takes_timestep and self.train_on != "x_t":
            raise ValueError("takes_timestep: clean images have no timestep; set train_on: x_t")
        if self.adversarial is not None and self.train_on != "clean":
            raise ValueError("adversarial: images are moved, not x_t; set train_on: clean")
        return self
