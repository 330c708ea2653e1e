"""A draft gives the figure that plotly gives for the same changes."""

import json
from base64 import b64decode

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.io.json import to_json_plotly
from plotly.subplots import make_subplots

from gradscope.plots.belief import belief_numbers, draft_belief, draw_belief
from gradscope.plots.curves import curves_numbers, draft_curves, draw_curves
from gradscope.plots.draft import Draft
from gradscope.plots.layout import along_t, finish, legend_above, nearest_curve, thresholds

TRACE = {"x": [900, 500, 100], "y": [0.1, 0.2, 0.3], "name": "robust", "line": {"color": "#0076B8", "dash": "dot"}}


def shared(figure, **row):
    """What the figures of the package do to a figure; `row` is that of the lowest subplot."""
    nearest_curve(figure)
    figure.update_yaxes(title={"text": "norm", "font": {"size": 11}}, **row)
    figure.add_annotation(text="no values", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    room = legend_above(figure, 5)
    finish(along_t(figure, TRACE["x"], **row), 300 + room).update_layout(margin={"t": room})
    thresholds(figure, "gradient_cosine", 0.1, 0.3)
    return figure


def test_a_figure_without_subplots():
    plain = shared(go.Figure(TRACE))
    draft = Draft()
    draft.add_trace(TRACE)
    assert shared(draft).figure().to_dict() == plain.to_dict()


def test_subplots_below_each_other():
    plain = make_subplots(3, 1, shared_xaxes=True)
    draft = Draft({key: value for key, value in plain.to_dict()["layout"].items() if key != "template"})
    for row in (1, 3):
        plain.add_trace(TRACE, row=row, col=1)
        draft.add_trace(TRACE, row=row)
    assert shared(draft, row=3).figure().to_dict() == shared(plain, row=3).to_dict()


def test_the_layout_that_a_draft_starts_from_stays():
    start = {"xaxis": {"domain": [0.0, 1.0]}, "yaxis": {}}
    Draft(start).update_xaxes(range=[0, 1], title={"text": "t"})
    assert start == {"xaxis": {"domain": [0.0, 1.0]}, "yaxis": {}}


@pytest.mark.parametrize("layout", [{"hovermod": "closest"}, {"hovermode": "nearest"}, {"xaxis": {"rang": [0, 1]}}])
def test_plotly_refuses_what_it_does_not_know(layout):
    with pytest.raises(ValueError, match=next(iter(layout))):
        Draft().update_layout(**layout).figure()


def decoded(value):
    """The part of a figure with its arrays as lists."""
    if isinstance(value, dict):
        if "bdata" in value:
            array = np.frombuffer(b64decode(value["bdata"]), value["dtype"])
            return array.reshape([int(n) for n in value.get("shape", str(array.size)).split(",")]).tolist()
        return {key: decoded(each) for key, each in value.items()}
    return [decoded(each) for each in value] if isinstance(value, list | tuple) else value


def as_read(figure):
    """A figure as a browser reads it, in any order of keys."""
    return json.loads(to_json_plotly(decoded(figure)))


ARRAYS = {
    "float32": np.float32([0.5, np.nan, -2]),
    "float64": np.array([[0.1, np.inf], [2, 3]]),
    "int64": np.array([999, 0]),
    "too large for int32": np.array([2**40, 1]),
    "int16": np.int16([1, 2]),
    "texts": np.array(["a", "b"]),
    "not contiguous": np.arange(6.0).reshape(2, 3).T,
    "big-endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros(0),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_unchecked_arrays_are_those_that_plotly_writes(array):
    draft = Draft()
    draft.add_trace({"x": [1], "customdata": array, "marker": {"color": ["red"]}})
    assert as_read(draft.to_dict()["data"]) == as_read(draft.figure().to_dict()["data"])


CELLS = [
    {"classifier": classifier, "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5}
    for classifier in ("robust", "non_robust")
]


@pytest.mark.parametrize("sample", [None, 3])
@pytest.mark.parametrize("name", ["gradient_cosine", "gradient_norm"])
def test_unchecked_curves_are_those_that_plotly_checks(ds, name, sample):
    numbers = curves_numbers(ds, name, CELLS, sample, CELLS[1])
    assert as_read(draft_curves(numbers).to_dict()) == as_read(draw_curves(numbers).to_dict())


def test_an_unchecked_belief_is_the_one_that_plotly_checks(ds):
    numbers = belief_numbers(ds, CELLS, 3)
    assert as_read(draft_belief(numbers).to_dict()) == as_read(draw_belief(numbers).to_dict())
