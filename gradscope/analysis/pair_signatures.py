"""Signatures of a cell against another one of the same store: stabilisers that make it worse."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradscope.analysis.comparison import KERNEL, Difference, accuracy_change, distances
from gradscope.analysis.contents import Cell, judged, seen_right
from gradscope.analysis.curve_test import BY_ACCURACY, BY_DISTANCE
from gradscope.analysis.findings import Finding, of_outcome
from gradscope.analysis.statistics import MINIMUM, Test, holm
from gradscope.intervals import normal

LOSS = 0.05
"""Loss of the judge's accuracy that is worth a finding, however certain a smaller one is."""


def over_regularised(pairs: Sequence[tuple[xr.Dataset, xr.Dataset, Cell]]) -> list[Finding]:
    """Stabilisers that make it worse: accuracy lower by `LOSS` or more, or a larger kernel distance, than without one.

    Parameters
    ----------
    pairs
        Cell with a stabiliser, the same cell without, and where the first is. Holm's p over all pairs decides by
        accuracy. With fewer than 64 samples there is no p, and the interval at Bonferroni's level does. The distance's
        interval is normal, from the replicates' standard deviation.
    """
    by_accuracy, by_distance = (1 - chance / max(len(pairs), 1) for chance in (BY_ACCURACY, BY_DISTANCE))
    tests = [accuracy_change(without, cell) for cell, without, _ in pairs]
    adjusted = holm([test.p for test in tests])
    found = []
    for (cell, without, where), test, p in zip(pairs, tests, adjusted, strict=True):
        surely = p <= BY_ACCURACY if np.isfinite(p) else accuracy_change(without, cell, by_accuracy).high < 0
        less_accurate = test.high < 0 and test.estimate <= -LOSS and bool(surely)
        changes = distances(without, cell)
        distance = next((change for name, change in changes.items() if name.startswith(KERNEL)), None)
        farther = distance is not None and distance.low > 0 and distance.estimate > normal(by_distance) * distance.error
        if not less_accurate and not farther:
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
    value = test.estimate, test.low, test.high
    if distance:
        evidence.append(f"the kernel distance by {distance.estimate:+.2g} [{distance.low:+.2g}, {distance.high:+.2g}]")
        if not less_accurate:
            value = distance.estimate, distance.low, distance.high
    return of_outcome(
        "over_regularised",
        "alarm" if less_accurate and test.n >= MINIMUM else "warning",
        where,
        (judged(cell) & ~seen_right(cell, "judge_prediction")).sum(),
        test.n,
        value,
        0.0,
        ", ".join(evidence),
        f"guide without {where['stabilizer']}, or with less memory (lower betas): where update_cosine is near 1, the "
        "update no longer follows the sample",
    )
