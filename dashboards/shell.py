"""The shell around the pages: header, navigation, notices, and the dcc.Stores that callbacks share."""

import dash_mantine_components as dmc
from dash import dcc, html

from dashboards.data.library import BrokenRun, Library, Shown
from dashboards.pages import ALONE, PAGES
from dashboards.state import CURSOR, FIELDS

POLL = 2000
"""Milliseconds between two looks at a run that is being recorded."""


def layout() -> dmc.MantineProvider:
    """The shell with an empty page."""
    stores = ("address", "view", "version", "url-written", "view-shown", "store-opened")
    return dmc.MantineProvider(
        defaultColorScheme="auto",
        theme={"primaryColor": "blue", "defaultRadius": "sm", "fontFamily": "system-ui, sans-serif"},
        children=[
            html.A("skip to content", href="#page", className="skip"),
            html.Header(_header(), className="header"),
            html.Div(id="notices", role="status", className="notices"),
            html.Main(html.Div(dmc.Skeleton(height=400), id="page"), tabIndex=-1, className="page"),
            html.Div(id="announcement", role="status", className="announcement", **{"aria-live": "polite"}),
            *[dcc.Store(id=name) for name in stores],
            dcc.Interval(id="poll", interval=POLL, disabled=True),
        ],
    )


def store_options(library: Library) -> list[dict[str, str]]:
    """Options of the select of stores."""
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
                    hidden=hasattr(page, "missing"),
                    **{"data-fields": " ".join((*CURSOR, *FIELDS[name]))},
                )
                for name, page in PAGES.items()
            ]
            + [
                html.A(
                    page.TITLE,
                    id=f"to-{name}",
                    href=name,
                    className="view-link",
                    hidden=True,
                    **{"data-fields": "store"},
                )
                for name, page in ALONE.items()
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


def _label(run: Shown | BrokenRun) -> str:
    return f"{run.path.name} (cannot be opened)" if isinstance(run, BrokenRun) else run.path.name
