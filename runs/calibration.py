"""How often the failure signatures find what is there, and what is not: the table of CALIBRATION.md.

python runs/calibration.py runs/mixture.zarr runs/both.zarr

Known faults are drawn trajectories (`gradscope.analysis.synthetic`). Healthy are drawn trajectories without a fault and
those guided cells of the given stores whose judged accuracy has a lower bound of at least 0.6.
"""

import sys
from collections import Counter

import xarray as xr

import gradscope
from gradscope.analysis.findings import Finding
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import FAULTS, trajectories
from gradscope.intervals import wilson

REPETITIONS = 25
SIGNATURE = {
    "white_noise": "unstable",
    "constant": "frozen",
    "clipped": "dead_by_clipping",
    "saturated": "saturated_early",
}
"""Signature of a fault, where it has another name."""
HEALTHY = 0.6


def main(stores: list[str]) -> None:
    print(f"| fault, {REPETITIONS} runs of 64 drawn trajectories | signature | found in | other signatures |")
    print("| --- | --- | --- | --- |")
    for fault in [*FAULTS, "none, cosine 0.5", "over_regularised"]:
        wanted = SIGNATURE.get(fault, fault)
        seen = Counter(name for seed in range(REPETITIONS) for name in {f.signature for f in findings(fault, seed)})
        others = ", ".join(f"{name} {count}" for name, count in sorted(seen.items()) if name != wanted) or "none"
        healthy_draw = fault.startswith("none")
        found = "" if healthy_draw else share(seen[wanted], REPETITIONS)
        print(f"| {fault} | {'' if healthy_draw else wanted} | {found} | {others} |")
    print()
    print("| healthy cell | N | judge's accuracy | alarms | warnings |")
    print("| --- | --- | --- | --- | --- |")
    cells = flagged = 0
    for store in stores:
        for row in healthy(gradscope.open(store)):
            alarms, warnings = row[3:]
            cells, flagged = cells + 1, flagged + bool(alarms)
            print(
                f"| {row[0]} | {row[1]} | {row[2]} | {', '.join(alarms) or 'none'} | {', '.join(warnings) or 'none'} |"
            )
    print(f"\nHealthy cells with an alarm: {share(flagged, cells)} of {cells}.")


def findings(fault: str, seed: int) -> list[Finding]:
    """What is found in one draw of a fault."""
    if fault == "none, cosine 0.5":
        return find(trajectories(seed=seed, cosine=0.5))
    if fault != "over_regularised":
        return find(trajectories(fault, seed=seed))
    smooth = trajectories(seed=seed + 1, accuracy=0.6).assign_coords(stabilizer=["smooth"])
    return find(xr.concat([trajectories(seed=seed), smooth], "stabilizer"))


def healthy(ds: xr.Dataset):
    """Name, N, accuracy, alarms and warnings of the healthy cells; what compares a cell with another is left out."""
    found = [f for f in find(ds) if f.signature != "over_regularised"]
    summary = gradscope.summary(ds).stack(cell=("classifier", "classifier_input", "stabilizer", "guidance_scale"))
    for place in range(summary.sizes["cell"]):
        row = summary.isel(cell=place)
        low, high = row["judge_interval"].values
        cell = row["cell"].item()
        if cell[3] == 0 or low < HEALTHY:
            continue
        mine = [f for f in found if tuple(f.cell.values()) == cell]
        by_severity = [[f.signature for f in mine if f.severity == severity] for severity in ("alarm", "warning")]
        accuracy = f"{float(row['judge_accuracy']):.2f} [{low:.2f}, {high:.2f}]"
        yield " / ".join(map(str, cell)), int(row["samples"]), accuracy, *by_severity


def share(k: int, n: int) -> str:
    """A share with Wilson's 95 % interval."""
    low, high = wilson(k, n)
    return f"{k / n:.2f} [{low:.2f}, {high:.2f}]" if n else "-"


if __name__ == "__main__":
    main(sys.argv[1:])
