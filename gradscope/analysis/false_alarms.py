"""The chance of a false alarm that each test of a store may have, so that all tests together keep a fixed chance."""

FALSE_ALARMS = 0.05
"""Largest chance that a store without a fault has any alarm or warning."""
BY_ACCURACY, BY_DISTANCE = 0.02, 0.005
"""Parts of this chance that belong to comparisons between cells, by accuracy and by distance."""


def level_per_test(tests: int) -> float:
    """Coverage of the interval that each test of a single cell uses (Bonferroni).

    Parameters
    ----------
    tests
        Number of tests of single cells.

    Examples
    --------
    >>> round(level_per_test(168), 5)
    0.99985
    """
    return 1 - (FALSE_ALARMS - BY_ACCURACY - BY_DISTANCE) / max(tests, 1)
