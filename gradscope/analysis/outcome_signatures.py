"""Signatures of what came out: gradients that are not finite, samples that the judge does not recognise."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.comparison import Difference, accuracy_change, distances
from gradscope.analysis.contents import Cell, judged
from gradscope.analysis.curve_signatures import longest_run
from gradscope.analysis.findings import Finding, ranked
from gradscope.analysis.statistics import MINIMUM, Test, bootstrap_mean, holm
from gradscope.intervals import transfer_ratio, wilson

GAIN = 1.0
"""Nats by which guidance must raise the guide's log-probability for its samples to be expected to come out right."""
FOLLOWED = 0.2
"""Gain of the judge's accuracy over the control that counts as following."""
LOSS = 0.05
"""Loss of the judge's accuracy that is worth a finding, however certain a smaller one is."""


def non_finite(cell: xr.Dataset, where: Cell) -> Finding | None:
    """Gradients that are not finite, at any timestep of any sample."""
    bad = np.asarray(cell["finite_fraction"] < 1)
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
            f"{' ...' if samples.sum() > 5 else ''}; those steps went unguided"
        ),
        advice="look at the classifier's logits and at log of zero in its head; record x_t there with the probe `x_t`",
    )


def ineffective(cell: xr.Dataset, where: Cell) -> Finding | None:
    """The judge's accuracy is not above chance: its interval reaches down to it."""
    right = _right(cell, "judge_prediction")[judged(cell)]
    low, high = (float(bound) for bound in wilson(right.sum(), len(right)))
    chance = 1 / len(cell.attrs["classes"])
    if not len(right) or low > chance or high > 0.5 + chance / 2:
        return None
    return Finding(
        signature="ineffective",
        severity="alarm",
        **where,
        first_timestep=None,
        last_timestep=None,
        affected=int((~right).sum()),
        samples=len(right),
        effect=float(right.mean()),
        low=low,
        high=high,
        threshold=chance,
        evidence=(
            f"the judge sees the target class in {right.mean():.2f} [{low:.2f}, {high:.2f}] of the samples; chance is "
            f"{chance:.2f}"
        ),
        advice="see the other findings of this cell for the reason; audit the guide with `gradscope probe-classifier`",
    )


def adversarial(cell: xr.Dataset, where: Cell, guided: NDArray, control: xr.Dataset | None) -> Finding | None:
    """The guide's objective is met and the judge does not follow.

    Three looks, of which the most severe counts: the transfer ratio of the final samples; the same ratio with what the
    guide believed of its own input at the timestep where most samples had convinced it; and, against the unguided
    control, a rise of the guide's log-probability by at least `GAIN` nat with a gain of the judge's accuracy below
    `FOLLOWED` (upper bound of its paired interval).
    """
    done, right = judged(cell), _right(cell, "judge_prediction")
    if not done.any():
        return None
    judge = right[done]
    found: list[Finding | None] = []
    if "own_prediction" in cell:
        both = done & (cell["own_prediction"] >= 0).values
        own = _right(cell, "own_prediction")[both]
        found.append(_by_ratio(cell, where, own, right[both], None, None))
    if "predicted_class" in cell and guided.any():
        belief = (cell["predicted_class"] == cell["label"]).transpose("sample", "timestep").values[done]
        believed = np.where(guided, belief.mean(axis=0), -1)
        convinced = (wilson(belief.sum(axis=0), len(belief))[0] > wilson(judge.sum(), len(judge))[1]) & guided
        peak = int(believed.argmax())
        found.append(_by_ratio(cell, where, belief[:, peak], judge, convinced, peak))
    if control is not None and "log_prob" in cell:
        found.append(_by_gain(cell, where, guided, control))
    return next(iter(ranked(finding for finding in found if finding)), None)


def _by_ratio(
    cell: xr.Dataset, where: Cell, guide: NDArray, judge: NDArray, convinced: NDArray | None, peak: int | None
) -> Finding | None:
    chance = 1 / len(cell.attrs["classes"])
    ratio, low, high = transfer_ratio(guide, judge, chance)
    if not high < 0.6:
        return None
    timestep = cell["timestep"].values
    run = timestep[longest_run(convinced)] if convinced is not None else timestep[:0]
    seen = "of its final samples" if peak is None else f"of its own input at timestep {timestep[peak]}"
    return Finding(
        signature="adversarial",
        severity="alarm" if high < 0.3 else "warning",
        **where,
        first_timestep=int(run[0]) if len(run) else None,
        last_timestep=int(run[-1]) if len(run) else None,
        affected=int((guide & ~judge).sum()),
        samples=len(judge),
        effect=ratio,
        low=low,
        high=high,
        threshold=0.3 if high < 0.3 else 0.6,
        evidence=(
            f"the guide sees the target class in {guide.mean():.2f} {seen}, the judge in {judge.mean():.2f} of the "
            f"final samples: transfer ratio {ratio:.2f} [{low:.2f}, {high:.2f}]"
        ),
        advice=_ADVICE,
    )


def _by_gain(cell: xr.Dataset, where: Cell, guided: NDArray, control: xr.Dataset) -> Finding | None:
    both = judged(cell) & judged(control)
    test = accuracy_change(control, cell)
    gain = (cell["log_prob"] - control["log_prob"]).transpose("sample", "timestep").values[both][:, guided]
    if not len(gain) or not test.high < FOLLOWED:
        return None
    mean = bootstrap_mean(gain.mean(axis=1))
    if not mean.low > GAIN:
        return None
    run = cell["timestep"].values[guided][longest_run(bootstrap_mean(gain).low > GAIN)]
    affected = (gain.mean(axis=1) > GAIN) & ~_right(cell, "judge_prediction")[both]
    return Finding(
        signature="adversarial",
        severity="alarm",
        **where,
        first_timestep=int(run[0]) if len(run) else None,
        last_timestep=int(run[-1]) if len(run) else None,
        affected=int(affected.sum()),
        samples=len(gain),
        effect=test.estimate,
        low=test.low,
        high=test.high,
        threshold=FOLLOWED,
        evidence=(
            f"against the unguided control the guide's log-probability rises by {mean.mean:.3g} nat [{mean.low:.3g}, "
            f"{mean.high:.3g}], the judge's accuracy by {test.estimate:.2f} [{test.low:.2f}, {test.high:.2f}]"
        ),
        advice=_ADVICE,
    )


_ADVICE = (
    "the guide's objective is met by changes that are not the class: show it x0-hat (classifier_input x0), use a "
    "classifier trained on x_t, and never judge samples by their own guide"
)


def over_regularised(pairs: Sequence[tuple[xr.Dataset, xr.Dataset, Cell]]) -> list[Finding]:
    """Stabilisers that make it worse: accuracy lower by `LOSS` or more, or a larger Frechet distance, than without one.

    Parameters
    ----------
    pairs
        Cell with a stabiliser, the same cell without, and where the first is. McNemar's p is Holm's over all pairs;
        with fewer than 64 samples there is none, and the interval alone decides for a warning.
    """
    tests = [accuracy_change(without, cell) for cell, without, _ in pairs]
    adjusted = holm([test.p for test in tests])
    found = []
    for (cell, without, where), test, p in zip(pairs, tests, adjusted, strict=True):
        less_accurate = test.high < 0 and test.estimate <= -LOSS and not p > 0.05
        changes = distances(without, cell)
        distance = next((change for name, change in changes.items() if name.startswith(("fd_", "fid"))), None)
        if not less_accurate and not (distance and distance.low > 0):
            continue
        found.append(_over_regularised(cell, where, test, p, less_accurate, distance))
    return found


def _over_regularised(
    cell: xr.Dataset, where: Cell, test: Test, p: float, less_accurate: bool, distance: Difference | None
) -> Finding:
    tested = f"Holm's p {p:.2g}" if np.isfinite(p) else test.note
    evidence = [
        f"the judge's accuracy changes by {test.estimate:+.2f} [{test.low:+.2f}, {test.high:+.2f}] against no "
        f"stabiliser ({tested})"
    ]
    effect, low, high = test.estimate, test.low, test.high
    if distance:
        evidence.append(f"the Frechet distance by {distance.estimate:+.2f} [{distance.low:+.2f}, {distance.high:+.2f}]")
        if not less_accurate:
            effect, low, high = distance.estimate, distance.low, distance.high
    return Finding(
        signature="over_regularised",
        severity="alarm" if less_accurate and test.n >= MINIMUM else "warning",
        **where,
        first_timestep=None,
        last_timestep=None,
        affected=int((judged(cell) & ~_right(cell, "judge_prediction")).sum()),
        samples=test.n,
        effect=effect,
        low=low,
        high=high,
        threshold=0.0,
        evidence=", ".join(evidence),
        advice=f"guide without {where['stabilizer']}, or with less memory (lower betas): where update_cosine is "
        "near 1, the update no longer follows the sample",
    )


def _right(cell: xr.Dataset, name: str) -> NDArray[np.bool_]:
    """In which samples the target class is seen."""
    return np.asarray(cell[name] == cell["label"])
