"""The view that shows a finding: its cell, its diagnostics, and a sample and timestep at which it is clear."""

from dashboards.data.finding_key import finding_key
from dashboards.data.open_run import OpenRun
from dashboards.data.shown_sample import Shown
from dashboards.state import State
from dashboards.widgets.links import trajectory_state
from gradscope.analysis.findings import Finding
from gradscope.analysis.signatures import CURVES

_VARIABLES = {curve.name: curve.needs for curve in CURVES} | {
    "adversarial": ("log_prob", "gradient_cosine"),
    "undone": ("log_prob", "gradient_lag_cosine"),
    "unrelated_update": ("update_gradient_cosine",),
}
"""Diagnostics that come first in the view, by signature."""


def finding_state(run: OpenRun, finding: Finding, shown: Shown) -> State:
    """The state of the trajectory page that shows a finding."""
    state = trajectory_state(run, run.cells.index(finding.cell), _VARIABLES.get(finding.signature, ()))
    key = finding_key(run, finding)
    return state.to("trajectory", timestep=shown.timestep, sample=shown.sample, finding=key)
