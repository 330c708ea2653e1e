"""How often the intervals contain the true value: the tables of CALIBRATION.md.

python runs/coverage.py

Samples are drawn many times from populations whose true value is known. A 95 % interval should contain it in 95 of
100 draws. Each share has Wilson's interval. Eight minutes on one core.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from gradscope.analysis.means import mean_interval
from gradscope.analysis.statistics import mcnemar
from gradscope.config import DataConfig
from gradscope.evaluation.distances import Frechet, Kernel
from gradscope.evaluation.features import load_extractor
from gradscope.evaluation.real import load_real
from gradscope.intervals import bootstrap, resampled, transfer_ratio, wilson

DRAWS = 2000
"""Draws of accuracies and transfer ratios; ten times as many of means."""
FEATURES = 96
"""Dimensions of the features."""
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

    print("\n| distance | an interval of | N = 64 | N = 256 |\n| --- | --- | --- | --- |")
    for name, real, population in populations(rng):
        for row in distances(rng, name, real, population, (64, 256)):
            print(f"| {' | '.join(row)} |")


MEANS: list[tuple[str, Callable[[Rng, int], NDArray], float]] = [
    ("normal numbers", lambda rng, n: rng.normal(size=n), 0.0),
    ("cosines near 0.9 (beta 9, 1)", lambda rng, n: rng.beta(9, 1, n), 0.9),
    ("uniform numbers", lambda rng, n: rng.random(n), 0.5),
    ("exponential numbers", lambda rng, n: rng.exponential(size=n), 1.0),
]
"""Name of a population, a function that draws n samples from it, and its mean."""


def means(rng: Rng, draw: Callable[[Rng, int], NDArray], mean: float, n: int) -> Iterable[bool]:
    found = mean_interval(np.stack([draw(rng, n) for _ in range(10 * DRAWS)], axis=1))
    return ((found.low <= mean) & (mean <= found.high)).tolist()


def ratios(rng: Rng, guide: float, follows: float, n: int) -> Iterable[bool]:
    true = (guide * follows - 0.25) / (guide - 0.25)
    for _ in range(DRAWS):
        own = rng.random(n) < guide
        ratio, low, high = transfer_ratio(own, own & (rng.random(n) < follows), 0.25)
        if np.isfinite(ratio):  # undefined if the guide is not above chance
            yield not (true < low or true > high)


def changes(rng: Rng, gained: float, lost: float, n: int) -> Iterable[tuple[bool, float]]:
    for _ in range(DRAWS):
        draw = rng.random(n)
        test = mcnemar((draw < lost), (draw > 1 - gained))
        yield test.low <= gained - lost <= test.high, test.p


def populations(rng: Rng) -> Iterator[tuple[str, NDArray, NDArray]]:
    """Name, features of real images, and the features from which samples are drawn."""
    spread = np.sqrt(1 / np.arange(1, FEATURES + 1))
    moved = np.where(np.arange(FEATURES) < 10, 0.5, 0.0) * spread
    normal = rng.normal(size=(2, 4096, FEATURES)) * spread
    yield "normal, moved and narrowed", normal[0], normal[1] * 0.9 + moved
    extractor = load_extractor("zoo:sportballs32/extractor", "extractor", (3, 32, 32), torch.device("cpu"))
    images = load_real(DataConfig(name="sportballs"), 8192, 4096, extractor, (3, 32, 32))
    yield "images, other real ones", images.reference, images.floor
    yield "images, two of four classes", images.reference, images.floor[images.floor_label < 2]


def distances(
    rng: Rng, population: str, real: NDArray, images: NDArray, sizes: tuple[int, ...], draws: int = 200
) -> Iterator[list[str]]:
    for name, distance in (("kernel", Kernel(real)), ("Frechet", Frechet(real))):
        of_population = distance.distance(images)
        rows: dict[str, list[str]] = {"the population's distance": [], "the mean distance at this N": []}
        for n in sizes:
            counts = resampled(n, 200)
            estimates, ends = np.empty(draws), np.empty((draws, 2))
            for i in range(draws):
                samples = images[rng.choice(len(images), n, replace=False)]
                estimates[i] = distance.distance(samples)
                ends[i] = bootstrap(estimates[i], distance.replicates(samples, counts))
            for target, true in zip(rows, (of_population, estimates.mean()), strict=True):
                holds = (ends[:, 0] <= true) & (true <= ends[:, 1])
                rows[target].append(f"{held(holds)}; mean {estimates.mean():.3f}, true {true:.3f}")
        for target, cells in rows.items():
            yield [f"{name}; {population}", target, *cells]


def held(holds: Iterable[bool]) -> str:
    """A share with Wilson's 95 % interval."""
    flags = np.array(list(holds), dtype=bool)
    low, high = wilson(flags.sum(), len(flags))
    return f"{flags.mean():.3f} [{low:.3f}, {high:.3f}]" if len(flags) else "-"


if __name__ == "__main__":
    main()
