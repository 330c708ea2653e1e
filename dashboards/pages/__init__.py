"""The pages, in the order of the navigation. Each has TITLE, layout(run, state) and register(app, library).

Those of `PAGES` show recorded runs. A page that not every run has something for has missing(run), too: why it is empty.
Those of `ALONE` show something else, a leaderboard or the answers of a check, which has no other page.
"""

from dashboards.data.open_run import OpenRun
from dashboards.pages import distributions, run
from dashboards.pages.check import page as check
from dashboards.pages.compare import page as compare
from dashboards.pages.guidance import page as guidance
from dashboards.pages.loop import page as loop
from dashboards.pages.oracle import page as oracle
from dashboards.pages.overview import page as overview
from dashboards.pages.samples import page as samples
from dashboards.pages.trajectory import page as trajectory

__all__ = ["ALONE", "PAGES", "missing", "shown"]
PAGES = {
    "overview": overview,
    "trajectory": trajectory,
    "compare": compare,
    "distributions": distributions,
    "guidance": guidance,
    "samples": samples,
    "loop": loop,
    "run": run,
}
ALONE = {"oracle": oracle, "check": check}


def missing(name: str, run: OpenRun) -> str:
    """Why a page of `PAGES` has nothing to show of a run; empty if it has something."""
    why = getattr(PAGES[name], "missing", None)
    return why(run) if why else ""


def shown(run: OpenRun) -> list[str]:
    """The pages that have something to show of a run, in the order of the navigation."""
    return [name for name in PAGES if not missing(name, run)]
