"""Every key of every configuration, from the pydantic models that check them."""

import re
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import griffe
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from markdown_tables import code, table
from pydantic import Tag
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gradscope import config
from gradscope.config import Strict

FILES = {
    "RunConfig": "A run: `gradscope record`, `gradscope evaluate`",
    "AuditConfig": "An audit: `gradscope probe-classifier`",
    "TrainDenoiserConfig": "Training a denoiser: `gradscope train ddpm`",
    "TrainClassifierConfig": "Training a classifier: `gradscope train classifier`",
}
"""The models of whole files, and the heading of each."""
SHARED = {
    "TimmClassifier": "A classifier by its timm name",
    "DataConfig": "Images",
    "TrainingConfig": "How a training runs",
}
"""The models that several keys have as their value."""

DESCRIPTIONS = {
    "RunConfig.denoiser": "The U-Net with its scheduler: `zoo:SET/NAME`, a card of `gradscope train`, a diffusers "
    "folder or hub id, or `package.module:callable`.",
    "RunConfig.classifiers": "The guides by name; the names are the store's coordinate `classifier`.",
    "RunConfig.judge": "A classifier that guides none of the cells and says which class the final samples have; `none` "
    "where there is none.",
    "RunConfig.evaluation": "What `gradscope evaluate` compares the final samples with.",
    "RunConfig.guidance": "How a gradient becomes a shift.",
    "RunConfig.stabilizers": "The stabilisers by name, each with its settings; the names are the store's coordinate "
    "`stabilizer`. See [stabilisers](stabilisers.md).",
    "RunConfig.sampling": "How the samples are drawn.",
    "RunConfig.execution": "How the models run.",
    "RunConfig.probes": "What is recorded: names of probes, probes with options, and your own as "
    "`package.module:Class`. See [diagnostics](diagnostics.md).",
    "RunConfig.recording": "Where and how the store is written.",
    "GuidanceConfig.classifier_input": "What the guide sees: the noisy sample (`x_t`), x0-hat differentiated through "
    "the U-Net (`x0`), or x0-hat with the predicted noise held constant (`x0_detached`). One cell for each.",
    "GuidanceConfig.objective": "What is differentiated: the log-probability of the target class, or its logit.",
    "GuidanceConfig.normalize": "Whether each update is divided by its l2 norm before it is scaled.",
    "GuidanceConfig.weight": "Factor of the shift: 1, the standard deviation or the variance of the step's noise. DDIM "
    "takes `one`.",
    "GuidanceConfig.smoothgrad": "Average the gradient over noised inputs of the classifier (arXiv 1706.03825).",
    "SamplingConfig.scheduler": "Which sampler runs the denoiser's noise schedule; DDIM runs with eta 0.",
    "SamplingConfig.num_inference_steps": "Steps of a trajectory.",
    "SamplingConfig.samples": "Samples of each cell.",
    "SamplingConfig.batch_size": "Samples of a block, which go through the models together; two runs that are to be "
    "equal to the bit have the same.",
    "SamplingConfig.labels": "Target class of each sample: `cycle` takes the classes in turn; a list is repeated.",
    "SamplingConfig.seed": "Sample i draws all of its noise from a generator seeded by (seed, i).",
    "RecordingConfig.path": "The store: a path, or the URL of one in an object store.",
    "RecordingConfig.dtype": "Type of the stored tensors; `float16` has one exponent a sample and timestep.",
    "RecordingConfig.codec": "Compression of chunks: none, lz4 with bit shuffling, or lz4 where a trial on the first "
    "gradients gains over 1.5 times.",
    "RecordingConfig.tensor_samples": "Tensors are kept of the first samples, this many of them; scalars of all.",
    "RecordingConfig.tensor_every": "Tensors are kept at every n-th step, from the first; scalars at all.",
    "AuditConfig.classifiers": "The classifiers to audit, by name.",
    "AuditConfig.data": "Where the held-out images come from.",
    "AuditConfig.batch_size": "Images that go through together; the noise does not depend on it.",
    "AuditConfig.seed": "Seed of the choice of images, of the noise and of the bootstrap.",
    "TimmClassifier.num_classes": "Number of classes.",
    "TimmClassifier.std": "Per channel, as `mean`.",
    "DataConfig.size": "Height and width of the images in pixels.",
    "DataConfig.channels": "1 (grey) or 3 (colour).",
    "DataConfig.seed": "Seed of the drawn images (SportBalls only).",
    "TrainingConfig.steps": "Training steps.",
    "TrainingConfig.batch_size": "Images a step.",
    "TrainingConfig.learning_rate": "Learning rate of AdamW, after the warm-up.",
    "TrainingConfig.weight_decay": "Weight decay of AdamW.",
    "TrainingConfig.warmup_steps": "Steps over which the learning rate rises from 0.",
    "TrainingConfig.precision": "Type of the layers' arithmetic; `auto`: bfloat16 on a GPU, float32 on a CPU.",
    "TrainingConfig.checkpoint_every": "Steps between checkpoints, from which an interrupted training goes on.",
    "TrainingConfig.seed": "Seed of weights, data order and noise.",
    "DenoiserEvaluation.judge": "Classifier that counts the classes of the trained denoiser's samples.",
    "DenoiserEvaluation.extractor": "Features of the Frechet distance on the card.",
    "DenoiserEvaluation.samples": "Samples drawn for the card.",
    "DenoiserEvaluation.num_inference_steps": "Steps of these samples.",
    "TrainDenoiserConfig.data": "The training images.",
    "TrainDenoiserConfig.training": "How the training runs.",
    "TrainDenoiserConfig.evaluation": "What the card says about the samples; without it, nothing.",
    "TrainClassifierConfig.data": "The training images.",
    "TrainClassifierConfig.timm": "Name of a timm architecture.",
    "TrainClassifierConfig.options": "Keyword arguments of `timm.create_model`.",
    "TrainClassifierConfig.scheduler": "Keyword arguments of `diffusers.DDPMScheduler`, for `train_on: x_t`.",
    "TrainClassifierConfig.training": "How the training runs.",
    "TrainClassifierConfig.output": "Path without suffix: writes OUTPUT.safetensors and its card OUTPUT.yaml.",
}
"""Of keys that have no docstring in `gradscope.config`."""


class Key(NamedTuple):
    """One key of a configuration."""

    name: str
    """With dots, from the top of the file."""
    type: str
    default: str
    range: str
    description: str


def keys(model: type[Strict], parent: str = "") -> Iterator[Key]:
    """Every key of a model, each followed by those of the model that is its value, unless it is `SHARED`."""
    for name, field in model.model_fields.items():
        path = f"{parent}{name}"
        kind, limits = type_and_range(field)
        yield Key(path, kind, default(field), limits, description(model, name))
        for inner, below in models_in(field.annotation, path):
            yield from keys(inner, f"{below}.")


def models_in(annotation: Any, path: str) -> Iterator[tuple[type[Strict], str]]:
    """The models that a value may be, with the path of their keys' parent."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        if annotation.__name__ not in SHARED:
            yield annotation, path
        return
    below = f"{path}.NAME" if get_origin(annotation) is dict else path
    for part in get_args(annotation):
        yield from models_in(part, below)


def type_and_range(field: FieldInfo) -> tuple[str, str]:
    """What a value is, and between which bounds it lies."""
    limits: list[str] = [found for item in field.metadata if (found := limit(item))]
    return kind_of(field.annotation, limits), ", ".join(dict.fromkeys(limits))


_BOUNDS = {
    Ge: ("ge", ">= {}"),
    Gt: ("gt", "> {}"),
    Le: ("le", "<= {}"),
    Lt: ("lt", "< {}"),
    MinLen: ("min_length", "at least {} of them"),
    MaxLen: ("max_length", "at most {} of them"),
}


def limit(item: Any) -> str:
    """One constraint in words; empty where it is none that is shown."""
    if type(item) not in _BOUNDS:
        return ""
    attribute, words = _BOUNDS[type(item)]
    value = getattr(item, attribute)
    power = re.fullmatch(r"0b1(0+)", bin(value)) if isinstance(value, int) and value > 10**9 else None
    return words.format(f"2^{len(power[1])}" if power else f"{value:,}" if isinstance(value, int) else f"{value:g}")


_PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true, false",
    dict: "mapping",
    Any: "any",
    NoneType: "null",
}


def kind_of(annotation: Any, limits: list[str]) -> str:
    """A type in words; constraints inside of it are added to `limits`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        metadata = annotation.__metadata__
        constraints = [c for item in metadata for c in (item.metadata if isinstance(item, FieldInfo) else [item])]
        limits += [found for item in constraints if not isinstance(item, Tag) and (found := limit(item))]
        return kind_of(annotation.__origin__, limits)
    if origin is Literal:
        return ", ".join(code(value) for value in parts)
    if origin in (Union, UnionType):
        kinds = dict.fromkeys(kind_of(part, limits) for part in parts)
        return " or ".join(sorted(kinds, key=lambda kind: kind != "null"))
    if origin is list:
        return f"list of: {kind_of(parts[0], limits)}"
    if origin is dict:
        return f"mapping of names to: {kind_of(parts[1], limits)}"
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        name = annotation.__name__
        return f"[mapping](#{name.lower()})" if name in SHARED else "mapping of the keys below"
    return _PLAIN[annotation]


def default(field: FieldInfo) -> str:
    """The default as YAML has it; empty where the key is required."""
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, Strict):
        return "-"
    shown = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | NoneType) else None
    text = shown or str(value).replace("'", "")
    return code(text)


def description(model: type[Strict], name: str) -> str:
    """The docstring below a field, or else the description here."""
    owner = next(kind for kind in model.__mro__ if name in kind.__dict__.get("__annotations__", {}))
    docstring = _source()[f"{owner.__module__.removeprefix('gradscope.config.')}.{owner.__name__}.{name}"].docstring
    said = docstring.value if docstring else DESCRIPTIONS[f"{owner.__name__}.{name}"]
    return re.sub(r"``?([^`]+)``?", lambda found: code(found[1]), said)


@cache
def _source() -> griffe.Object | griffe.Alias:
    """The models as they are written: pydantic leaves the docstrings of fields out."""
    return griffe.load("gradscope.config")


def text() -> str:
    """A table of keys for each kind of file, and for what several of them hold."""
    parts = []
    for name, heading in (FILES | SHARED).items():
        rows = [
            (code(k.name), k.type, k.default, code(k.range) if k.range else "-", k.description)
            for k in keys(getattr(config, name))
        ]
        parts += [f"## {heading} {{#{name.lower()}}}\n", table(("key", "type", "default", "range", "is"), rows)]
    return "\n".join(parts)
