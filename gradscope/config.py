"""The configuration: strict models, read from YAML, with errors that name the key."""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gradscope.errors import GradscopeError, one_of

ClassifierInput = Literal["x_t", "x0", "x0_detached"]
Objective = Literal["log_prob", "logit"]
Normalize = Literal["l2", "none"]
Weight = Literal["one", "sigma", "variance"]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Strict(BaseModel):
    """No unknown keys, no conversions, no change after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TimmClassifier(Strict):
    """A classifier by its timm name."""

    timm: str
    """Name of a timm architecture."""
    checkpoint: str | None = None
    """Safetensors file (or a .pt file that loads with `weights_only`); without it, timm's pretrained weights."""
    num_classes: Positive
    mean: list[float] | None = None
    """Per channel, of images in [0, 1]; default: what timm's card of the model says."""
    std: list[Annotated[float, Field(gt=0)]] | None = None
    options: dict[str, Any] = {}
    """Further keyword arguments of `timm.create_model`."""


def _form(value: Any) -> str | None:
    """Which member of a union a value is meant for, so that errors speak of that one alone."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    return "<mapping>" if isinstance(value, dict | TimmClassifier) else None


def _form_of(what: str) -> Discriminator:
    return Discriminator(_form, custom_error_type="form", custom_error_message=f"Input should be {what}")


ClassifierSpec = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[TimmClassifier, Tag("<mapping>")],
    _form_of("a name (zoo:SET/NAME, CARD.yaml, package.module:callable) or a mapping of timm's keys"),
]
Labels = Annotated[
    Annotated[Literal["cycle"], Tag("<text>")] | Annotated[list[int], Field(min_length=1), Tag("<list>")],
    _form_of("`cycle` or a list of class indices"),
]


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


def _ordered(interval: list[int]) -> list[int]:
    if interval[0] >= interval[1]:
        raise ValueError(f"is [first, end) and first must be below end, got {interval}")
    return interval


def _one_probe(entry: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if len(entry) != 1:
        raise ValueError(f"is a name, or one name with its options, got {entry}")
    return entry


ProbeSpec = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[dict[str, dict[str, Any]], AfterValidator(_one_probe), Tag("<mapping>")],
    _form_of("a name, or a name with its options, for example {snr: {draws: 8}}"),
]
Interval = Annotated[list[int], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class SmoothGradConfig(Strict):
    """See `gradscope.smoothgrad.SmoothGrad`."""

    samples: Positive
    """Classifier passes a step."""
    std: Annotated[float, Field(ge=0)]
    """Of the Gaussian noise on the classifier's input, whose images lie in [-1, 1]."""


class GuidanceConfig(Strict):
    classifier_input: Annotated[list[ClassifierInput], Field(min_length=1), AfterValidator(_distinct)] = ["x_t"]
    guidance_scale: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
    objective: Objective = "log_prob"
    normalize: Normalize = "l2"
    weight: Weight = "one"
    interval: Interval | None = None
    """Timesteps ``first <= t < end`` that are guided; default: all."""
    smoothgrad: SmoothGradConfig | None = None


class SamplingConfig(Strict):
    scheduler: Literal["ddpm", "ddim"] = "ddpm"
    num_inference_steps: Positive = 50
    samples: Positive = 64
    batch_size: Positive = 32
    labels: Labels = "cycle"
    seed: Seed = 0


class RecordingConfig(Strict):
    path: str
    dtype: Literal["float32", "float16"] = "float32"
    codec: Literal["auto", "none", "lz4"] = "auto"
    tensor_samples: Annotated[int, Field(ge=0)] = 64
    tensor_every: Positive = 1


class DataConfig(Strict):
    """A data set by one key; see `gradscope.data.datasets`."""

    name: str
    """`sportballs`, `fashion_mnist`, `image_folder`, or `torchvision/NAME`."""
    size: Positive = 32
    channels: Literal[1, 3] = 3
    path: str | None = None
    samples: Positive = 100_000
    """Number of training images (SportBalls only)."""
    seed: Annotated[int, Field(ge=0, lt=2**61)] = 0


class Inception(Strict):
    """The features of FID."""

    inception: str
    """Weights file of torch-fidelity's Inception v3."""


def _extractor_form(value: Any) -> str | None:
    inception = isinstance(value, Inception) or (isinstance(value, dict) and "inception" in value)
    return "<inception>" if inception else _form(value)


ExtractorSpec = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[TimmClassifier, Tag("<mapping>")]
    | Annotated[Inception, Tag("<inception>")],
    Discriminator(
        _extractor_form,
        custom_error_type="form",
        custom_error_message="Input should be a classifier, as under `classifiers`, or {inception: WEIGHTS}",
    ),
]


class EvaluationConfig(Strict):
    """`gradscope evaluate`: what the final samples are compared with."""

    extractor: ExtractorSpec | None = None
    """Default: `zoo:SET/extractor` for a denoiser of that set."""
    data: DataConfig | None = None
    """Default: that of the denoiser's card. Its held-out split is used."""
    samples: Annotated[int, Field(ge=4)] = 8192
    """At most so many real images."""
    replicates: Positive = 200
    """Of the bootstrap."""


class RunConfig(Strict):
    """One run: a grid of cells over the same samples."""

    denoiser: str
    classifiers: Annotated[dict[str, ClassifierSpec], Field(min_length=1)]
    judge: ClassifierSpec = "none"
    evaluation: EvaluationConfig = EvaluationConfig()
    guidance: GuidanceConfig
    stabilizers: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = {"none": {}}
    sampling: SamplingConfig = SamplingConfig()
    probes: list[ProbeSpec] = ["gradient", "update", "norms", "cosines", "strength", "belief"]
    recording: RecordingConfig

    def hash(self) -> str:
        """SHA-256 of what is recorded, as canonical JSON without the store's path and evaluation; 16 hex digits."""
        content = self.model_dump(mode="json", exclude={"evaluation": True, "recording": {"path"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class TrainingConfig(Strict):
    steps: Positive
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: Positive = 500
    seed: Seed = 0


class DenoiserEvaluation(Strict):
    judge: str
    extractor: str
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
    output: str
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
    output: str


class AuditConfig(Strict):
    """`gradscope probe-classifier`."""

    classifiers: Annotated[dict[str, ClassifierSpec], Field(min_length=1)]
    denoiser: str = "none"
    """For x0-hat; without one, classifiers are audited at x_t alone."""
    scheduler: dict[str, Any] = {}
    """Keyword arguments of `diffusers.DDPMScheduler`, where there is no denoiser, which has its own."""
    data: DataConfig
    class_index: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """The classifiers' number of each class of the data; default: the classes of both are the same, in order."""
    timesteps: Annotated[int, Field(ge=2)] = 20
    """How many, evenly spaced over the schedule, both ends included."""
    samples: Annotated[int, Field(ge=2)] = 512
    """Held-out images; all there are, where there are fewer."""
    batch_size: Positive = 32
    seed: Seed = 0


Model = TypeVar("Model", bound=Strict)


def load(model: type[Model], name: str, overrides: Sequence[str] = ()) -> Model:
    """Read the YAML file `name`, apply ``key.sub=value`` overrides (values are YAML) and check it.

    Raises
    ------
    GradscopeError
        Naming every wrong key, what was got and what is possible.
    """
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GradscopeError(f"--config: {path} cannot be read as text: {error}") from None
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        raise GradscopeError(f"{path}: a configuration is a mapping of keys, got {type(content).__name__}")
    for override in overrides:
        apply(content, override)
    return check(model, content, str(path))


def check(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Check a mapping against a configuration model; `where` stands before each error."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise GradscopeError(f"{where}: " + "; ".join(error_lines(model, error))) from None


def error_lines(model: type[Strict], error: ValidationError) -> list[str]:
    """What is wrong, once each, every line beginning with its key."""
    return list(dict.fromkeys(_line(model, e) for e in error.errors()))


def find(name: str) -> Path:
    """Find a configuration: as given, then in ``runs/``, then among the presets inside the package."""
    candidates = [Path(name), Path("runs") / name]
    for path in candidates:
        if path.is_file():
            return path
    presets = preset_folder()
    if (presets / name).is_file():
        return presets / name
    names = sorted(str(path.relative_to(presets)) for path in presets.rglob("*.yaml"))
    raise GradscopeError(f"--config: no file {name!r} here, in runs/ or among the presets; {one_of(name, names)}")


def preset_folder() -> Path:
    """Where the presets lie: inside the installed package, or ``runs/`` of the checkout it is run from."""
    package = Path(str(resources.files("gradscope")))
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "runs"


def _parse(text: str, where: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise GradscopeError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None


def apply(content: dict[str, Any], override: str) -> None:
    """Change `content` by one ``key.sub=value``, where the value is YAML."""
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise GradscopeError(f"--set takes key=value, for example sampling.samples=4; got {override!r}")
    *parents, last = key.split(".")
    for i, parent in enumerate(parents):
        if content.get(parent) is None:
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise GradscopeError(f"--set {override}: {'.'.join(parents[: i + 1])} is a value, it has no keys")
    content[last] = _parse(value, f"--set {override}")


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
}


def _line(model: type[Strict], error: Any) -> str:
    path = [str(part) for part in error["loc"] if str(part) not in ("<text>", "<list>", "<mapping>", "<inception>")]
    kind, got = error["type"], _shortened(error["input"])
    if kind == "invalid_key" or path[-1:] == ["[key]"]:
        return f"{'.'.join(path).removesuffix('.[key]')}: a key must be text, got {got}"
    key = f"{'.'.join(path)}: " if path else ""
    if kind == "extra_forbidden":
        return f"{key}unknown key; {one_of(path[-1], _keys(model, path[:-1]))}"
    if kind == "missing":
        return f"{key}this key is missing"
    if kind == "literal_error":
        possible = [text.strip("'") for text in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"{key}got {got}; {one_of(error['input'], possible)}"
    if kind == "value_error":
        return key + error["msg"].removeprefix("Value error, ")
    if kind in _WANTED:
        return f"{key}must be {_WANTED[kind]}, got {got}"
    message = error["msg"].replace("Input should", "must").replace(" should", " must").split(" after validation")[0]
    return f"{key}{message[0].lower()}{message[1:]}, got {got}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _keys(model: type[Strict], path: Sequence[str]) -> list[str]:
    """The keys that are possible at `path` below `model`."""
    for part in path:
        field = model.model_fields.get(part)
        if field is not None:
            model = _model_in(field.annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[Strict] | None:
    """The model that a field's annotation speaks of: itself, or inside a union, a mapping or a list."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
