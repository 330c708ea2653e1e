"""The test behind signatures over timesteps: a statistic that stays beyond a threshold for a part of the trajectory.

At each guided timestep the mean over samples gets a 95 % interval; a timestep counts where the whole interval lies
beyond the threshold, and a single one between two of these where its mean does. The longest run is a finding if it is
at least `sustained` of those at which the statistic is defined for half of the samples or more, and if the mean over
the run is beyond the threshold at the level that `level` gives each of all tests of a store. The mean over all samples
is looked at first, then that of each target class, then single samples.

The run is chosen by the data: an effect is that of the selected run, and somewhat larger than what another sample of
trajectories would show there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import Cell
from gradscope.analysis.findings import Finding, Severity, at
from gradscope.analysis.means import Mean, mean_interval, row_means
from gradscope.intervals import exact, wilson

FALSE_ALARMS = 0.05
"""Chance that a store without a fault has any alarm or warning, at most."""
BY_ACCURACY, BY_DISTANCE = 0.02, 0.005
"""Of this chance, the parts of comparisons between cells."""
_SHOWN = 5
"""Samples that are named."""

Floats = NDArray[np.float64]


def level(tests: int) -> float:
    """Coverage of the interval that each test of a single cell takes (Bonferroni), by their number."""
    return 1 - (FALSE_ALARMS - BY_ACCURACY - BY_DISTANCE) / max(tests, 1)


@dataclass(frozen=True)
class CurveSignature:
    """A named test of one statistic over timesteps."""

    name: str
    severity: Severity
    needs: tuple[str, ...]
    """Variables of the store."""
    statistic: Callable[[xr.Dataset], xr.DataArray]
    """Of one cell: values over ``(sample, timestep)``, NaN where it is undefined."""
    label: str
    """What the statistic is."""
    side: Literal["below", "above"]
    threshold: float
    advice: str
    sustained: float = 0.25
    """Share of the defined timesteps that a run must cover."""
    is_share: bool = False
    """Each value is 0 or 1: intervals are Wilson's, and Clopper and Pearson's where a level decides."""
    alone: float | None = None
    """Share of the samples that must show it, each by itself: 0 for any one, else at least two. None where a single
    sample says nothing."""
    alone_threshold: float | None = None
    """For single samples; None where it is `threshold`."""
    towards: bool = False
    """It is a fault only where guidance leads to the target class: not at negative scales."""
    testable: Callable[[xr.Dataset], str] = lambda ds: ""
    """Why a store cannot be tested though it has the variables; empty where it can."""

    def look(self, cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> list[Finding]:
        """Look at one cell: at all samples, else at each class, else at single samples.

        Parameters
        ----------
        guided
            Marks the timesteps at which guidance acts, ``(timesteps,)``.
        level
            Coverage of the interval of the mean over the run. Classes share it, and so do the runs among which the
            longest is chosen, where they may be short.
        """
        level = 1 - (1 - level) * min(1, 4 * self.sustained)
        values = self.statistic(cell).transpose("sample", "timestep").values.astype(np.float64)
        timestep, label = cell["timestep"].values, cell["label"].values
        if found := self._of(values, timestep, where, guided, level):
            return [found]
        names = cell.attrs["classes"]
        each = 1 - (1 - level) / max(len(names), 1)
        by_class = [
            self._of(values[label == k], timestep, where, guided, each, name)
            for k, name in enumerate(names)
            if (label == k).any()
        ]
        return [found for found in by_class if found] or self._alone(cell, values, where, guided)

    def _beyond(self, values: Floats, threshold: float | None = None) -> NDArray[np.bool_]:
        limit = self.threshold if threshold is None else threshold
        with np.errstate(invalid="ignore"):
            return np.asarray(values < limit if self.side == "below" else values > limit)

    def _mean(self, values: Floats, level: float | None = None) -> Mean:
        """With the interval that decides, at a level; without one that of 95 %, to be shown."""
        found = mean_interval(values, level=level or 0.95)
        if not self.is_share:
            return found
        hits = found.mean * found.n
        return Mean(found.mean, *(exact(hits, found.n, level) if level else wilson(hits, found.n)), found.n)

    def _of(
        self,
        values: Floats,
        timestep: NDArray[np.int64],
        where: Cell,
        guided: NDArray[np.bool_],
        level: float,
        target_class: str = "",
    ) -> Finding | None:
        """Look at the mean over samples, ``(samples, timesteps)``."""
        found = self._mean(values)
        defined = np.flatnonzero((found.n >= max(2, len(values) / 2)) & guided)
        surely = self._beyond(found.high if self.side == "below" else found.low)[defined]
        run = defined[longest_run(_bridged(surely, self._beyond(found.mean)[defined]))]
        if len(run) < max(2, ceil(self.sustained * len(defined))):
            return None
        mean = row_means(values[:, run])
        mean = mean[np.isfinite(mean)]
        # A share's mean over the run is no longer 0 or 1; its interval takes it for one of as many samples.
        certain, effect = self._mean(mean, level), self._mean(mean)
        if not self._beyond(certain.high if self.side == "below" else certain.low):
            return None
        first, last = int(timestep[run[0]]), int(timestep[run[-1]])
        of = f" of the samples of class {target_class}" if target_class else ""
        return Finding(
            signature=self.name,
            severity=self.severity,
            **at(where),
            first_timestep=first,
            last_timestep=last,
            affected=int(self._beyond(mean).sum()),
            samples=len(mean),
            effect=float(effect.mean),
            low=float(effect.low),
            high=float(effect.high),
            threshold=self.threshold,
            evidence=(
                f"{self.label}{of} is {effect.mean:.3g} [{effect.low:.3g}, {effect.high:.3g}] from timestep {first} to "
                f"{last}, {len(run)} of {len(defined)} steps, {self.side} {self.threshold:g}"
            ),
            advice=self.advice,
            target_class=target_class,
        )

    def _alone(self, cell: xr.Dataset, values: Floats, where: Cell, guided: NDArray[np.bool_]) -> list[Finding]:
        """Look at each sample by itself."""
        if self.alone is None:
            return []
        runs: dict[int, NDArray[np.int64]] = {}
        for row, own in enumerate(values):
            defined = np.flatnonzero(np.isfinite(own) & guided)
            run = defined[longest_run(self._beyond(own[defined], self.alone_threshold))]
            if len(run) >= max(2, ceil(self.sustained * len(defined))):
                runs[row] = run
        if not runs or (self.alone and len(runs) < max(2, self.alone * len(values))):
            return []
        threshold = self.threshold if self.alone_threshold is None else self.alone_threshold
        shown = np.array([values[row, run].mean() for row, run in runs.items()])
        timestep = cell["timestep"].values
        first = int(max(timestep[run[0]] for run in runs.values()))
        last = int(min(timestep[run[-1]] for run in runs.values()))
        samples = ", ".join(str(cell["sample"].values[row]) for row in list(runs)[:_SHOWN])
        return [
            Finding(
                signature=self.name,
                severity="warning" if self.severity == "alarm" else self.severity,
                **at(where),
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
                    f"timesteps {first} to {last}; samples {samples}{' ...' if len(runs) > _SHOWN else ''}"
                ),
                advice=self.advice,
            )
        ]


def longest_run(flags: np.ndarray) -> slice:
    """The longest run of true values, the first of them where several are as long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return slice(0, 0)
    longest = int(np.argmax(ends - starts))
    return slice(int(starts[longest]), int(ends[longest]))


def _bridged(surely: NDArray[np.bool_], likely: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True where `surely` is, and at single places between two such ones that are `likely`."""
    between = np.zeros_like(surely)
    between[1:-1] = surely[:-2] & surely[2:] & likely[1:-1]
    return np.asarray(surely | between)
