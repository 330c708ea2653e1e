"""A signature over timesteps: a statistic that stays beyond a threshold for part of the trajectory.

The mean over samples has a 95 % interval at each guided timestep. A timestep counts if the whole interval lies beyond
the threshold. A single timestep between two that count also counts if its mean is beyond. The longest run of such
timesteps is a finding if it covers at least `sustained` of the timesteps at which half of the samples or more have a
value, and if the mean over the run is beyond the threshold at the level of each test
(`gradscope.analysis.false_alarms.level_per_test`). The mean over all samples is tested first, then that of each target
class, then single samples.

The data choose the run, so its effect is somewhat larger than another set of trajectories would show there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell
from gradscope.analysis.findings import Finding, Severity, cell_fields
from gradscope.analysis.means import Mean, mean_interval, row_means
from gradscope.intervals import exact, wilson

_NAMED_SAMPLES = 5
"""Most samples that the evidence names."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CurveSignature:
    """A named test of one statistic over timesteps."""

    name: str
    severity: Severity
    needs: tuple[str, ...]
    """Variables that the store must have."""
    statistic: Callable[[xr.Dataset], xr.DataArray]
    """Takes one cell and returns values over ``(sample, timestep)``, NaN where the statistic is undefined."""
    label: str
    """The statistic in words."""
    side: Literal["below", "above"]
    threshold: float
    advice: str
    sustained: float = 0.25
    """Share of the defined timesteps that a run must cover."""
    is_share: bool = False
    """Each value is 0 or 1. Intervals are then Wilson's, and Clopper and Pearson's where a level decides."""
    single_samples: float | None = None
    """Share of the samples that must show the fault, each on its own: 0 for any one sample, otherwise at least two.
    None if a single sample proves nothing."""
    single_threshold: float | None = None
    """Threshold for single samples; None if it equals `threshold`."""
    only_towards: bool = False
    """A fault only if guidance leads towards the target class, so not at negative scales."""
    untestable: Callable[[xr.Dataset], str] = lambda ds: ""
    """Why a store that has the variables still cannot be tested; empty if it can."""

    def look(self, cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> list[Finding]:
        """Test one cell: all samples, else each class, else single samples.

        Parameters
        ----------
        cell
            The cell's variables, in memory; attribute ``classes`` names the target classes.
        where
            The cell's names.
        guided
            Marks the timesteps at which guidance acts, ``(timesteps,)``.
        level
            Coverage of the interval of the mean over the run. The classes share it. Where short runs suffice, so do
            the several runs from which the longest is chosen.
        """
        level = 1 - (1 - level) * min(1, 4 * self.sustained)
        values = self.statistic(cell).transpose("sample", "timestep").values.astype(np.float64)
        timestep, label = cell["timestep"].values, cell["label"].values
        if found := self._in_mean(values, timestep, where, guided, level):
            return [found]
        names = cell.attrs["classes"]
        each = 1 - (1 - level) / max(len(names), 1)
        by_class = [
            self._in_mean(values[label == k], timestep, where, guided, each, name)
            for k, name in enumerate(names)
            if (label == k).any()
        ]
        return [found for found in by_class if found] or self._in_single_samples(cell, values, where, guided)

    def _beyond(self, values: Floats, threshold: float | None = None) -> NDArray[np.bool_]:
        limit = self.threshold if threshold is None else threshold
        with np.errstate(invalid="ignore"):
            return np.asarray(values < limit if self.side == "below" else values > limit)

    def _mean(self, values: Floats, level: float | None = None) -> Mean:
        """Mean with the interval that decides at `level`; without a level, the 95 % interval to show."""
        found = mean_interval(values, level=level or 0.95)
        if not self.is_share:
            return found
        hits = found.mean * found.n
        return Mean(found.mean, *(exact(hits, found.n, level) if level else wilson(hits, found.n)), found.n)

    def _in_mean(
        self,
        values: Floats,
        timestep: NDArray[np.int64],
        where: Cell,
        guided: NDArray[np.bool_],
        level: float,
        target_class: str = "",
    ) -> Finding | None:
        """Test the mean over samples of ``values``, ``(samples, timesteps)``."""
        found = self._mean(values)
        defined = np.flatnonzero((found.n >= max(2, len(values) / 2)) & guided)
        surely = self._beyond(found.high if self.side == "below" else found.low)[defined]
        run = defined[longest_run(_bridged(surely, self._beyond(found.mean)[defined]))]
        if len(run) < max(2, ceil(self.sustained * len(defined))):
            return None
        mean = row_means(values[:, run])
        mean = mean[np.isfinite(mean)]
        # A sample's mean over the run lies between 0 and 1: the binomial interval counts it as part of one success.
        certain, effect = self._mean(mean, level), self._mean(mean)
        if not self._beyond(certain.high if self.side == "below" else certain.low):
            return None
        first, last = int(timestep[run[0]]), int(timestep[run[-1]])
        of_class = f" of the samples of class {target_class}" if target_class else ""
        return Finding(
            signature=self.name,
            severity=self.severity,
            **cell_fields(where),
            first_timestep=first,
            last_timestep=last,
            affected=int(self._beyond(mean).sum()),
            samples=len(mean),
            effect=float(effect.mean),
            low=float(effect.low),
            high=float(effect.high),
            threshold=self.threshold,
            evidence=(
                f"{self.label}{of_class} is {effect.mean:.3g} [{effect.low:.3g}, {effect.high:.3g}] from timestep "
                f"{first} to {last}, {len(run)} of {len(defined)} steps, {self.side} {self.threshold:g}"
            ),
            advice=self.advice,
            target_class=target_class,
        )

    def _in_single_samples(
        self, cell: xr.Dataset, values: Floats, where: Cell, guided: NDArray[np.bool_]
    ) -> list[Finding]:
        """Test each sample on its own."""
        if self.single_samples is None:
            return []
        runs: dict[int, NDArray[np.int64]] = {}
        for row, own in enumerate(values):
            defined = np.flatnonzero(np.isfinite(own) & guided)
            run = defined[longest_run(self._beyond(own[defined], self.single_threshold))]
            if len(run) >= max(2, ceil(self.sustained * len(defined))):
                runs[row] = run
        if not runs or (self.single_samples and len(runs) < max(2, self.single_samples * len(values))):
            return []
        threshold = self.threshold if self.single_threshold is None else self.single_threshold
        shown = np.array([values[row, run].mean() for row, run in runs.items()])
        timestep = cell["timestep"].values
        first = int(max(timestep[run[0]] for run in runs.values()))
        last = int(min(timestep[run[-1]] for run in runs.values()))
        samples = ", ".join(str(cell["sample"].values[row]) for row in list(runs)[:_NAMED_SAMPLES])
        return [
            Finding(
                signature=self.name,
                severity="warning" if self.severity == "alarm" else self.severity,
                **cell_fields(where),
                first_timestep=first,
                last_timestep=last,
                affected=len(runs),
                samples=len(values),
                effect=float(shown.mean()),
                low=float(shown.min()),
                high=float(shown.max()),
                threshold=threshold,
                evidence=(
                    f"single samples, not the mean: {self.label} is {shown.mean():.3g} (from {shown.min():.3g} to "
                    f"{shown.max():.3g}) in {len(runs)} of {len(values)} samples, {self.side} {threshold:g}, at "
                    f"timesteps {first} to {last}; samples {samples}{' ...' if len(runs) > _NAMED_SAMPLES else ''}"
                ),
                advice=self.advice,
            )
        ]


def longest_run(flags: np.ndarray) -> slice:
    """The longest run of true values; the first one if several are equally long.

    Examples
    --------
    >>> longest_run(np.array([True, False, True, True]))
    slice(2, 4, None)
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return slice(0, 0)
    longest = int(np.argmax(ends - starts))
    return slice(int(starts[longest]), int(ends[longest]))


def _bridged(surely: NDArray[np.bool_], likely: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True where `surely` is true, and at single places between two of them where `likely` is true."""
    between = np.zeros_like(surely)
    between[1:-1] = surely[:-2] & surely[2:] & likely[1:-1]
    return np.asarray(surely | between)
