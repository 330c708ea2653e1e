"""Figures of a store: functions from an `xarray.Dataset` to a plotly figure, for pages and for notebooks.

Each figure has two parts: ``<figure>_numbers`` collects its numbers, ``draw_<figure>`` draws them and computes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from gradscope.analysis.cells import cell_name
from gradscope.analysis.classifier_free import NEEDS as CLASSIFIER_FREE
from gradscope.analysis.comparison import SCALARS
from gradscope.analysis.technique_effects import compare_all
from gradscope.plots.belief import belief, belief_numbers, draft_belief, draw_belief
from gradscope.plots.cell_pair import variable_of
from gradscope.plots.curve_grid import curve, curve_numbers, draw_curve
from gradscope.plots.curves import (
    curves,
    curves_numbers,
    draft_curves,
    draft_means,
    draft_sample,
    draw_curves,
    with_sample,
)
from gradscope.plots.difference import difference, difference_numbers, draw_difference
from gradscope.plots.draft import Draft
from gradscope.plots.finals import draw_finals, finals, finals_numbers
from gradscope.plots.forest import draw_forest, forest, forest_numbers
from gradscope.plots.guidance_parts import draw_guidance_parts, guidance_parts, guidance_parts_numbers
from gradscope.plots.heatmap import draw_heatmap, draw_stability, heatmap, stability, stability_numbers
from gradscope.plots.leaderboard import (
    draw_oracle_curves,
    draw_oracle_table,
    oracle_curves,
    oracle_curves_numbers,
    oracle_table,
    oracle_table_numbers,
)
from gradscope.plots.magnitudes import draw_magnitudes, magnitudes, magnitudes_numbers
from gradscope.plots.outcome import (
    accuracy,
    accuracy_numbers,
    confusion,
    confusion_numbers,
    draw_accuracy,
    draw_confusion,
    draw_effects,
    effects,
)
from gradscope.plots.pairs import draw_pairs, pairs, pairs_numbers
from gradscope.plots.paths import draw_paths, paths, paths_numbers
from gradscope.plots.ridgelines import draw_ridgelines, ridgelines, ridgelines_numbers
from gradscope.plots.seen import NEEDS as SEEN
from gradscope.plots.seen import draw_what_was_seen, what_was_seen, what_was_seen_numbers
from gradscope.plots.spectrum import draw_spectrum, spectrum, spectrum_numbers
from gradscope.plots.style import PLOTLY_CONFIG
from gradscope.plots.trajectories import draw_trajectories, trajectories, trajectory_numbers

__all__ = [
    "FIGURES",
    "Figure",
    "ORACLE_FIGURES",
    "PLOTLY_CONFIG",
    "accuracy",
    "accuracy_numbers",
    "belief",
    "cell_name",
    "confusion",
    "confusion_numbers",
    "curve",
    "curve_numbers",
    "curves",
    "difference",
    "draw_accuracy",
    "draw_confusion",
    "draw_curve",
    "draw_effects",
    "draw_heatmap",
    "draw_trajectories",
    "effects",
    "finals",
    "forest",
    "guidance_parts",
    "heatmap",
    "magnitudes",
    "oracle_curves",
    "oracle_table",
    "pairs",
    "paths",
    "ridgelines",
    "spectrum",
    "stability",
    "trajectories",
    "trajectory_numbers",
    "what_was_seen",
]

Needs = Callable[[Mapping[str, Any]], tuple[str, ...]]


class OfSample(NamedTuple):
    """How a figure is made for another sample from what does not depend on the argument ``sample``."""

    numbers: Callable[..., pd.DataFrame]
    """Takes the numbers without a sample, a store ``ds`` and the ``sample``, and returns the numbers."""
    shared: Callable[[pd.DataFrame], Any]
    """Takes the numbers without a sample, and returns what all samples share."""
    draft: Callable[[Any, pd.DataFrame], Draft]
    """Takes what all samples share, and the numbers."""


class Figure(NamedTuple):
    """The two parts of a figure, and the variables that it reads."""

    numbers: Callable[..., pd.DataFrame]
    """Takes a store and the figure's arguments, and returns its numbers."""
    draw: Callable[[pd.DataFrame], go.Figure]
    needs: Needs
    """Takes the figure's arguments, and returns the names of the variables along t that it reads. Variables without
    timesteps are always available."""
    draft: Callable[[pd.DataFrame], Draft] | None = None
    """`draw` before plotly checks it, of figures that pages draw often."""
    of_sample: OfSample | None = None


def _always(*names: str) -> Needs:
    return lambda arguments: names


def _named(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return (variable_of(arguments["name"]),)


_CURVES_OF_SAMPLE = OfSample(with_sample, lambda numbers: draft_means(numbers).packed(), draft_sample)
FIGURES: Mapping[str, Figure] = {
    "accuracy": Figure(accuracy_numbers, draw_accuracy, _always("finite_fraction")),
    "belief": Figure(belief_numbers, draw_belief, _always("predicted_class", "log_prob", "entropy"), draft_belief),
    "confusion": Figure(confusion_numbers, draw_confusion, _always("written")),
    "curves": Figure(curves_numbers, draw_curves, _named, draft_curves, _CURVES_OF_SAMPLE),
    "difference": Figure(difference_numbers, draw_difference, _named),
    "effects": Figure(compare_all, draw_effects, _always("written")),
    "finals": Figure(finals_numbers, draw_finals, _always("image")),
    "forest": Figure(forest_numbers, draw_forest, _always(*(quantity.variable for quantity in SCALARS.values()))),
    "guidance_parts": Figure(guidance_parts_numbers, draw_guidance_parts, _always(*CLASSIFIER_FREE)),
    "magnitudes": Figure(magnitudes_numbers, draw_magnitudes, _always("gradient")),
    "pairs": Figure(pairs_numbers, draw_pairs, _named),
    "paths": Figure(paths_numbers, draw_paths, _always("x_t", "pred_original_sample", "gradient")),
    "ridgelines": Figure(ridgelines_numbers, draw_ridgelines, _named),
    "spectrum": Figure(spectrum_numbers, draw_spectrum, _always("radial_spectrum", "gradient")),
    "stability": Figure(stability_numbers, draw_stability, _named),
    "what_was_seen": Figure(what_was_seen_numbers, draw_what_was_seen, _always(*SEEN)),
}
"""The two parts of each figure by name. A function of this module with the same name makes the whole figure."""
ORACLE_FIGURES: Mapping[str, Figure] = {
    "oracle_curves": Figure(oracle_curves_numbers, draw_oracle_curves, _always()),
    "oracle_table": Figure(oracle_table_numbers, draw_oracle_table, _always()),
}
"""The same for leaderboards, of `gradscope.analysis.oracle.open_leaderboard`."""
