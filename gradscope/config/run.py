"""The configuration of `gradscope record`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag

from gradscope.config.classifiers import ClassifierSpec
from gradscope.config.evaluation import EvaluationConfig
from gradscope.config.fields import Interval, PathText, Positive, Seed, Strict, form_of
from gradscope.errors import GradscopeError
from gradscope.text import check_name

ClassifierInput = Literal["x_t", "x0", "x0_detached"]
Objective = Literal["log_prob", "logit"]
Normalize = Literal["l2", "none"]
Weight = Literal["one", "sigma", "variance"]
Labels = Annotated[
    Annotated[Literal["cycle"], Tag("<text>")] | Annotated[list[int], Field(min_length=1), Tag("<list>")],
    form_of("`cycle` or a list of class indices"),
]


def _in_float32(value: float) -> float:
    if abs(value) > 3.4e38:
        raise ValueError(f"must lie within float32, in which the shift is added, got {value:g}")
    return value


Scale = Annotated[float, AfterValidator(_in_float32)]


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


def _one_probe(entry: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if len(entry) != 1:
        raise ValueError(f"is a name, or one name with its options, got {entry}")
    return entry


def _named(entries: dict[str, Any]) -> dict[str, Any]:
    for name in entries:
        try:
            check_name(name, "its names")
        except GradscopeError as error:
            raise ValueError(str(error)) from None
    return entries


ProbeSpec = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[dict[str, dict[str, Any]], AfterValidator(_one_probe), Tag("<mapping>")],
    form_of("a name, or a name with its options, for example {snr: {draws: 8}}"),
]


class SmoothGradConfig(Strict):
    """See `gradscope.sampling.guidance.smoothgrad.SmoothGrad`."""

    samples: Positive
    """Classifier passes a step."""
    std: Annotated[float, Field(ge=0)]
    """Of the Gaussian noise on the classifier's input, whose images lie in [-1, 1]."""


class GuidanceConfig(Strict):
    classifier_input: Annotated[list[ClassifierInput], Field(min_length=1), AfterValidator(_distinct)] = ["x_t"]
    guidance_scale: Annotated[list[Scale], Field(min_length=1), AfterValidator(_distinct)]
    """Below 0 guidance steers away from the target; 0 is the unguided control."""
    objective: Objective = "log_prob"
    normalize: Normalize = "l2"
    weight: Weight = "one"
    interval: Interval | None = None
    """Timesteps ``first <= t < end`` that are guided; default: all."""
    smoothgrad: SmoothGradConfig | None = None


class SamplingConfig(Strict):
    scheduler: Literal["ddpm", "ddim"] = "ddpm"
    num_inference_steps: Positive = 50
    samples: Annotated[int, Field(ge=1, le=10**7)] = 64
    batch_size: Positive = 32
    labels: Labels = "cycle"
    seed: Seed = 0


class ExecutionConfig(Strict):
    """How the models run. What differs from float32 in eager mode is measured before the first step."""

    autocast: Literal["none", "bfloat16", "float16"] = "none"
    """Of the U-Net."""
    compile: bool = False
    """`torch.compile` for U-Net and classifiers: minutes before the first step."""
    gradient_checkpointing: bool = False
    """The U-Net keeps fewer activations and computes them again: for x0 with large U-Nets."""
    tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest deviation of a gradient, relative to its norm, with which a run is begun."""


class RecordingConfig(Strict):
    path: PathText
    dtype: Literal["float32", "float16"] = "float32"
    codec: Literal["auto", "none", "lz4"] = "auto"
    tensor_samples: Annotated[int, Field(ge=0)] = 64
    tensor_every: Positive = 1
    durable: bool = False
    """Data are on the disk before they are marked as written: for power failures, at the cost of waiting for it."""


class RunConfig(Strict):
    """One run: a grid of cells over the same samples."""

    denoiser: PathText
    classifiers: Annotated[dict[str, ClassifierSpec], Field(min_length=1), AfterValidator(_named)]
    judge: ClassifierSpec = "none"
    evaluation: EvaluationConfig = EvaluationConfig()
    guidance: GuidanceConfig
    stabilizers: Annotated[dict[str, dict[str, Any]], Field(min_length=1), AfterValidator(_named)] = {"none": {}}
    sampling: SamplingConfig = SamplingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    probes: list[ProbeSpec] = ["gradient", "update", "norms", "cosines", "strength", "belief"]
    recording: RecordingConfig
