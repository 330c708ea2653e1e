"""Which of two cells is better, in one sentence."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradscope.analysis.comparison import Comparison
    from gradscope.analysis.statistics import Test

LEVEL = 0.05
"""A difference with a smaller p is shown."""


def verdict(comparison: "Comparison") -> str:
    """Difference of the judge's accuracy, its interval, and which cell is better.

    Interval and p come from one method (`gradscope.analysis.statistics.mcnemar`, or
    `gradscope.analysis.independent.independent_shares` where samples are not pairs), so they never disagree.

    Examples
    --------
    >>> cell = {"classifier": "non_robust", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5}
    >>> print(verdict(gradscope.compare(ds, cell, cell | {"stabilizer": "adam"})).split(":")[0])
    Too few samples
    """
    test, unpaired = comparison.accuracy, comparison.unpaired
    if test is None:
        return f"No verdict: {comparison.missing['accuracy']}."
    count = f"N = {' and '.join(map(str, comparison.judged))}" if unpaired else f"N = {test.n}"
    tail = f"; unpaired: other samples ({unpaired})" if unpaired else ""
    if not np.isfinite(test.estimate):
        return f"No verdict: the judge has seen no sample of {'both cells' if not unpaired else 'a cell'}{tail}."
    estimate, low, high = (_signed(value, _digits(test)) for value in (test.estimate, test.low, test.high))
    shown = f"judge's accuracy {estimate} [{low}, {high}] (b − a)"
    if not np.isfinite(test.p):
        return f"Too few samples: {shown}, {count}; {test.note}{tail}."
    name = "Newcombe's p" if unpaired else "McNemar's p"
    numbers = f"{shown}, {name} {p_text(test.p)}, {count}{tail}."
    if test.p < LEVEL:
        return f"{'b' if test.estimate > 0 else 'a'} is better: {numbers}"
    return f"No difference that {count} can show: {numbers}"


def p_text(p: float) -> str:
    """A p with two digits, at least 0.0001.

    Examples
    --------
    >>> p_text(0.012345), p_text(1e-12)
    ('0.012', 'below 0.0001')
    """
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"


def _digits(test: "Test") -> int:
    """Decimals: two, or as many as show that a bound is not 0."""
    ends = [abs(bound) for bound in (test.low, test.high) if bound]
    return next((digits for digits in range(2, 6) if all(end >= 0.5 * 10**-digits for end in ends)), 6)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
