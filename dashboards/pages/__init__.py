"""The pages, in the order of the navigation. Each has TITLE, layout(run, state) and register(app, library)."""

from dashboards.pages import compare, distributions, overview, run, samples, trajectory

PAGES = {
    "overview": overview,
    "trajectory": trajectory,
    "compare": compare,
    "distributions": distributions,
    "samples": samples,
    "run": run,
}
