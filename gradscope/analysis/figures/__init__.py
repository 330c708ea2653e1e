"""Figures of a store: functions from an `xarray.Dataset` or a data frame to a plotly figure.

Each is in two parts: ``<figure>_numbers`` collects what is shown, ``draw_<figure>`` draws it and computes nothing.
"""

from gradscope.analysis.figures.curves import curve, curve_numbers, draw_curve, draw_heatmap, heatmap
from gradscope.analysis.figures.outcome import (
    accuracy,
    accuracy_numbers,
    confusion,
    confusion_numbers,
    draw_accuracy,
    draw_confusion,
    draw_effects,
)
from gradscope.analysis.figures.style import PLOTLY_CONFIG, cell_name
from gradscope.analysis.figures.trajectories import draw_trajectories, trajectories, trajectory_numbers

__all__ = [
    "PLOTLY_CONFIG",
    "accuracy",
    "accuracy_numbers",
    "cell_name",
    "confusion",
    "confusion_numbers",
    "curve",
    "curve_numbers",
    "draw_accuracy",
    "draw_confusion",
    "draw_curve",
    "draw_effects",
    "draw_heatmap",
    "draw_trajectories",
    "heatmap",
    "trajectories",
    "trajectory_numbers",
]
