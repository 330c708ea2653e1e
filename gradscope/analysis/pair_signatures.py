"""Signatures that compare a cell with another one of the same store: stabilisers that do harm."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradscope.analysis.cells import Cell
from gradscope.analysis.false_alarms import BY_ACCURACY, BY_DISTANCE
from gradscope.analysis.findings import Finding, outcome_finding
from gradscope.analysis.paired_cells import KERNEL_DISTANCES, Difference, accuracy_change, distances
from gradscope.analysis.statistics import MINIMUM_SAMPLES, Test, holm
from gradscope.analysis.verdicts import correct, judged
from gradscope.intervals import normal

LOSS = 0.05
"""Smallest loss of the judge's accuracy that is a finding; a smaller loss is none, however certain it is."""


def over_regularised(pairs: Sequence[tuple[xr.Dataset, xr.Dataset, Cell]]) -> list[Finding]:
    """The stabiliser lowers the judge's accuracy by `LOSS` or more, or raises the kernel distance, against none.

    Parameters
    ----------
    pairs
        For each comparison: the cell with a stabiliser, the same cell without one, and the names of the first. Holm's p
        over all pairs decides about accuracy. With fewer than 64 samples there is no p; then the interval at
        Bonferroni's level decides. The interval of the distance is normal, from the replicates' standard deviation.
    """
    by_accuracy, by_distance = (1 - chance / max(len(pairs), 1) for chance in (BY_ACCURACY, BY_DISTANCE))
    tests = [accuracy_change(without, cell) for cell, without, _ in pairs]
    adjusted = holm([test.p for test in tests])
    found = []
    for (cell, without, where), test, p in zip(pairs, tests, adjusted, strict=True):
        surely = p <= BY_ACCURACY if np.isfinite(p) else accuracy_change(without, cell, by_accuracy).high < 0
        less_accurate = test.high < 0 and test.estimate <= -LOSS and bool(surely)
        changes = distances(without, cell)
        distance = next((change for name, change in changes.items() if name.startswith(KERNEL_DISTANCES)), None)
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
    return outcome_finding(
        "over_regularised",
        "alarm" if less_accurate and test.n >= MINIMUM_SAMPLES else "warning",
        where,
        (judged(cell) & ~correct(cell, "judge_prediction")).sum(),
        test.n,
        value,
        0.0,
        ", ".join(evidence),
        f"guide without {where['stabilizer']}, or with less memory (lower betas): if update_cosine is near 1, the "
        "update no longer follows the sample",
    )
