"""What surrounds the pages: header, navigation, notices and the stores that callbacks share."""

import dash_mantine_components as dmc
from dash import dcc, html

from dashboards.data.library import Broken, Library
from dashboards.pages import PAGES
from dashboards.state import CURSOR, FIELDS

POLL = 2000
"""Milliseconds between two looks at a run that is being recorded."""


def layout() -> dmc.MantineProvider:
    """The page before any state is known."""
    return dmc.MantineProvider(
        defaultColorScheme="auto",
        theme={"primaryColor": "blue", "defaultRadius": "sm", "fontFamily": "system-ui, sans-serif"},
        children=[
            html.A("skip to content", href="#page", className="skip"),
            html.Header(_header(), className="header"),
            html.Div(id="notices", role="status", className="notices"),
            html.Main(html.Div(dmc.Skeleton(height=400), id="page"), tabIndex=-1, className="page"),
            html.Div(id="said", role="status", className="said", **{"aria-live": "polite"}),
            *[dcc.Store(id=name) for name in ("address", "view", "version", "written", "shown", "opened")],
            dcc.Interval(id="poll", interval=POLL, disabled=True),
        ],
    )


def choices(library: Library) -> list[dict[str, str]]:
    """The stores to choose from."""
    return [{"value": key, "label": _label(run)} for key, run in library.runs.items()]


def _header() -> list:
    return [
        html.A("gradscope", href="overview", className="brand view-link", **{"data-fields": " ".join(CURSOR)}),
        dmc.Select(
            id="store-select",
            allowDeselect=False,
            size="xs",
            w=220,
            **{"aria-label": "store"},
        ),
        html.Nav(
            [
                html.A(
                    page.TITLE,
                    id=f"to-{name}",
                    href=name,
                    className="view-link",
                    **{"data-fields": " ".join((*CURSOR, *FIELDS[name]))},
                )
                for name, page in PAGES.items()
            ],
            className="nav",
            **{"aria-label": "pages"},
        ),
        html.Div(id="live", className="live"),
        html.Div(
            [
                dmc.Button("Copy link", variant="default", size="compact-xs", **{"data-copy-link": "1"}),
                dmc.ColorSchemeToggle(
                    lightIcon="☀", darkIcon="☾", size="sm", variant="default", **{"aria-label": "dark or light"}
                ),
            ],
            className="tools",
        ),
    ]


def _label(run) -> str:
    return f"{run.path.name} (cannot be opened)" if isinstance(run, Broken) else run.path.name
