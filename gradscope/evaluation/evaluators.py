"""Who looks at the samples of a store: guides, judge, feature extractor and real images, by its configuration."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from torch import nn

from gradscope.config import ClassifierSpec, DataConfig, EvaluationConfig, RunConfig, Strict, apply, check
from gradscope.errors import GradscopeError
from gradscope.evaluation.features import Features, load_extractor
from gradscope.models import cards
from gradscope.models.classifiers import Classifier, load_classifier

Tell = Callable[[str], object]
_RECORDED = "the store's configuration"


class Settings(Strict):
    """The keys of a run's configuration that evaluate a store; `--set` may change them afterwards."""

    judge: ClassifierSpec = "none"
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True)
class Evaluators:
    """Whoever is None, or empty, gives no verdict."""

    settings: Settings
    """As they are used: extractor and data are None only where there are none."""
    guides: Mapping[str, Classifier]
    judge: Classifier | None
    extractor: Features | None = None

    def of_cell(self, classifier: str) -> dict[str, nn.Module]:
        """Who names a class for the samples of a cell: ``own``, the guide `classifier`, and the ``judge``."""
        found = {"own": self.guides.get(classifier), "judge": self.judge}
        return {name: who.module for name, who in found.items() if who is not None}


def load_evaluators(ds: xr.Dataset, overrides: Sequence[str], device: torch.device, tell: Tell) -> Evaluators:
    """Load what the store's configuration names, changed by ``key.sub=value`` overrides of `Settings`.

    Parameters
    ----------
    ds
        An open store.
    tell
        Called with a sentence for each verdict that is left out, with the key that would give it.

    Raises
    ------
    GradscopeError
        A wrong override, or something named cannot be loaded or does not fit the store's images.
    """
    recorded = json.loads(ds.attrs["configuration"])
    run = check(RunConfig, recorded, _RECORDED) if "classifiers" in recorded else None
    settings = _settings(recorded, run, overrides)
    shape = (ds.sizes["channel"], ds.sizes["height"], ds.sizes["width"])
    spec, data = settings.evaluation.extractor, settings.evaluation.data
    found = Evaluators(
        settings,
        {}
        if run is None
        else {k: load_classifier(c, f"classifiers.{k}", shape, device) for k, c in run.classifiers.items()},
        None if settings.judge == "none" else load_classifier(settings.judge, "judge", shape, device),
        None if spec is None or data is None else load_extractor(spec, "evaluation.extractor", shape, device),
    )
    if not found.guides and found.judge is None and found.extractor is None:
        raise GradscopeError(
            "nothing to evaluate with: --set judge=..., evaluation.extractor=... and evaluation.data=..."
        )
    if run is None:
        tell("no own_accuracy: the store was recorded from Python, so its guides cannot be loaded")
    if found.judge is None:
        tell("no judge_accuracy, no transfer_ratio: --set judge=... gives them")
    if found.extractor is None:
        missing = {"extractor": spec, "data": data}
        keys = " and ".join(f"--set evaluation.{key}=..." for key, value in missing.items() if value is None)
        tell(f"no distances, no coverage: {keys} gives them")
    return found


def _settings(recorded: Mapping[str, Any], run: RunConfig | None, overrides: Sequence[str]) -> Settings:
    """As recorded and overridden; defaults: the data of the denoiser's card, the extractor of its set in the zoo."""
    content = {key: recorded[key] for key in Settings.model_fields if key in recorded}
    for override in overrides:
        apply(content, override)
    settings = check(Settings, content, "--set" if overrides else _RECORDED)
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
