"""How often the failure signatures find a known fault, and how often a healthy run: the tables of CALIBRATION.md.

python runs/calibration.py runs/mixture.zarr runs/both.zarr runs/both_100.zarr

Known faults are drawn trajectories (`gradscope.analysis.synthetic`). Drawn trajectories without a fault count as
healthy, and so do guided cells of the given stores if the lower bound of their judged accuracy is at least 0.6. The
other cells are shown too.
"""

import sys
from collections import Counter
from collections.abc import Iterator

import xarray as xr

import gradscope
from gradscope.analysis.findings import SEVERITIES, Finding
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import FAULTS, SIGNATURE, trajectories
from gradscope.intervals import wilson

REPETITIONS = 25
"""Draws of each fault."""
HEALTHY = 0.6
"""Lower bound of the judge's accuracy from which on a cell counts as healthy."""


def main(stores: list[str]) -> None:
    print(
        f"| fault, {REPETITIONS} runs of drawn trajectories | signature | N = 64 | N = 16 | other signatures, N = 64 |"
    )
    print("| --- | --- | --- | --- | --- |")
    for fault in [*FAULTS, "none, cosine 0.5", "over_regularised"]:
        wanted = SIGNATURE.get(fault, fault)
        seen = {n: counts(fault, n) for n in (64, 16)}
        others = ", ".join(f"{name} {count}" for name, count in sorted(seen[64].items()) if name != wanted) or "none"
        healthy_draw = fault.startswith("none")
        found = ["" if healthy_draw else share(counted[wanted], REPETITIONS) for counted in seen.values()]
        print(f"| {fault} | {'' if healthy_draw else wanted} | {' | '.join(found)} | {others} |")
    print()
    print("| cell | N | steps | judge's accuracy | alarms | warnings | remarks |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cells = flagged = 0
    for store in stores:
        ds = gradscope.open(store)
        for name, n, accuracy, low, *found in guided(ds):
            if low >= HEALTHY:
                cells, flagged = cells + 1, flagged + bool(found[0])
            print(f"| {' | '.join([name, str(n), str(ds.sizes['timestep']), accuracy, *map(listed, found)])} |")
    print(f"\nHealthy cells with an alarm: {share(flagged, cells)} of {cells}.")


def listed(names: list[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"


def counts(fault: str, samples: int) -> Counter[str]:
    """In how many draws each signature is found; remarks are in parentheses, because they are no faults."""
    seen: Counter[str] = Counter()
    for seed in range(REPETITIONS):
        found = findings(fault, seed, samples)
        seen.update({f.signature if f.severity != "remark" else f"({f.signature})" for f in found})
    if fault == "convinced":
        seen["convinced"] = seen.pop("(convinced)", 0)
    return seen


def findings(fault: str, seed: int, samples: int) -> list[Finding]:
    """The findings in one draw of a fault."""
    if fault == "none, cosine 0.5":
        return find(trajectories(samples=samples, seed=seed, cosine=0.5))
    if fault != "over_regularised":
        return find(trajectories(fault, samples, seed=seed))
    smooth = trajectories(samples=samples, seed=seed + 1, accuracy=0.6).assign_coords(stabilizer=["smooth"])
    return find(xr.concat([trajectories(samples=samples, seed=seed), smooth], "stabilizer", join="outer"))


def guided(ds: xr.Dataset) -> Iterator[tuple]:
    """Name, N, accuracy, its lower bound, alarms, warnings and remarks of the guided cells.

    Findings that compare a cell with another are left out.
    """
    found = [f for f in find(ds) if f.signature != "over_regularised"]
    summary = gradscope.summary(ds).stack(cell=("classifier", "classifier_input", "stabilizer", "guidance_scale"))
    for number in range(summary.sizes["cell"]):
        row = summary.isel(cell=number)
        low, high = row["judge_accuracy_interval"].values
        cell = row["cell"].item()
        if cell[3] == 0:
            continue
        here = [f for f in found if tuple(f.cell.values()) == cell]
        by_severity = [[_with_class(f) for f in here if f.severity == severity] for severity in SEVERITIES]
        accuracy = f"{float(row['judge_accuracy']):.2f} [{low:.2f}, {high:.2f}]"
        yield " / ".join(map(str, cell)), int(row["samples"]), accuracy, low, *by_severity


def _with_class(finding: Finding) -> str:
    """The name of the signature, with the target class if only its samples show the finding."""
    return f"{finding.signature} ({finding.target_class})" if finding.target_class else finding.signature


def share(k: int, n: int) -> str:
    """A share with Wilson's 95 % interval."""
    low, high = wilson(k, n)
    return f"{k / n:.2f} [{low:.2f}, {high:.2f}]" if n else "-"


if __name__ == "__main__":
    main(sys.argv[1:])
