"""Which guides will fail, from unguided trajectories alone: a logistic rule of few diagnostics.

The rule's numbers lie in ``rule.yaml``, which ``python runs/population.py predict --rule FILE`` writes; they say what
the rule was fitted on. A guide fails at an input if guidance closes less than half of the gap between the judge's
accuracy of unguided samples and 1.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.logistic import Logistic
from gradscope.analysis.means import finite_mean
from gradscope.analysis.missing import require
from gradscope.config import Strict, check, read_yaml
from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims

RULE = Path(__file__).parent / "rule.yaml"


class Rule(Strict):
    """A fitted rule, and how it was tested."""

    features: dict[str, float]
    """Weight of each feature, in the feature's own units."""
    intercept: float
    guides: int
    """Number of guides that the rule was fitted on."""
    tested: int
    """Number of other guides that it was tested on."""
    auc: float
    """Area under the ROC curve for the guides that it was tested on, each at every input."""
    auc_interval: list[float]
    """95 % bootstrap interval over kinds, then guides."""
    about: str
    """The sampling that it was fitted for."""


class Prediction(NamedTuple):
    """The rule's answer for a guide at an input."""

    classifier: str
    classifier_input: str
    probability: float
    """Probability of failure, in [0, 1]; NaN if a feature is not known."""
    features: Mapping[str, float]
    """The features that the rule looks at."""

    @property
    def fails(self) -> bool:
        return self.probability > 0.5


def gap_closed(accuracy: float, control: float) -> float:
    """Share of the gap between the control's accuracy and 1 that guidance closes; below 1/2 the guide fails.

    Examples
    --------
    >>> gap_closed(0.8125, control=0.25)
    0.75
    """
    return (accuracy - control) / (1 - control)


Values = NDArray[Any]
"""One variable of a cell, ``(sample, timestep)``, in sampling order."""


class Feature(NamedTuple):
    """A number that describes the unguided trajectories of one guide at one input."""

    about: str
    variable: str
    """The recorded diagnostic that it is made of."""
    of: Callable[[Values, int], float]
    """Its value, from the variable and the number of classes."""


def _mean(values: Values, classes: int) -> float:
    return float(finite_mean(values.astype(np.float64).ravel(), axis=0)[0])


def _relative_mean(values: Values, classes: int) -> float:
    return _mean(values, classes) / math.log(classes)


def _persistence(predicted: Values, classes: int) -> float:
    return float((predicted[:, 1:] == predicted[:, :-1]).mean())


def _foresight(predicted: Values, classes: int) -> float:
    return float((predicted[:, :-1] == predicted[:, -1:]).mean())


def _diversity(predicted: Values, classes: int) -> float:
    entropies = []
    for column in predicted.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        entropies.append(-(share * np.log(share)).sum())
    return float(np.mean(entropies)) / math.log(classes)


FEATURES = {
    "gradient_cosine": Feature("cosine of successive gradients", "gradient_cosine", _mean),
    "gradient_first_cosine": Feature("cosine with the first gradient", "gradient_first_cosine", _mean),
    "score_cosine": Feature("cosine of the gradient with the score", "score_cosine", _mean),
    "high_frequency_share": Feature("high-frequency share of the gradient", "high_frequency_share", _mean),
    "entropy": Feature("entropy of a prediction, divided by log(classes)", "entropy", _relative_mean),
    "persistence": Feature("share of steps that keep the predicted class", "predicted_class", _persistence),
    "foresight": Feature("share of steps that predict the last step's class", "predicted_class", _foresight),
    "diversity": Feature(
        "entropy of the classes predicted over samples, divided by log(classes)", "predicted_class", _diversity
    ),
}
"""Candidates, each a mean over samples and timesteps."""
VARIABLES = tuple(dict.fromkeys(feature.variable for feature in FEATURES.values()))


def features(cell: xr.Dataset, names: Iterable[str] = FEATURES) -> dict[str, float]:
    """Features of one cell of unguided trajectories.

    Parameters
    ----------
    cell
        The features' variables over sample and timestep, and the attribute ``classes``.
    names
        Keys of `FEATURES`.
    """
    found = {}
    for name in names:
        feature = FEATURES[name]
        values = cell[feature.variable].transpose("sample", "timestep").values
        found[name] = feature.of(values, len(cell.attrs["classes"]))
    return found


def read_rule() -> Rule:
    """The committed rule."""
    return check(Rule, read_yaml(RULE, str(RULE)), str(RULE))


def predict(control: xr.Dataset, rule: Rule) -> list[Prediction]:
    """Which guides will fail, by unguided trajectories.

    Parameters
    ----------
    control
        Unguided trajectories: the features' variables over classifier, classifier_input, sample and timestep.
    rule
        See `read_rule`.
    """
    found = []
    for name in control["classifier"].values:
        for kind in control["classifier_input"].values:
            values = features(control.sel(classifier=name, classifier_input=kind), rule.features)
            p = Logistic(rule.intercept, tuple(rule.features.values()))(list(values.values()))
            found.append(Prediction(str(name), str(kind), float(p), values))
    return found


def predict_failures(ds: xr.Dataset) -> pd.DataFrame:
    """Which guides of a store will fail, by its unguided control alone.

    Parameters
    ----------
    ds
        A store whose grid has scale 0, with the diagnostics of the rule's features.

    Returns
    -------
    pandas.DataFrame
        One row per classifier and classifier_input: the probability of failure by the committed rule, and the features
        that it looks at. The attribute ``rule`` says what the rule was fitted on, and how well it does elsewhere.

    Raises
    ------
    GradscopeError
        The store has no scale 0, or lacks a diagnostic.

    Examples
    --------
    >>> gradscope.predict_failures(ds)[["classifier", "classifier_input"]].values.tolist()
    [['robust', 'x_t'], ['robust', 'x0'], ['non_robust', 'x_t'], ['non_robust', 'x0']]
    """
    rule = read_rule()
    require(ds, *(FEATURES[name].variable for name in rule.features))
    if 0 not in ds["guidance_scale"].values:
        scales = ", ".join(f"{scale:g}" for scale in ds["guidance_scale"].values)
        raise GradscopeError(
            f"guidance_scale: a prediction needs unguided trajectories, scale 0; this store has {scales}"
        )
    further = {dim: 0 for dim in cell_dims(ds) if dim not in ("classifier", "classifier_input", "guidance_scale")}
    control = ds.sel(guidance_scale=0).isel(further)  # unguided trajectories are those of any stabiliser
    keys = ("classifier", "classifier_input", "probability")
    rows = [dict(zip(keys, p, strict=False)) | dict(p.features) for p in predict(control, rule)]
    found = pd.DataFrame(rows)
    found.attrs["rule"] = rule.model_dump()
    return found


def sentence(prediction: Prediction, rule: Rule) -> str:
    """The prediction in words, with its evidence."""
    name, kind = prediction.classifier, prediction.classifier_input
    evidence = ", ".join(f"{FEATURES[key].about} {value:.2f}" for key, value in prediction.features.items())
    if math.isnan(prediction.probability):
        return f"{name} at {kind}: no prediction: {evidence} along unguided trajectories"
    says = "will probably not guide" if prediction.fails else "will probably guide"
    return (
        f"{name} {says} at {kind}: {evidence} along unguided trajectories (probability of failure "
        f"{prediction.probability:.2f}; rule fitted on {rule.guides} guides, AUC {rule.auc:.2f} "
        f"[{rule.auc_interval[0]:.2f}, {rule.auc_interval[1]:.2f}] on {rule.tested} others)"
    )
