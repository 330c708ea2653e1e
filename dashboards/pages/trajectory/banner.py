"""The banner of a finding: what it is, what to try, and why this sample and this timestep show it."""

from math import prod
from typing import Any

from dash import html

from dashboards.data.finding_key import finding_name, finding_of
from dashboards.data.open_run import OpenRun
from dashboards.data.shown_sample import needed, shown_sample
from dashboards.state import State
from dashboards.widgets.finding_link import finding_state
from dashboards.widgets.grid import badge
from gradscope.analysis.cells import cell_name
from gradscope.analysis.findings import Finding
from gradscope.store.dims import cell_dims

NEIGHBOURS = 3
"""Cells to compare with that the banner names."""


def banner(run: OpenRun, key: str) -> list[Any]:
    """The content of the banner; empty where there is no key."""
    if not key:
        return []
    finding = finding_of(run, key)
    if finding is None:
        return [html.Div([html.P(f"This store has no finding {key}."), _close()], className="card-head")]
    shown = shown_sample(needed(run), finding, prod(run.sample_shape))
    state = finding_state(run, finding, shown)
    sound = sound_neighbours(run, finding)
    return [
        html.Div(
            [
                html.H2(
                    [
                        html.Span(
                            badge(finding.severity, finding.severity), className=f"badge badge-{finding.severity}"
                        ),
                        f" {finding_name(finding)}",
                    ],
                    className="card-title",
                ),
                html.Span(_when(finding), className="caption"),
                html.A(f"Back to {shown.place}", href=state.url(), className="view-link"),
                _close(),
            ],
            className="card-head",
        ),
        html.P([html.B("Reason: "), finding.evidence]),
        html.P([html.B("What to try: "), finding.advice]),
        html.P([html.B("Compare with a cell without alarms: "), *_compare(run, state, sound)]) if sound else None,
        html.P([html.B("Shown: "), f"{shown.place}: {shown.why}"], className="caption"),
    ]


def span(run: OpenRun, key: str) -> list[float] | None:
    """The first and the last timestep of a finding; None where it has none."""
    finding = finding_of(run, key) if key else None
    if finding is None or finding.first_timestep is None or finding.last_timestep is None:
        return None
    return [finding.first_timestep, finding.last_timestep]


def sound_neighbours(run: OpenRun, finding: Finding) -> list[int]:
    """The guided cells without alarms that differ from the finding's cell in one dimension alone, by their numbers."""
    failing = [found.cell for found in run.findings() if found.severity == "alarm"]
    return [
        number
        for number, cell in enumerate(run.cells)
        if sum(cell[dim] != finding.cell[dim] for dim in cell_dims(run.ds)) == 1
        and cell["guidance_scale"] != 0
        and cell not in failing
    ][:NEIGHBOURS]


def _compare(run: OpenRun, state: State, numbers: list[int]) -> list[Any]:
    """Links to the comparisons of the state's cell with others."""
    links = [
        html.A(cell_name(run.cells[number]), href=state.to("compare", other=number).url(), className="view-link")
        for number in numbers
    ]
    return [part for link in links for part in (" · ", link)][1:]


def _when(finding: Finding) -> str:
    if finding.first_timestep is None:
        return "in the final samples"
    return f"timesteps {finding.first_timestep:g} to {finding.last_timestep:g}, marked on curves and slider"


def _close():
    return html.Button("✕", id="finding-close", type="button", title="close", **{"aria-label": "close the finding"})
