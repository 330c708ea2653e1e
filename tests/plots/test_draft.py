"""A draft gives the figure that plotly gives for the same changes."""

import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

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
