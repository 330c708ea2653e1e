"""Which guides will fail, from unguided trajectories alone: a logistic rule of few diagnostics.

The rule's numbers lie in ``rule.yaml``, which ``python runs/population.py predict`` writes; they say what the rule was
fitted on. A guide fails at an input if guidance closes less than half of the gap between the judge's accuracy of
unguided samples and 1.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from gradscope.analysis.logistic import Logistic
from gradscope.analysis.means import finite_mean
from gradscope.config import Strict, check, read_yaml

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


def _mean(name: str) -> Callable[[xr.Dataset], float]:
    return lambda cell: float(finite_mean(cell[name].values.astype(np.float64).ravel(), axis=0)[0])


def _share_of_log_classes(value: float, cell: xr.Dataset) -> float:
    return value / math.log(len(cell.attrs["classes"]))


def _predictions(cell: xr.Dataset) -> np.ndarray:
    """Predicted classes ``(sample, timestep)``, in sampling order."""
    return cell["predicted_class"].transpose("sample", "timestep").values


def _persistence(cell: xr.Dataset) -> float:
    classes = _predictions(cell)
    return float((classes[:, 1:] == classes[:, :-1]).mean())


def _foresight(cell: xr.Dataset) -> float:
    classes = _predictions(cell)
    return float((classes[:, :-1] == classes[:, -1:]).mean())


def _diversity(cell: xr.Dataset) -> float:
    entropies = []
    for column in _predictions(cell).T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        entropies.append(-(share * np.log(share)).sum())
    return _share_of_log_classes(float(np.mean(entropies)), cell)


FEATURES: dict[str, tuple[str, Callable[[xr.Dataset], float]]] = {
    "gradient_cosine": ("cosine of successive gradients", _mean("gradient_cosine")),
    "gradient_first_cosine": ("cosine with the first gradient", _mean("gradient_first_cosine")),
    "score_cosine": ("cosine of the gradient with the score", _mean("score_cosine")),
    "high_frequency_share": ("high-frequency share of the gradient", _mean("high_frequency_share")),
    "entropy": (
        "entropy of the prediction, in units of log(classes)",
        lambda cell: _share_of_log_classes(_mean("entropy")(cell), cell),
    ),
    "persistence": ("share of steps that keep the predicted class", _persistence),
    "foresight": ("share of steps that predict the last step's class", _foresight),
    "diversity": ("entropy of the predicted classes over samples, in units of log(classes)", _diversity),
}
"""Candidates: what each is, and its value for one cell of unguided trajectories, a mean over samples and timesteps."""
VARIABLES = (
    "gradient_cosine",
    "gradient_first_cosine",
    "score_cosine",
    "high_frequency_share",
    "entropy",
    "predicted_class",
)
"""The variables that the candidates are made of."""


def features(cell: xr.Dataset) -> dict[str, float]:
    """Every candidate feature of one cell of unguided trajectories.

    Parameters
    ----------
    cell
        `VARIABLES` over sample and timestep, and the attribute ``classes``.
    """
    return {name: value(cell) for name, (_, value) in FEATURES.items()}


def read_rule() -> Rule:
    """The committed rule."""
    return check(Rule, read_yaml(RULE, str(RULE)), str(RULE))


def predict(control: xr.Dataset, rule: Rule | None = None) -> list[Prediction]:
    """Which guides will fail, by unguided trajectories.

    Parameters
    ----------
    control
        Unguided trajectories: `VARIABLES` over classifier, classifier_input, sample and timestep; for example the
        cells at scale 0 of a store, ``ds.sel(guidance_scale=0).isel(stabilizer=0)``.
    rule
        Default: the committed one.

    Examples
    --------
    >>> predictions = predict(control)  # doctest: +SKIP
    """
    used = read_rule() if rule is None else rule
    found = []
    for name in control["classifier"].values:
        for kind in control["classifier_input"].values:
            cell = control[list(VARIABLES)].sel(classifier=name, classifier_input=kind).load()
            values = {feature: FEATURES[feature][1](cell) for feature in used.features}
            p = Logistic(used.intercept, tuple(used.features.values()))(list(values.values()))
            found.append(Prediction(str(name), str(kind), float(p), values))
    return found


def sentence(prediction: Prediction, rule: Rule) -> str:
    """The prediction in words, with its evidence."""
    name, kind = prediction.classifier, prediction.classifier_input
    evidence = ", ".join(f"{FEATURES[key][0]} {value:.2f}" for key, value in prediction.features.items())
    if math.isnan(prediction.probability):
        return f"{name} at {kind}: no prediction: {evidence} along unguided trajectories"
    says = "will probably not guide" if prediction.fails else "will probably guide"
    return (
        f"{name} {says} at {kind}: {evidence} along unguided trajectories (probability of failure "
        f"{prediction.probability:.2f}; rule fitted on {rule.guides} guides, AUC {rule.auc:.2f} "
        f"[{rule.auc_interval[0]:.2f}, {rule.auc_interval[1]:.2f}] on {rule.tested} others)"
    )
