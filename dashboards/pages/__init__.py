"""The pages, in the order of the navigation. Each has TITLE, layout(run, state) and register(app, library).

Those of `PAGES` show recorded runs; `oracle` is the page of leaderboards.
"""

from dashboards.pages import distributions, run
from dashboards.pages.compare import page as compare
from dashboards.pages.oracle import page as oracle
from dashboards.pages.overview import page as overview
from dashboards.pages.samples import page as samples
from dashboards.pages.trajectory import page as trajectory

__all__ = ["PAGES", "oracle"]
PAGES = {
    "overview": overview,
    "trajectory": trajectory,
    "compare": compare,
    "distributions": distributions,
    "samples": samples,
    "run": run,
}
