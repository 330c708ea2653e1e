"""A store's report: what fails, what was not tested, the numbers of every cell, the effect of each technique."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import pandas as pd
import xarray as xr

from gradscope.analysis.comparison import compare_all, jsonable
from gradscope.analysis.contents import Written, in_memory, written
from gradscope.analysis.curve_test import FALSE_ALARMS
from gradscope.analysis.findings import SEVERITIES, Finding
from gradscope.analysis.independence import also_guides, warnings
from gradscope.analysis.signatures import find, tests, untested
from gradscope.analysis.subsets import whole
from gradscope.analysis.summary import TRAJECTORY_MEANS, summary
from gradscope.store.attributes import NESTED
from gradscope.store.dims import cell_dims

VERSION = 1
"""Of the keys of `to_json`."""

_PROVENANCE = (
    "run_id",
    "configuration_hash",
    "created",
    "status",
    "command",
    "device",
    "threads",
    "versions",
    "weights_sha256",
    "configuration",
    "evaluation",
)
_JSON = ("configuration", "evaluation", *NESTED)  # attributes that are JSON themselves
_RESULTS = ("transfer_ratio", "fd_", "fid", "kd_", "kid", "precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Report:
    """All that `gradscope report` says of a store."""

    findings: list[Finding]
    """Most severe first."""
    tests: int
    """Signatures that were tested, times guided cells."""
    untested: dict[str, str]
    """Signatures that could not be tested, and what would make it possible."""
    cells: pd.DataFrame
    """One row a cell: its names; ``samples``, the finished ones; ``own``, ``judge``, ``transfer_ratio``, ``fd_*``,
    ``kd_*``, ``precision``, ``recall``, ``density``, ``coverage``, each with its 95 % interval ``<name>_low``,
    ``<name>_high``; means over samples of each trajectory's mean ``gradient_cosine``, ``update_cosine`` and
    ``effective_strength``; ``nonfinite_steps``. Without what is not in the store."""
    floors: dict[str, float]
    """By column of `cells`: what other real images score in place of samples."""
    comparisons: pd.DataFrame
    """Of `gradscope.analysis.compare_all`, against the stabiliser ``none``, or else the first."""
    written: Written
    remarks: list[str]
    """What a reader of the numbers must know."""
    provenance: dict[str, Any]
    """Run, configuration, versions, command: attributes of the store."""

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from gradscope.reporting.html import to_notebook  # it loads plotly

        return to_notebook(self)


def report(ds: xr.Dataset) -> Report:
    """Analyse a store as `gradscope.open` gives it, whole or partly written.

    Examples
    --------
    >>> gradscope.report(ds).findings[0].severity
    'alarm'
    """
    ds = in_memory(whole(ds))
    stabilizers = ds["stabilizer"].values.tolist()
    baseline = "none" if "none" in stabilizers else stabilizers[0]
    much = written(ds)
    return Report(
        findings=find(ds),
        tests=tests(ds),
        untested=untested(ds),
        cells=_cells(ds),
        floors={name: float(ds[f"{name}_floor"]) for name in _evaluated(ds) if f"{name}_floor" in ds},
        comparisons=compare_all(ds, baseline),
        written=much,
        remarks=_remarks(ds, much),
        provenance=_provenance(ds),
    )


def to_json(report: Report) -> str:
    """The report as JSON; what is not finite is null.

    Keys: ``version`` of these keys; ``written`` (share, samples, complete, text); ``remarks``; ``findings``, each with
    the fields of `Finding`; ``tests``, their number; ``untested``, by signature; ``cells`` and ``comparisons``, one
    object a row, with the columns of `Report`; ``floors``; ``provenance``.
    """
    much = report.written
    content = {
        "version": VERSION,
        "written": {
            "share": much.share,
            "samples": much.samples,
            "complete": much.complete,
            "text": str(much),
        },
        "remarks": report.remarks,
        "findings": [asdict(finding) for finding in report.findings],
        "tests": report.tests,
        "untested": report.untested,
        "cells": report.cells.to_dict("records"),
        "floors": report.floors,
        "comparisons": report.comparisons.to_dict("records"),
        "provenance": report.provenance,
    }
    return json.dumps(jsonable(content), indent=2, allow_nan=False)


def grouped(findings: list[Finding]) -> Iterator[tuple[str, str, list[Finding]]]:
    """Severity, signature and their findings, in the order of the first of each."""
    order = list(dict.fromkeys((finding.severity, finding.signature) for finding in findings))
    same = sorted(findings, key=lambda finding: order.index((finding.severity, finding.signature)))
    for (severity, signature), group in groupby(same, key=lambda finding: (finding.severity, finding.signature)):
        yield severity, signature, list(group)


def multiplicity(tests: int) -> str:
    """How sure the findings are together, in one sentence."""
    return (
        f"{tests:,} tests (signatures times guided cells): without any fault, the chance of an alarm or warning among "
        f"them is {FALSE_ALARMS:.0%} at most. Effects are those of the timesteps that the test chose"
    )


def headline(findings: list[Finding], cells: int) -> str:
    """How many findings there are in so many cells, in one sentence."""
    if not findings:
        return f"no finding in {cells} cells"
    counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
    parts = [f"{n} {s}{'s' if n > 1 else ''}" for s, n in counts.items() if n]
    told = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    affected = {tuple(finding.cell.values()) for finding in findings}
    return f"{told} in {len(affected)} of {cells} cells"


def _cells(ds: xr.Dataset) -> pd.DataFrame:
    rows = summary(ds)
    columns = {"samples": rows["samples"]}
    for name in ("own", "judge"):
        if f"{name}_accuracy" in rows:
            columns |= _with_interval(name, rows[f"{name}_accuracy"], rows[f"{name}_interval"])
    for name in _evaluated(ds):
        columns |= _with_interval(name, ds[name], ds[f"{name}_interval"])
    columns |= {name: rows[name] for name in (*TRAJECTORY_MEANS, "nonfinite_steps") if name in rows}
    table = xr.Dataset({name: values.reset_coords(drop=True) for name, values in columns.items()})
    dims = cell_dims(ds)
    return table.to_dataframe(dim_order=list(dims)).reset_index()[[*dims, *columns]]


def _with_interval(name: str, value: xr.DataArray, interval: xr.DataArray) -> dict[str, xr.DataArray]:
    return {name: value} | {f"{name}_{end}": interval.sel(bound=end, drop=True) for end in ("low", "high")}


def _evaluated(ds: xr.Dataset) -> list[str]:
    """Results of the evaluation that have an interval in every cell, in the order of `_RESULTS`."""
    names = [
        str(name) for name in ds.data_vars if set(ds[name].dims) == set(cell_dims(ds)) and f"{name}_interval" in ds
    ]
    return [name for start in _RESULTS for name in sorted(names) if name.startswith(start)]


def _remarks(ds: xr.Dataset, much: Written) -> list[str]:
    said = [] if much.complete else [f"{much}; only that is analysed"]
    evaluation = json.loads(ds.attrs.get("evaluation", "{}"))
    if not _evaluated(ds) or not evaluation.get("distances", True):
        what = "distances to real images and coverage" if "judge_prediction" in ds else "judged numbers"
        said.append(f"`gradscope evaluate STORE` adds {what}")
    counts = evaluation.get("excluded", {})
    for why, text in {"unfinished": "are not finished", "not_finite": "have an image that is not finite"}.items():
        if counts.get(why):
            said.append(f"the evaluation left out {counts[why]} samples that {text}")
    return [*said, *warnings(also_guides(ds)).values()]


def _provenance(ds: xr.Dataset) -> dict[str, Any]:
    there = {name: ds.attrs[name] for name in _PROVENANCE if name in ds.attrs}
    return {
        name: json.loads(value) if name in _JSON and isinstance(value, str) else value for name, value in there.items()
    }
