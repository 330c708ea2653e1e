"""The report of a store: what fails, what was not tested, the numbers of every cell, the effect of each technique."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import pandas as pd
import xarray as xr

from gradscope.analysis.comparison import jsonable
from gradscope.analysis.false_alarms import FALSE_ALARMS
from gradscope.analysis.findings import SEVERITIES, Finding
from gradscope.analysis.in_memory import in_memory
from gradscope.analysis.independence import also_guides, warnings
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.signatures import find, number_of_tests, untested
from gradscope.analysis.summary import TRAJECTORY_MEANS, summary
from gradscope.analysis.technique_effects import compare_all
from gradscope.analysis.written import Written, written
from gradscope.store.attributes import NESTED
from gradscope.store.dims import cell_dims, sample_dims

VERSION = 1
"""Version of the keys of `to_json`."""

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
_JSON = ("configuration", "evaluation", *NESTED)  # attributes that hold JSON
_RESULTS = ("transfer_ratio", "fd_", "fid", "kd_", "kid", "precision", "recall", "density", "coverage")
"""Prefixes of the evaluation's results, in the order of the table."""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that `gradscope report` says about a store."""

    findings: list[Finding]
    """Findings, most severe first."""
    tests: int
    """Number of tests: signatures that could be tested, times guided cells."""
    untested: dict[str, str]
    """Signatures that could not be tested, and for each what would make it possible."""
    cells: pd.DataFrame
    """One row per cell: its names; ``samples``, the number of finished ones; ``own``, ``judge``, ``transfer_ratio``,
    ``fd_*``, ``kd_*``, ``precision``, ``recall``, ``density``, ``coverage``, each with its 95 % interval
    ``<name>_low``, ``<name>_high``; ``gradient_cosine``, ``update_cosine`` and ``effective_strength``, means over
    samples of each trajectory's mean; ``nonfinite_steps``. Columns that the store lacks are left out."""
    floors: dict[str, float]
    """For columns of `cells`: the score of other real images in place of samples."""
    comparisons: pd.DataFrame
    """Table of `gradscope.analysis.compare_all`, against the stabiliser ``none``, or against the first one."""
    written: Written
    """How much of the store is written."""
    remarks: list[str]
    """What a reader of the numbers must know."""
    provenance: dict[str, Any]
    """Run, configuration, versions and command, from the store's attributes."""

    def _repr_html_(self) -> str:
        """The form in which a notebook shows the report."""
        from gradscope.reporting.html import to_notebook  # it loads plotly

        return to_notebook(self)


def report(ds: xr.Dataset) -> Report:
    """Analyse a store: what fails, the numbers of every cell, the effect of each technique.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, whole or partly written, or a selection of it.

    Raises
    ------
    GradscopeError
        This is not a store, or a chunk cannot be read.

    Examples
    --------
    >>> gradscope.report(ds).findings[0].severity
    'alarm'
    """
    ds = in_memory(restore_dims(ds))
    stabilizers = ds["stabilizer"].values.tolist()
    baseline = "none" if "none" in stabilizers else stabilizers[0]
    progress = written(ds)
    return Report(
        findings=find(ds),
        tests=number_of_tests(ds),
        untested=untested(ds),
        cells=_cells(ds),
        floors={name: float(ds[f"{name}_floor"]) for name in _evaluated(ds) if f"{name}_floor" in ds},
        comparisons=compare_all(ds, baseline),
        written=progress,
        remarks=_remarks(ds, progress),
        provenance=_provenance(ds),
    )


def to_json(report: Report) -> str:
    """The report as JSON, by the schema ``docs/reference/report.schema.json``; numbers that are not finite are null.

    Keys: ``version``, the version of these keys; ``written`` (share, samples, complete, text); ``remarks``;
    ``findings``, each with the fields of `Finding` and its ``cell``; ``tests``, their number; ``untested``, reasons by
    signature; ``cells`` and ``comparisons``, one object per row with the columns of `Report`; ``floors``;
    ``provenance``.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> content = json.loads(to_json(report(synthetic.trajectories("constant", samples=8))))
    >>> content["findings"][0]["signature"], content["written"]["text"]
    ('frozen', 'complete: 8 samples in each of 1 cells')
    """
    progress = report.written
    content = {
        "version": VERSION,
        "written": {
            "share": progress.share,
            "samples": progress.samples,
            "complete": progress.complete,
            "text": str(progress),
        },
        "remarks": report.remarks,
        "findings": [asdict(finding) | {"cell": finding.cell} for finding in report.findings],
        "tests": report.tests,
        "untested": report.untested,
        "cells": report.cells.to_dict("records"),
        "floors": report.floors,
        "comparisons": report.comparisons.to_dict("records"),
        "provenance": report.provenance,
    }
    return json.dumps(jsonable(content), indent=2, allow_nan=False)


def grouped(findings: list[Finding]) -> Iterator[tuple[str, str, list[Finding]]]:
    """Group findings by severity and signature, in the order of the first finding of each group."""
    order = list(dict.fromkeys((finding.severity, finding.signature) for finding in findings))
    same = sorted(findings, key=lambda finding: order.index((finding.severity, finding.signature)))
    for (severity, signature), group in groupby(same, key=lambda finding: (finding.severity, finding.signature)):
        yield severity, signature, list(group)


def multiplicity(tests: int) -> str:
    """How certain the findings are together, in two sentences."""
    return (
        f"{tests:,} tests (signatures times guided cells): a run without a fault has an alarm or warning with a chance "
        f"of at most {FALSE_ALARMS:.0%}. Effects are those of the timesteps that the test chose"
    )


def headline(findings: list[Finding], cells: int) -> str:
    """How many findings there are, and in how many of the cells, in one sentence."""
    if not findings:
        return f"no finding in {cells} cells"
    counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
    parts = [f"{n} {s}{'s' if n > 1 else ''}" for s, n in counts.items() if n]
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    affected = {tuple(finding.cell.values()) for finding in findings}
    return f"{listed} in {len(affected)} of {cells} cells"


def _cells(ds: xr.Dataset) -> pd.DataFrame:
    rows = summary(ds)
    columns = {"samples": rows["samples"]}
    for name in ("own", "judge"):
        if f"{name}_accuracy" in rows:
            columns |= _with_interval(name, rows[f"{name}_accuracy"], rows[f"{name}_accuracy_interval"])
    for name in _evaluated(ds):
        columns |= _with_interval(name, ds[name], ds[f"{name}_interval"])
    columns |= {name: rows[name] for name in (*TRAJECTORY_MEANS, "nonfinite_steps") if name in rows}
    table = xr.Dataset({name: values.reset_coords(drop=True) for name, values in columns.items()})
    dims = cell_dims(ds)
    return table.to_dataframe(dim_order=list(dims)).reset_index()[[*dims, *columns]]


def _with_interval(name: str, value: xr.DataArray, interval: xr.DataArray) -> dict[str, xr.DataArray]:
    return {name: value} | {f"{name}_{end}": interval.sel(bound=end, drop=True) for end in ("low", "high")}


def _evaluated(ds: xr.Dataset) -> list[str]:
    """Names of the evaluation's results that have an interval in every cell, in the order of `_RESULTS`."""
    names = [
        str(name) for name in ds.data_vars if set(ds[name].dims) == set(cell_dims(ds)) and f"{name}_interval" in ds
    ]
    return [name for start in _RESULTS for name in sorted(names) if name.startswith(start)]


def _remarks(ds: xr.Dataset, progress: Written) -> list[str]:
    remarks = [] if progress.complete else [f"{progress}; only this part is analysed"]
    evaluation = json.loads(ds.attrs.get("evaluation", "{}"))
    is_image, is_judged = len(sample_dims(ds)) == 3, "judge_prediction" in ds
    if not is_judged or (is_image and (not _evaluated(ds) or not evaluation.get("distances", True))):
        further = "distances to real images and coverage" if is_judged else "judged numbers"
        remarks.append(f"`gradscope evaluate STORE` adds {further}")
    counts = evaluation.get("excluded", {})
    for why, text in {"unfinished": "are not finished", "not_finite": "are not finite at the end"}.items():
        if counts.get(why):
            remarks.append(f"the evaluation left out {counts[why]} samples that {text}")
    return [*remarks, *warnings(also_guides(ds)).values()]


def _provenance(ds: xr.Dataset) -> dict[str, Any]:
    known = {name: ds.attrs[name] for name in _PROVENANCE if name in ds.attrs}
    return {
        name: json.loads(value) if name in _JSON and isinstance(value, str) else value for name, value in known.items()
    }
