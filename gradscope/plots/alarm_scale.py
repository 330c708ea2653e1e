"""The colours of a heat map: alarming on the failing side of each threshold, calm on the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.plots.layout import Threshold, thresholds_of

CALM = ("#E3E9EE", "#4F6C85")
"""Colours of values that pass, near the threshold and far from it."""
ALARM = ("#F2A9A2", "#8E1023")
"""Colours of values that fail, near the threshold and far from it."""
NEUTRAL = "Cividis"
"""Colours of a diagnostic without thresholds."""
_NEAR = 0.07
"""Share of the colour bar by which two of its labels must be apart."""
Stops = list[tuple[float, str]]


def alarm_scale(name: str, values: NDArray[np.float64], logarithmic: bool) -> dict[str, Any]:
    """Arguments of a plotly heat map: colours over the range of the values, with the thresholds on the colour bar.

    Parameters
    ----------
    name
        The diagnostic. Its thresholds, and the side on which it fails, are those of its failure signatures.
    values
        What is drawn; log10 of the diagnostic if `logarithmic`.

    Examples
    --------
    >>> scale = alarm_scale("gradient_lag_cosine", np.array([0.0, 0.8]), logarithmic=False)
    >>> scale["zmin"], scale["zmax"], scale["colorscale"][0], scale["colorscale"][1][0]
    (0.0, 0.8, (0.0, '#8E1023'), 0.5)
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low == high:
        room = max(1e-3 * abs(low), 1e-9)
        low, high = low - room, high + room
    place = np.log10 if logarithmic else float
    marks = [found._replace(value=float(place(found.value))) for found in thresholds_of(name)]
    share = {mark: min(max((mark.value - low) / (high - low), 0.0), 1.0) for mark in marks}
    below = max((at for mark, at in share.items() if mark.side == "below"), default=None)
    above = min((at for mark, at in share.items() if mark.side == "above"), default=None)
    if below is not None and above is not None:  # one that is out of the range does not bend the scale
        below, above = (below, None) if above >= 1 else (None, above) if below <= 0 else (below, above)
    colours: str | Stops = NEUTRAL if below is None and above is None else _stops(below, above)
    ticks = _ticks(low, high, marks, logarithmic)
    return {
        "colorscale": colours,
        "zmin": low,
        "zmax": high,
        "colorbar": {"tickmode": "array", "tickvals": [*ticks], "ticktext": [*ticks.values()]},
    }


def _stops(below: float | None, above: float | None) -> Stops:
    """A colour scale: values fail below one share of the range and above another."""
    stops: Stops = []
    first, last = below or 0.0, 1.0 if above is None else max(above, below or 0.0)
    if first > 0:
        stops += [(0.0, ALARM[1]), (first, ALARM[0])]
    if first < last:
        if below is not None and above is not None:
            stops += [(first, CALM[0]), ((first + last) / 2, CALM[1]), (last, CALM[0])]
        else:
            stops += [(first, CALM[below is None]), (last, CALM[below is not None])]
    if last < 1:
        stops += [(last, ALARM[0]), (1.0, ALARM[1])]
    return stops


def _ticks(low: float, high: float, marks: list[Threshold], logarithmic: bool) -> dict[float, str]:
    """Labels of the colour bar: its ends, and the thresholds; those out of its range stand at its end."""

    def number(value: float, digits: int = 3) -> str:
        return f"{10**value if logarithmic else value:.{digits}g}"

    ticks: dict[float, str] = {}
    for name, side, value in marks:
        at = min(max(value, low), high)
        words = f"{name} {side} {number(value, 4)}"
        ticks[at] = f"{ticks[at]}, {words}" if at in ticks else words
    for end, sign in ((low, "▾"), (high, "▴")):
        if end in ticks:
            ticks[end] = f"{number(end)} ({sign} {ticks[end]})"
        elif all(abs(end - at) > _NEAR * (high - low) for at in ticks):
            ticks[end] = number(end)
    return ticks
