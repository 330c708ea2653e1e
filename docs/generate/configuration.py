"""Every key of every configuration, from the pydantic models that check them."""

from markdown_tables import code, escaped, table

from gradscope.config import (
    AuditConfig,
    DataConfig,
    RunConfig,
    Strict,
    TimmClassifier,
    TrainClassifierConfig,
    TrainDenoiserConfig,
    TrainingConfig,
)
from gradscope.config.reference import Key, keys

FILES: dict[type[Strict], str] = {
    RunConfig: "A run: `gradscope record`, `gradscope evaluate`",
    AuditConfig: "An audit: `gradscope audit`",
    TrainDenoiserConfig: "Training a denoiser: `gradscope train ddpm`",
    TrainClassifierConfig: "Training a classifier: `gradscope train classifier`",
}
"""The models of whole files, and the heading of each."""
SHARED: dict[type[Strict], str] = {
    TimmClassifier: "A classifier by its timm name",
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
    """The values, with a link to the table of a shared section."""
    values = escaped(key.values)
    shared = [f"[mapping](#{model.__name__.lower()})" for model in key.below if model in SHARED]
    if not shared:
        return values or "the keys below"
    return values.replace("mapping", shared[0]) or shared[0]


def _default(key: Key) -> str:
    if key.default is None:
        return "required" if key.values else "-"
    return code(key.default)


def _description(key: Key) -> str:
    """The description, with what stands in backticks as code."""
    parts = key.description.split("`")
    return "".join(code(part) if i % 2 else escaped(part) for i, part in enumerate(parts))
