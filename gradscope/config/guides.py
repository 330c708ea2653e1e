"""How a configuration names a guide: a classifier, an energy, a measurement, or a weighted sum of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, Tag

from gradscope.config.classifiers import ModuleClassifier, TimmClassifier, classifier_mapping, form_of_mapping
from gradscope.config.fields import PathText, Strict, Text, form_of
from gradscope.config.loading import check

_FORMS = "a name (zoo:SET/NAME, CARD.yaml, package.module:callable), a mapping of timm's keys, {module: ...}"


def _not_zero(weight: float) -> float:
    if weight == 0:
        raise ValueError("must not be 0; leave the guide out")
    return weight


class EnergyGuide(Strict):
    """Any function of x_t, t and x0-hat, see `gradscope.Energy`."""

    energy: Text
    """package.module:callable, which takes (x, t, x_0) or (x, t, x_0, target) and gives one number per sample. Guidance
    ascends it. A class is instantiated without arguments."""
    target: (
        Annotated[
            Annotated[list[float], Field(min_length=1), Tag("<list>")] | Annotated[Text, Tag("<text>")],
            form_of("a list of numbers, or package.module:callable that gives a tensor (k, ...)"),
        ]
        | None
    ) = None
    """What the samples are guided to: a list of numbers, or package.module:callable, which takes no arguments and gives
    a tensor (k, ...). Sample i gets row i % k."""


class MeasurementGuide(Strict):
    """A measurement of the clean sample, see `gradscope.Measurement`."""

    measurement: Text
    """package.module:callable, which takes x_0 and gives measurements. A class is instantiated without arguments."""
    target: Text
    """package.module:callable, which takes no arguments and gives measurements, a tensor (k, ...). Sample i gets row
    i % k."""
    noise_std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of the measurement's noise."""


class SumTerm(Strict):
    """One guide of a sum."""

    guide: Annotated[
        Annotated[PathText, Tag("<text>")]
        | Annotated[TimmClassifier, Tag("<mapping>")]
        | Annotated[ModuleClassifier, Tag("<module>")]
        | Annotated[EnergyGuide, Tag("<energy>")]
        | Annotated[MeasurementGuide, Tag("<measurement>")],
        form_of(f"{_FORMS}, {{energy: ...}} or {{measurement: ...}}", form_of_mapping),
    ]
    """A classifier, as under `classifiers`, {energy: ...} or {measurement: ...}."""
    weight: Annotated[float, AfterValidator(_not_zero)] = 1.0
    """Factor of its objective, not 0. Below 0 guidance descends: -1 for a loss."""


class SumGuide(Strict):
    """Several guides as one, see `gradscope.WeightedSum`."""

    sum: Annotated[list[SumTerm], Field(min_length=1)]
    """The guides and their weights, for example [{guide: zoo:SET/NAME}, {guide: {energy: mine:loss}, weight: -1}]."""


GuideSpec = Annotated[
    Annotated[PathText, Tag("<text>")]
    | Annotated[TimmClassifier, Tag("<mapping>")]
    | Annotated[ModuleClassifier, Tag("<module>")]
    | Annotated[EnergyGuide, Tag("<energy>")]
    | Annotated[MeasurementGuide, Tag("<measurement>")]
    | Annotated[SumGuide, Tag("<sum>")],
    form_of(f"{_FORMS}, {{energy: ...}}, {{measurement: ...}} or {{sum: [...]}}", form_of_mapping),
]


def guide_mapping(
    given: Mapping[str, Any], where: str
) -> TimmClassifier | ModuleClassifier | EnergyGuide | MeasurementGuide | SumGuide:
    """A mapping that names a guide, checked; errors begin with `where`."""
    content = dict(given)
    form = form_of_mapping(content)
    if form == "<energy>":
        return check(EnergyGuide, content, where)
    if form == "<measurement>":
        return check(MeasurementGuide, content, where)
    return check(SumGuide, content, where) if form == "<sum>" else classifier_mapping(content, where)
