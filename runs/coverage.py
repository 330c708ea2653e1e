"""How often the intervals hold what they are intervals of: the tables of CALIBRATION.md.

python runs/coverage.py

Samples are drawn from populations whose value is known, many times over; an interval of 95 % should hold it in 95 of
100 draws. Beside each share stand the draws' number and Wilson's interval. Eight minutes on one core.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from gradscope.analysis.means import mean_interval
from gradscope.analysis.statistics import mcnemar
from gradscope.evaluation.distances import Frechet, Kernel
from gradscope.intervals import bootstrap, resampled, transfer_ratio, wilson

DRAWS = 2000
FEATURES = 96
REAL = 1500
"""Held-out images that samples are compared with."""
Rng = np.random.Generator


def main() -> None:
    rng = np.random.default_rng(0)
    print("| mean of | N = 4 | N = 8 | N = 16 | N = 64 |\n| --- | --- | --- | --- | --- |")
    for name, draw, mean in MEANS:
        print(f"| {name} | {' | '.join(held(means(rng, draw, mean, n)) for n in (4, 8, 16, 64))} |")

    print("\n| transfer ratio: guide's accuracy, judge's of those | true ratio | N = 16 | N = 64 | N = 256 |")
    print("| --- | --- | --- | --- | --- |")
    for guide, follows in ((1.0, 1.0), (1.0, 0.98), (0.9, 0.95), (0.9, 0.5), (0.6, 0.3), (0.4, 0.9)):
        true = (guide * follows - 0.25) / (guide - 0.25)
        cells = " | ".join(held(ratios(rng, guide, follows, n)) for n in (16, 64, 256))
        print(f"| {guide}, {follows} | {true:.2f} | {cells} |")

    print("\n| change of accuracy: gained, lost | N = 16 | N = 64 | N = 256 | p < 0.05, N = 64 |")
    print("| --- | --- | --- | --- | --- |")
    for gained, lost in ((0.0, 0.0), (0.05, 0.05), (0.2, 0.2), (0.1, 0.0), (0.3, 0.1), (0.5, 0.02)):
        cells = [list(changes(rng, gained, lost, n)) for n in (16, 64, 256)]
        shares = " | ".join(held(holds for holds, _ in cell) for cell in cells)
        print(f"| {gained}, {lost} | {shares} | {held(p < 0.05 for _, p in cells[1])} |")

    print(f"\n| distance, {FEATURES} features | holds | N = 32 | N = 64 | N = 256 |\n| --- | --- | --- | --- | --- |")
    for name, row in distances(rng, (32, 64, 256)).items():
        print(f"| {name} | {row[0]} | {' | '.join(row[1:])} |")


MEANS: list[tuple[str, Callable[[Rng, int], NDArray], float]] = [
    ("normal numbers", lambda rng, n: rng.normal(size=n), 0.0),
    ("cosines near 0.9 (beta 9, 1)", lambda rng, n: rng.beta(9, 1, n), 0.9),
    ("uniform numbers", lambda rng, n: rng.random(n), 0.5),
    ("exponential numbers", lambda rng, n: rng.exponential(size=n), 1.0),
]
"""Names, draws of n samples, and their mean."""


def means(rng: Rng, draw: Callable[[Rng, int], NDArray], mean: float, n: int) -> Iterable[bool]:
    found = mean_interval(np.stack([draw(rng, n) for _ in range(10 * DRAWS)], axis=1))
    return ((found.low <= mean) & (mean <= found.high)).tolist()


def ratios(rng: Rng, guide: float, follows: float, n: int) -> Iterable[bool]:
    true = (guide * follows - 0.25) / (guide - 0.25)
    for _ in range(DRAWS):
        own = rng.random(n) < guide
        ratio, low, high = transfer_ratio(own, own & (rng.random(n) < follows), 0.25)
        if np.isfinite(ratio):  # a guide that is not above chance has none
            yield not (true < low or true > high)


def changes(rng: Rng, gained: float, lost: float, n: int) -> Iterable[tuple[bool, float]]:
    for _ in range(DRAWS):
        draw = rng.random(n)
        test = mcnemar((draw < lost), (draw > 1 - gained))
        yield test.low <= gained - lost <= test.high, test.p


def distances(rng: Rng, sizes: tuple[int, ...], draws: int = 300) -> dict[str, list[str]]:
    """Real images and samples are normal; the samples' mean is moved by 0.5 along ten axes, and their scale is 0.9."""
    spread = np.sqrt(1 / np.arange(1, FEATURES + 1))
    shift = np.where(np.arange(FEATURES) < 10, 0.5, 0.0) * spread
    real = rng.normal(size=(REAL, FEATURES)) * spread

    def drawn(n: int) -> NDArray:
        return np.asarray(rng.normal(size=(n, FEATURES)) * spread * 0.9 + shift)

    out: dict[str, list[str]] = {}
    many = drawn(20_000)
    for name, distance in (("kernel", Kernel(real)), ("Frechet", Frechet(real))):
        whole = distance.distance(many)
        rows: dict[str, list[str]] = {"the population's distance": [], "the mean distance at this N": []}
        for n in sizes:
            counts = resampled(n, 200)
            estimates, ends = np.empty(draws), np.empty((draws, 2))
            for i in range(draws):
                samples = drawn(n)
                estimates[i] = distance.distance(samples)
                ends[i] = bootstrap(estimates[i], distance.replicates(samples, counts))
            for what, true in zip(rows, (whole, estimates.mean()), strict=True):
                holds = (ends[:, 0] <= true) & (true <= ends[:, 1])
                rows[what].append(f"{held(holds)}, mean {estimates.mean():.3g} of {true:.3g}")
        out |= {f"{name}, {what}": [what, *cells] for what, cells in rows.items()}
    return out


def held(holds: Iterable[bool]) -> str:
    """A share with Wilson's 95 % interval."""
    flags = np.array(list(holds), dtype=bool)
    low, high = wilson(flags.sum(), len(flags))
    return f"{flags.mean():.3f} [{low:.3f}, {high:.3f}]" if len(flags) else "-"


if __name__ == "__main__":
    main()
