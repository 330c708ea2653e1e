"""Signatures of what came out: gradients that are not finite, samples that the judge does not recognise."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.comparison import accuracy_change
from gradscope.analysis.contents import Cell, finished, judged, seen_right
from gradscope.analysis.findings import Finding, of_outcome
from gradscope.analysis.statistics import mcnemar
from gradscope.intervals import exact, transfer_ratio, wilson

MARGIN = 0.1
"""Accuracy above chance that is no success."""
FOLLOWED = 0.25
"""Gain of accuracy over the unguided control that is."""
UNDONE = 0.2
"""Loss from the guide's belief on its way to its verdict on the final samples."""
UNEVEN = 0.5
"""Accuracy below which a class fails, where the others do better."""
COLLAPSE = 0.5
"""Share of the floor's coverage, that of real images in place of samples."""
_SOURCES = ("nowhere", "x_t", "the denoiser", "the guide's logits", "the backward pass")
"""By the numbers of `nonfinite_source`."""


def non_finite(cell: xr.Dataset, where: Cell) -> Finding | None:
    """Gradients that are not finite, at any timestep of any sample."""
    bad = (cell["finite_fraction"] < 1).transpose("sample", "timestep").values
    if not bad.any():
        return None
    samples = np.asarray(bad.any(axis=1))
    low, high = wilson(samples.sum(), len(samples))
    timestep = cell["timestep"].values[bad.any(axis=0)]
    return Finding(
        signature="non_finite",
        severity="alarm",
        **where,
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
            f"{timestep[-1]}; samples {', '.join(map(str, cell['sample'].values[samples][:5]))}"
            f"{' ...' if samples.sum() > 5 else ''}; those steps went unguided{_sources(cell)}"
        ),
        advice="look at the classifier's logits and at log of zero in its head; record x_t there with the probe `x_t`",
    )


def _sources(cell: xr.Dataset) -> str:
    """Where what is not finite appeared first, with the number of gradients; empty where that is not recorded."""
    if "nonfinite_source" not in cell:
        return ""
    counts = [int((cell["nonfinite_source"] == number).sum()) for number in range(1, len(_SOURCES))]
    told = [f"{name} ({count})" for name, count in zip(_SOURCES[1:], counts, strict=True) if count]
    return f"; they came from {', '.join(told)}" if told else ""


def ineffective(
    cell: xr.Dataset, where: Cell, control: xr.Dataset | None = None, level: float = 0.95
) -> Finding | None:
    """The judge's accuracy reaches down to chance, and is shown to be of no use: an alarm.

    That is, less than `MARGIN` above chance, or less than `FOLLOWED` above that of the unguided control, paired. Where
    neither is shown, the samples are too few to say: a remark.
    """
    right = seen_right(cell, "judge_prediction")[judged(cell)]
    n, chance = len(right), 1 / len(cell.attrs["classes"])
    if not n or chance + MARGIN >= 1:  # of one class nothing is to be seen
        return None
    low, high = (float(bound) for bound in wilson(right.sum(), n))
    if low > chance:
        return None
    shown = bool(exact(right.sum(), n, level)[1] < chance + MARGIN)
    told = (
        f"the judge sees the target class in {right.mean():.2f} [{low:.2f}, {high:.2f}] of the samples; chance is "
        f"{chance:.2f}"
    )
    if control is not None and (gain := accuracy_change(control, cell)).n:
        shown |= accuracy_change(control, cell, level).high < FOLLOWED
        told += f"; against the unguided control it changes by {gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
    advice = "see the other findings of this cell for the reason; audit the guide with `gradscope probe-classifier`"
    return of_outcome(
        "ineffective",
        "alarm" if shown else "remark",
        where,
        (~right).sum(),
        n,
        (float(right.mean()), low, high),
        chance + MARGIN if shown else chance,
        told if shown else f"insufficient samples to tell accuracy from chance: {told}, N = {n}",
        advice if shown else f"record more samples: about {_enough(chance)} tell chance from chance + {MARGIN:g}",
    )


def _enough(chance: float) -> int:
    """Samples at which the 95 % interval of an accuracy at chance is `MARGIN` wide, to the next 50."""
    return int(np.ceil(chance * (1 - chance) * (2 * 1.96 / MARGIN) ** 2 / 50) * 50)


def class_failure(cell: xr.Dataset, where: Cell, level: float = 0.95) -> list[Finding]:
    """Classes that the judge sees in less than `UNEVEN` of their samples, and less often than the others.

    The first by its 95 % interval, the second by Fisher's exact test at the level, which the classes share.
    """
    from scipy.stats import fisher_exact  # takes a second: only where it is needed

    done, names = judged(cell), cell.attrs["classes"]
    right, label = seen_right(cell, "judge_prediction")[done], cell["label"].values[done]
    each = 1 - (1 - level) / max(len(names), 1)
    found = []
    for number, name in enumerate(names):
        own, others = right[label == number], right[label != number]
        if not len(own) or not len(others):
            continue
        low, high = (float(bound) for bound in wilson(own.sum(), len(own)))
        counts = [[own.sum(), (~own).sum()], [others.sum(), (~others).sum()]]
        if not high < UNEVEN or own.mean() > others.mean() or not fisher_exact(counts).pvalue < 1 - each:
            continue
        found.append(
            of_outcome(
                "class_failure",
                "alarm",
                where,
                (~own).sum(),
                len(own),
                (float(own.mean()), low, high),
                UNEVEN,
                f"the judge sees class {name} in {own.mean():.2f} [{low:.2f}, {high:.2f}] of its samples, the other "
                f"classes in {others.mean():.2f}",
                "look at this class alone: its gradients, the guide's accuracy on it at each timestep (`gradscope "
                "probe-classifier`), and whether guide and data number the classes alike",
                name,
            )
        )
    return found


def collapsed(cell: xr.Dataset, where: Cell, level: float = 0.95) -> Finding | None:
    """The samples are right and alike: the judge sees the class, and they reach less than half of what real ones do.

    Coverage is the share of held-out images with a sample in their ball (arXiv 2002.09797), its floor that of as many
    other held-out images in place of samples.
    """
    right = seen_right(cell, "judge_prediction")[judged(cell)]
    low, high = (float(bound) for bound in cell["coverage_interval"].values)
    coverage, floor = float(cell["coverage"]), float(cell["coverage_floor"])
    n = len(right)
    if not n or not exact(right.sum(), n, level)[0] > 0.5 + 0.5 / len(cell.attrs["classes"]):
        return None
    if not exact(coverage * n, n, level)[1] < COLLAPSE * floor:  # as many held-out images as samples are looked at
        return None
    return of_outcome(
        "collapsed",
        "warning",
        where,
        right.sum(),
        len(right),
        (coverage, low, high),
        COLLAPSE * floor,
        f"the judge sees the target class in {right.mean():.2f} of the samples, and they reach {coverage:.2f} "
        f"[{low:.2f}, {high:.2f}] of the held-out images; as many real images reach {floor:.2f}",
        "samples of a class are alike, or off the data: lower guidance_scale, or guide in an interval of timesteps; "
        "compare with the unguided cell",
    )


def adversarial(cell: xr.Dataset, where: Cell, level: float = 0.95) -> Finding | None:
    """The guide sees the target class in its final samples, and the judge does not: a low transfer ratio."""
    both = judged(cell) & (cell["own_prediction"] >= 0).values
    guide, judge = (seen_right(cell, f"{name}_prediction")[both] for name in ("own", "judge"))
    chance = 1 / len(cell.attrs["classes"])
    highest = transfer_ratio(guide, judge, chance, level)[2]
    if not highest < 0.6:
        return None
    ratio, low, high = transfer_ratio(guide, judge, chance)
    return of_outcome(
        "adversarial",
        "alarm" if high < 0.3 else "warning",
        where,
        (guide & ~judge).sum(),
        len(judge),
        (ratio, low, high),
        0.3 if high < 0.3 else 0.6,
        f"of the final samples the guide sees the target class in {guide.mean():.2f}, the judge in {judge.mean():.2f}: "
        f"transfer ratio {ratio:.2f} [{low:.2f}, {high:.2f}]",
        "the guide's objective is met by changes that are not the class: show it x0-hat (classifier_input x0), use a "
        "classifier trained on x_t, and never judge samples by their own guide",
    )


def undone(cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> Finding | None:
    """The guide sees the target class on the way, and no longer in the final samples.

    Looked at where most samples had convinced the guide of its own input, less those whose final image convinces it;
    `level` is shared by the timesteps among which that one was chosen.
    """
    done = finished(cell) & (cell["own_prediction"] >= 0).values
    belief = (cell["predicted_class"] == cell["label"]).transpose("sample", "timestep").values[done]
    if not len(belief) or not guided.any():
        return None
    peak = int(np.where(guided, belief.mean(axis=0), -1).argmax())
    before, after = belief[:, peak], seen_right(cell, "own_prediction")[done]
    each = 1 - (1 - level) / int(guided.sum())
    if not mcnemar(after, before, each).low > UNDONE:
        return None
    test, timestep = mcnemar(after, before), cell["timestep"].values
    return of_outcome(
        "undone",
        "alarm",
        where,
        (before & ~after).sum(),
        len(after),
        (test.estimate, test.low, test.high),
        UNDONE,
        f"at timestep {timestep[peak]} the guide sees the target class in {before.mean():.2f} of its inputs, and in "
        f"{after.mean():.2f} of the final samples: {test.estimate:.2f} [{test.low:.2f}, {test.high:.2f}] less",
        "later steps undo what guidance reached: a guide at x_t may read the noise, which the next steps replace (show "
        "it x0-hat, or use a classifier trained on x_t); else guide to the end of the run, or more strongly there",
        span=(int(timestep[peak]), int(timestep[-1])),
    )
