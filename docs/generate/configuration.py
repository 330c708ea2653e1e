"""Every key of every configuration, from the pydantic models that check them."""

import re

from markdown_tables import code, escaped, table

from gradscope.config import (
    AuditConfig,
    DataConfig,
    EnergyGuide,
    MeasurementGuide,
    ModuleClassifier,
    OracleConfig,
    RunConfig,
    Strict,
    SumGuide,
    TimmClassifier,
    TrainClassifierConfig,
    TrainDenoiserConfig,
    TrainingConfig,
)
from gradscope.config.reference import Key, keys

FILES: dict[type[Strict], str] = {
    RunConfig: "A run: `gradscope record`, `gradscope evaluate`",
    AuditConfig: "An audit: `gradscope audit`",
    OracleConfig: "A leaderboard: `gradscope oracle`",
    TrainDenoiserConfig: "Training a denoiser: `gradscope train ddpm`",
    TrainClassifierConfig: "Training a classifier: `gradscope train classifier`",
}
"""The models of whole files, and the heading of each."""
SHARED: dict[type[Strict], str] = {
    TimmClassifier: "A classifier by its timm name",
    ModuleClassifier: "A classifier of your own code",
    EnergyGuide: "An energy as a guide",
    MeasurementGuide: "A measurement as a guide",
    SumGuide: "A sum of guides",
    DataConfig: "Images",
    TrainingConfig: "How a training runs",
}
"""The models of sections that several files have; each has a table of its own."""


def text() -> str:
    """A table of keys for each kind of file, and for each section that several of them have."""
    parts = []
    for model, heading in (FILES | SHARED).items():
        rows = [(code(key.path), _values(key), _default(key), _description(key)) for key in keys(model, apart=SHARED)]
        parts += [f"## {heading} {{#{model.__name__.lower()}}}\n", table(("key", "values", "default", "is"), rows)]
    return "\n".join(parts)


def _values(key: Key) -> str:
    """The values, with links to the tables of shared sections, each named by its first key where there are several."""
    values = escaped(key.values)
    shared = [model for model in key.below if model in SHARED]
    if not shared:
        return values or "the keys below"
    names = ["mapping"] if len(shared) == 1 else [f"mapping with {next(iter(model.model_fields))}" for model in shared]
    links = [f"[{name}](#{model.__name__.lower()})" for name, model in zip(names, shared, strict=True)]
    return re.sub("mapping(?! of NAME)", " or ".join(links), values) or links[0]


def _default(key: Key) -> str:
    if key.default is None:
        return "required" if key.values else "-"
    return code(key.default)


def _description(key: Key) -> str:
    """The description, with what stands in backticks as code."""
    parts = key.description.split("`")
    return "".join(code(part) if i % 2 else escaped(part) for i, part in enumerate(parts))
