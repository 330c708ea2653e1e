"""The evaluators of a store, by its configuration: guides, judge, feature extractor and real images."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from torch import nn

from gradscope.config import (
    ClassifierSpec,
    DataConfig,
    EnergyGuide,
    EvaluationConfig,
    MeasurementGuide,
    RunConfig,
    Strict,
    SumGuide,
    apply,
    check,
)
from gradscope.errors import GradscopeError
from gradscope.evaluation.features import Features, load_extractor
from gradscope.models import cards
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.store.dims import final_shape
from gradscope.text import samples_of

Tell = Callable[[str], object]
_RECORDED = "the store's configuration"
_ON_THE_COMMAND_LINE = {
    "guide": "gradscope.evaluate(STORE, guide=MODULE), in Python, gives it",
    "judge": "--set judge=...",
    "extractor": "--set evaluation.extractor=...",
    "data": "--set evaluation.data=...",
}
_IMAGE = 3
"""Number of an image's dimensions: channel, height, width."""
IN_PYTHON = {"guide": "guide=MODULE gives it", "judge": "judge=...", "extractor": "extractor=...", "data": "data=..."}
"""The way to get a missing verdict, by the part that it needs."""


class Settings(Strict):
    """The keys of a run's configuration for evaluation. `--set` may change them after the run."""

    judge: ClassifierSpec = "none"
    """Classifier that judges the final samples and guides none of them, or none."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Real images that the final samples are compared with."""


@dataclass(frozen=True)
class Evaluators:
    """The loaded classifiers and features. One that is None gives no verdict."""

    settings: Settings
    """The settings in use. Extractor and data are None only if there are none."""
    guides: Mapping[str, Classifier]
    judge: Classifier | None
    extractor: Features | None = None

    def of_cell(self, classifier: str) -> dict[str, nn.Module]:
        """The classifiers that predict a class for a cell's samples: ``own``, the guide `classifier`, and ``judge``."""
        found = {"own": self.guides.get(classifier), "judge": self.judge}
        return {name: who.module for name, who in found.items() if who is not None}


def load_evaluators(ds: xr.Dataset, overrides: Sequence[str], device: torch.device, tell: Tell) -> Evaluators:
    """Load the evaluators of a store's configuration, changed by ``key.sub=value`` overrides of `Settings`.

    Parameters
    ----------
    ds
        An open store.
    tell
        Called with a sentence for each missing verdict, which names the key that gives it.

    Raises
    ------
    GradscopeError
        An override is wrong, or an evaluator cannot be loaded or does not fit the store's images.
    """
    run = recorded_run(ds)
    settings = settings_of(ds, run, {}, overrides)
    shape = final_shape(ds)
    refuse_distances(settings, shape)
    spec, data = settings.evaluation.extractor, settings.evaluation.data
    found = Evaluators(
        settings,
        {k: load_classifier(c, f"classifiers.{k}", shape, device) for k, c in guiding_classifiers(run).items()},
        None if settings.judge == "none" else load_classifier(settings.judge, "judge", shape, device),
        None if spec is None or data is None else load_extractor(spec, "evaluation.extractor", shape, device),
    )
    tell_what_is_missing(found, run, shape, _ON_THE_COMMAND_LINE, tell)
    return found


def refuse_distances(settings: Settings, shape: tuple[int, ...]) -> None:
    """Raise GradscopeError if samples that are not images are to be compared with real images."""
    given = [key for key in ("extractor", "data") if getattr(settings.evaluation, key) is not None]
    if given and len(shape) != _IMAGE:
        raise GradscopeError(
            f"evaluation.{given[0]}: distances compare with real images, but the store holds {samples_of(shape)}; "
            "leave it out, and the judge alone evaluates"
        )


def guiding_classifiers(run: RunConfig | None) -> dict[str, ClassifierSpec]:
    """The guides of a configuration that are classifiers: energies and sums predict no class."""
    specs = {} if run is None else run.classifiers
    return {
        name: spec for name, spec in specs.items() if not isinstance(spec, EnergyGuide | MeasurementGuide | SumGuide)
    }


def tell_what_is_missing(
    found: Evaluators, run: RunConfig | None, shape: tuple[int, ...], how: Mapping[str, str], tell: Tell
) -> None:
    """Call `tell` for each missing verdict, with the way to get it: see `IN_PYTHON`.

    `run` is the store's configuration; None if it was recorded from Python. `shape` is that of a sample.

    Raises
    ------
    GradscopeError
        There is nothing to evaluate with.
    """
    settings = found.settings.evaluation
    classless = [] if run is None else [name for name in run.classifiers if name not in guiding_classifiers(run)]
    if classless:
        tell(f"no own_accuracy for {', '.join(classless)}: an energy or a sum of guides predicts no class")
    elif not found.guides and found.judge is None and found.extractor is None:
        raise GradscopeError("nothing to evaluate with", python=_all(IN_PYTHON), command=_all(_ON_THE_COMMAND_LINE))
    if run is None and not found.guides:
        tell(f"no own_accuracy: the store was recorded from Python and does not name its guides; {how['guide']}")
    if found.judge is None:
        tell(f"no judge_accuracy, no transfer_ratio: {how['judge']} gives them")
    if len(shape) != _IMAGE:
        tell(f"no distances, no coverage: they compare with real images, and the store holds {samples_of(shape)}")
    elif found.extractor is None:
        missing = {"extractor": settings.extractor, "data": settings.data}
        keys = " and ".join(how[key] for key, value in missing.items() if value is None)
        tell(f"no distances, no coverage: {keys} gives them")


def _all(how: Mapping[str, str]) -> str:
    return f"{how['judge']}, {how['extractor']} and {how['data']} name what there is"


def recorded_run(ds: xr.Dataset) -> RunConfig | None:
    """The configuration of a recorded store; None if it was recorded from Python."""
    recorded = json.loads(ds.attrs.get("configuration", "{}"))
    return check(RunConfig, recorded, _RECORDED) if "classifiers" in recorded else None


def settings_of(
    ds: xr.Dataset, run: RunConfig | None, given: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Settings:
    """Recorded settings, changed by `given` and `overrides`.

    Defaults are the data of the denoiser's card and the extractor of its zoo set.
    """
    recorded = json.loads(ds.attrs.get("configuration", "{}"))
    content = {key: recorded[key] for key in Settings.model_fields if key in recorded}
    for key, value in given.items():
        content[key] = {**content.get(key, {}), **value} if key == "evaluation" else value
    for override in overrides:
        apply(content, override)
    settings = check(Settings, content, "--set" if overrides else "evaluate" if given else _RECORDED)
    denoiser = "" if run is None else run.denoiser
    defaults = {"data": _data_of(denoiser), "extractor": _extractor_of(denoiser)}
    wanted = {key: value for key, value in defaults.items() if getattr(settings.evaluation, key) is None}
    return settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=wanted)})


def _data_of(denoiser: str) -> DataConfig | None:
    if not denoiser.startswith("zoo:") and not denoiser.endswith(".yaml"):
        return None
    return cards.read(cards.resolve(denoiser, "denoiser"), "denoiser").data


def _extractor_of(denoiser: str) -> str | None:
    if not denoiser.startswith("zoo:"):
        return None
    name = f"{denoiser.rpartition('/')[0]}/extractor"
    try:
        cards.resolve(name, "evaluation.extractor")
    except GradscopeError:
        return None
    return name
