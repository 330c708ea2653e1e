"""Messages on a page: progress, notices, errors, and reasons why something is missing."""

import dash_mantine_components as dmc
from dash import html

from dashboards.data.library import BrokenRun
from dashboards.data.open_run import OpenRun
from dashboards.state import diagnostics
from gradscope.analysis.independence import also_guides, warnings
from gradscope.analysis.written import Written, written


def amount_written(run: OpenRun) -> Written:
    """The written share of a run, and the finished samples of each cell."""
    return run.memo("amount written", lambda: written(run.scalars("written")))


def progress(run: OpenRun):
    """The written share of a run that is recorded or incomplete; None where it is complete."""
    amount = amount_written(run)
    if run.live:
        return dmc.Badge(f"recording: {100 * amount.share:.0f} %", color="orange", variant="default")
    return (
        None if amount.complete else dmc.Badge(f"{100 * amount.share:.0f} % written", color="gray", variant="default")
    )


def empty(reason: str):
    """Stand in for a missing part: why it is missing, and what would add it."""
    return dmc.Alert(reason, color="gray", variant="light", title="Nothing to show", className="empty")


def why_no_diagnostic(run: OpenRun) -> str:
    """Why a page about diagnostics along t is empty; empty if the store has some."""
    if diagnostics(run):
        return ""
    return f"{run.path.name} has no diagnostic along t: add norms, cosines or belief to `probes`"


def no_diagnostic(run: OpenRun):
    """Stand in for a page about diagnostics along t, where the store has none."""
    return empty(why_no_diagnostic(run))


def notice(text: str):
    """A notice that the user can close."""
    return dmc.Alert(text, color="orange", variant="light", withCloseButton=True, p="xs")


def dependence(run: OpenRun):
    """A warning where the judge, or the features of the distances, are those of a guide; None elsewhere."""
    texts = [f"{text[0].upper()}{text[1:]}." for text in warnings(also_guides(run.ds)).values()]
    if not texts:
        return None
    return dmc.Alert([html.P(text) for text in texts], color="orange", variant="light", p="xs", className="dependence")


def error(text: str):
    """An error that the user can close."""
    return dmc.Alert(text, color="red", variant="light", title="That did not work", withCloseButton=True, p="xs")


def broken(run: BrokenRun):
    """Why a store cannot be opened."""
    return dmc.Alert(
        [html.P(run.reason), html.P("The list above has the other stores. A reload of the page tries this one again.")],
        title=f"{run.path.name} cannot be opened",
        color="red",
        variant="light",
    )
