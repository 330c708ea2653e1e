"""Signatures of the outcome: gradients that are not finite, and final samples that the judge does not recognise."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell
from gradscope.analysis.findings import Finding, cell_fields, outcome_finding
from gradscope.analysis.paired_cells import accuracy_change
from gradscope.analysis.statistics import mcnemar
from gradscope.analysis.verdicts import correct, judged
from gradscope.analysis.written import finished
from gradscope.intervals import exact, transfer_ratio, wilson

MARGIN = 0.1
"""Accuracy above chance that does not yet count as success."""
FOLLOWED = 0.25
"""Gain of accuracy over the unguided control that counts as success."""
UNDONE = 0.2
"""A fault if the guide's accuracy falls by more between its inputs during sampling and the final samples."""
UNEVEN = 0.5
"""Accuracy below which a class fails if the others do better."""
COLLAPSE = 0.5
"""Share of the floor below which coverage is a fault; the floor is the coverage by real images in place of samples."""
_SOURCES = ("nowhere", "x_t", "the denoiser", "the guide's output", "the backward pass")
"""Meaning of the numbers in `nonfinite_source`."""
_NAMED_SAMPLES = 5
"""Most samples that the evidence names."""


def non_finite(cell: xr.Dataset, where: Cell) -> Finding | None:
    """Some gradients are not finite, at any timestep of any sample."""
    bad = (cell["finite_fraction"] < 1).transpose("sample", "timestep").values
    if not bad.any():
        return None
    samples = np.asarray(bad.any(axis=1))
    low, high = wilson(samples.sum(), len(samples))
    timestep = cell["timestep"].values[bad.any(axis=0)]
    return Finding(
        signature="non_finite",
        severity="alarm",
        **cell_fields(where),
        first_timestep=int(timestep[0]),
        last_timestep=int(timestep[-1]),
        affected=int(samples.sum()),
        samples=len(samples),
        effect=float(samples.mean()),
        low=float(low),
        high=float(high),
        threshold=0.0,
        evidence=(
            f"{int(bad.sum())} gradients of {int(samples.sum())} samples are not finite, at timesteps {timestep[0]} to "
            f"{timestep[-1]}; samples {', '.join(map(str, cell['sample'].values[samples][:_NAMED_SAMPLES]))}"
            f"{' ...' if samples.sum() > _NAMED_SAMPLES else ''}; those steps were not guided{_sources(cell)}"
        ),
        advice="check the classifier's logits, and its head for the log of zero; record x_t there with the probe `x_t`",
    )


def _sources(cell: xr.Dataset) -> str:
    """Which model or tensor was the first that was not finite, with counts; empty if this is not recorded."""
    if "nonfinite_source" not in cell:
        return ""
    counts = [int((cell["nonfinite_source"] == number).sum()) for number in range(1, len(_SOURCES))]
    sources = [f"{name} ({count})" for name, count in zip(_SOURCES[1:], counts, strict=True) if count]
    return f"; they came from {', '.join(sources)}" if sources else ""


def ineffective(
    cell: xr.Dataset, where: Cell, control: xr.Dataset | None = None, level: float = 0.95
) -> Finding | None:
    """The interval of the judge's accuracy includes chance.

    It is an alarm if the accuracy is shown to be less than `MARGIN` above chance, or less than `FOLLOWED` above that of
    the unguided control, paired over samples. Otherwise the samples are too few to decide, and it is a remark.
    """
    right = correct(cell, "judge_prediction")[judged(cell)]
    n, chance = len(right), 1 / len(cell.attrs["classes"])
    if not n or chance + MARGIN >= 1:  # with a single class every prediction is right
        return None
    low, high = (float(bound) for bound in wilson(right.sum(), n))
    if low > chance:
        return None
    shown = bool(exact(right.sum(), n, level)[1] < chance + MARGIN)
    evidence = (
        f"the judge sees the target class in {right.mean():.2f} [{low:.2f}, {high:.2f}] of the samples; chance is "
        f"{chance:.2f}"
    )
    if control is not None and (gain := accuracy_change(control, cell)).n:
        shown |= accuracy_change(control, cell, level).high < FOLLOWED
        bounds = f"[{gain.low:+.2f}, {gain.high:+.2f}]"
        evidence += f"; against the unguided control it changes by {gain.estimate:+.2f} {bounds}"
    advice = "see the other findings of this cell for the reason; audit a guide of images with `gradscope audit`"
    return outcome_finding(
        "ineffective",
        "alarm" if shown else "remark",
        where,
        (~right).sum(),
        n,
        (float(right.mean()), low, high),
        chance + MARGIN if shown else chance,
        evidence if shown else f"insufficient samples to distinguish accuracy from chance: {evidence}, N = {n}",
        advice
        if shown
        else f"record more samples: about {_enough(chance)} distinguish chance from chance + {MARGIN:g}",
    )


def _enough(chance: float) -> int:
    """Number of samples at which the 95 % interval of an accuracy at chance is `MARGIN` wide, rounded up to 50."""
    return int(np.ceil(chance * (1 - chance) * (2 * 1.96 / MARGIN) ** 2 / 50) * 50)


def _differ(own: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """The p-value of Fisher's exact test of two shares."""
    from scipy.stats import fisher_exact  # slow to load, and seldom needed

    return float(fisher_exact([[own.sum(), (~own).sum()], [others.sum(), (~others).sum()]]).pvalue)


def class_failure(cell: xr.Dataset, where: Cell, level: float = 0.95) -> list[Finding]:
    """The judge sees a class in less than `UNEVEN` of its samples, and less often than the other classes.

    The 95 % interval shows the first; Fisher's exact test shows the second, at a level that the classes share.
    """
    done, names = judged(cell), cell.attrs["classes"]
    right, label = correct(cell, "judge_prediction")[done], cell["label"].values[done]
    each = 1 - (1 - level) / max(len(names), 1)
    found = []
    for number, name in enumerate(names):
        own, others = right[label == number], right[label != number]
        if not len(own) or not len(others):
            continue
        low, high = (float(bound) for bound in wilson(own.sum(), len(own)))
        if not high < UNEVEN or own.mean() > others.mean() or not _differ(own, others) < 1 - each:
            continue
        found.append(
            outcome_finding(
                "class_failure",
                "alarm",
                where,
                (~own).sum(),
                len(own),
                (float(own.mean()), low, high),
                UNEVEN,
                f"the judge sees class {name} in {own.mean():.2f} [{low:.2f}, {high:.2f}] of its samples, the other "
                f"classes in {others.mean():.2f}",
                "look at this class alone: at its gradients and the guide's accuracy at each timestep (`gradscope "
                "audit`); do guide and data number the classes alike?",
                name,
            )
        )
    return found


def collapsed(cell: xr.Dataset, where: Cell, level: float = 0.95) -> Finding | None:
    """The samples are right but alike: the judge sees their class, but their coverage is less than half of the floor.

    Coverage is the share of held-out images that have a sample in their ball (arXiv 2002.09797). Its floor is the
    coverage by as many other held-out images in place of samples.
    """
    right = correct(cell, "judge_prediction")[judged(cell)]
    low, high = (float(bound) for bound in cell["coverage_interval"].values)
    coverage, floor = float(cell["coverage"]), float(cell["coverage_floor"])
    n = len(right)
    if not n or not exact(right.sum(), n, level)[0] > 0.5 + 0.5 / len(cell.attrs["classes"]):
        return None
    if not exact(coverage * n, n, level)[1] < COLLAPSE * floor:  # coverage uses as many held-out images as samples
        return None
    return outcome_finding(
        "collapsed",
        "warning",
        where,
        right.sum(),
        len(right),
        (coverage, low, high),
        COLLAPSE * floor,
        f"the judge sees the target class in {right.mean():.2f} of the samples, but they cover {coverage:.2f} "
        f"[{low:.2f}, {high:.2f}] of the held-out images; as many real images cover {floor:.2f}",
        "samples of a class are alike, or unlike real images: lower guidance_scale, or guide in an interval of "
        "timesteps; compare with the unguided cell",
    )


def adversarial(cell: xr.Dataset, where: Cell, level: float = 0.95) -> Finding | None:
    """The guide sees the target class in its final samples, but the judge does not: a low transfer ratio."""
    both = judged(cell) & (cell["own_prediction"] >= 0).values
    guide, judge = (correct(cell, f"{name}_prediction")[both] for name in ("own", "judge"))
    chance = 1 / len(cell.attrs["classes"])
    highest = transfer_ratio(guide, judge, chance, level)[2]
    if not highest < 0.6:
        return None
    ratio, low, high = transfer_ratio(guide, judge, chance)
    return outcome_finding(
        "adversarial",
        "alarm" if high < 0.3 else "warning",
        where,
        (guide & ~judge).sum(),
        len(judge),
        (ratio, low, high),
        0.3 if high < 0.3 else 0.6,
        f"the guide sees the target class in {guide.mean():.2f} of the final samples, the judge in {judge.mean():.2f}: "
        f"transfer ratio {ratio:.2f} [{low:.2f}, {high:.2f}]",
        "changes other than the class satisfy the guide: show it x0-hat (classifier_input x0), use a classifier "
        "trained on x_t, and never judge samples by their own guide",
    )


def undone(cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> Finding | None:
    """The guide sees the target class on the way, but no longer in the final samples.

    The test compares its accuracy on its own inputs, at the guided timestep where that is highest, with its accuracy on
    the final images. All guided timesteps share the level, because one of them is chosen.
    """
    done = finished(cell) & (cell["own_prediction"] >= 0).values
    belief = (cell["predicted_class"] == cell["label"]).transpose("sample", "timestep").values[done]
    if not len(belief) or not guided.any():
        return None
    peak = int(np.where(guided, belief.mean(axis=0), -1).argmax())
    before, after = belief[:, peak], correct(cell, "own_prediction")[done]
    each = 1 - (1 - level) / int(guided.sum())
    if not mcnemar(after, before, each).low > UNDONE:
        return None
    test, timestep = mcnemar(after, before), cell["timestep"].values
    return outcome_finding(
        "undone",
        "alarm",
        where,
        (before & ~after).sum(),
        len(after),
        (test.estimate, test.low, test.high),
        UNDONE,
        f"at timestep {timestep[peak]} the guide sees the target class in {before.mean():.2f} of its inputs, but only "
        f"in {after.mean():.2f} of the final samples: {test.estimate:.2f} [{test.low:.2f}, {test.high:.2f}] less",
        "later steps undo the effect of guidance: a guide at x_t may react to noise that the next steps replace (show "
        "it x0-hat, or use a classifier trained on x_t); otherwise guide until the end of the run, or more strongly "
        "there",
        span=(int(timestep[peak]), int(timestep[-1])),
    )
