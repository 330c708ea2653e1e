"""Run: its configuration, provenance and commands, the progress of each cell, and the size of each array on disk."""

import io
import json
import shlex
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Output, html
from ruamel.yaml import YAML, RoundTripRepresenter

from dashboards.data.disk import disk_sizes
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.state import State
from dashboards.widgets.grid import Row, height_of, number_column, table, text_column
from dashboards.widgets.links import VERSION, VIEW, View, shown_state, trajectory_state
from gradscope.analysis.cells import cell_name
from gradscope.store.attributes import nested
from gradscope.store.dims import cell_dims, over
from gradscope.text import size as size_text

TITLE = "Run"
_ATTRIBUTES = ("run_id", "configuration_hash", "created", "status", "device", "threads", "schema_version", "command")
_NESTED_ATTRIBUTES = ("versions", "weights_sha256")
PROGRESS = (
    text_column("cell", "cell", 262),
    number_column("finished", "samples", 78, "of(params.value, params.data.samples)", headerTooltip="finished samples"),
    number_column(
        "steps", "timesteps", 100, "of(params.value, params.data.all)", headerTooltip="written, over all samples"
    ),
    number_column("share", "share", 64, "percent(params.value)"),
)
ARRAYS = (
    text_column("name", "array", 158),
    text_column("dims", "dimensions", 268, headerTooltip="besides those of the cells"),
    text_column("dtype", "dtype", 58),
    number_column("bytes", "on disk", 66, "text(params.data.size)"),
)


def layout(run: OpenRun, state: State):
    progress, arrays = progress_rows(run, state), array_rows(run)
    total = size_text(sum(row["bytes"] for row in arrays))
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            _section("Configuration", *_configuration(run.ds.attrs)),
            html.Div(
                [
                    _section("Provenance", "", _provenance(run)),
                    _section("Commands", "Run them where the store is.", _copyable("commands", commands(run))),
                ],
                className="run-column",
            ),
            html.Div(
                [
                    _section(
                        "Progress", "",
                        table("progress-table", PROGRESS, progress, "progress", height_of(len(progress), 16)),
                    ),
                    _section(
                        f"On disk: {total}", "", table("arrays-table", ARRAYS, arrays, "arrays", height_of(12, 12))
                    ),
                ],
                className="run-column",
            ),
        ],
        className="run",
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    """Add the callback of the page."""

    @app.callback(Output("progress-table", "rowData"), VERSION, VIEW, prevent_initial_call=True)
    def progress(version: str | None, view: View | None):
        return progress_rows(*shown_state(library, view))


def progress_rows(run: OpenRun, state: State) -> list[Row]:
    """One row for each cell: how much of it is written. A click opens its trajectory."""
    written = run.scalars("written")["written"].transpose(*over(run.ds)).values > 0
    written = written.reshape(-1, *written.shape[-2:])
    watched = run.ds.attrs.get("watched")  # such a loop may take no gradient at some steps
    return [
        {
            "id": str(i),
            "cell": cell_name(run.cell(i)),
            "finished": int((cell.any(axis=1) if watched else cell.all(axis=1)).sum()),
            "samples": cell.shape[0],
            "steps": int(cell.sum()),
            "all": cell.size,
            "share": float(cell.mean()),
            "href": trajectory_state(run, i).to("trajectory", timestep=state.timestep, sample=state.sample).url(),
        }
        for i, cell in enumerate(written)
    ]


def array_rows(run: OpenRun) -> list[Row]:
    """One row for each array with its size on disk, the largest first."""
    names = sorted(map(str, run.ds.variables))
    sizes = run.memo("sizes on disk", lambda: disk_sizes(run.path, names))
    return [
        {
            "id": name,
            "name": name,
            "dims": ", ".join(str(dim) for dim in run.ds[name].dims if dim not in cell_dims(run.ds)),
            "dtype": str(run.ds[name].dtype),
            "bytes": sizes[name],
            "size": size_text(sizes[name]),
        }
        for name in sorted(names, key=lambda name: -sizes[name])
    ]


def configuration(attrs: Mapping[str, Any]) -> str:
    """The run's configuration as YAML; the stored text where that is not JSON."""
    text = str(attrs.get("configuration", ""))
    try:
        settings = json.loads(text)
    except ValueError:
        return text or "the store has none"
    out = io.StringIO()
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.dump(settings, out)
    return out.getvalue()


def _configuration(attrs: Mapping[str, Any]) -> tuple[str, Any]:
    """The caption and the content of its section."""
    if attrs.get("watched") and not attrs.get("configuration"):
        return "A watched loop has none: its settings are in its own code.", None
    caption = "With all defaults. Saved as a file, it repeats the run: gradscope record --config FILE."
    return caption, _copyable("configuration", configuration(attrs))


class _Representer(RoundTripRepresenter):
    """Writes a list on one line and None as ``null``, as people do."""


_Representer.add_representer(list, lambda r, v: r.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))
_Representer.add_representer(type(None), lambda r, v: r.represent_scalar("tag:yaml.org,2002:null", "null"))


def commands(run: OpenRun) -> str:
    """The commands that read this store, one per line."""
    path, page = shlex.quote(str(run.path)), shlex.quote(f"{run.path.stem}.html")
    return (
        f"gradscope info {path}\n"
        f"gradscope evaluate {path}\n"
        f"gradscope report {path}\n"
        f"gradscope report {path} --html {page}\n"
    )


def _provenance(run: OpenRun):
    attrs = run.ds.attrs
    rows = [("store", str(run.path))] + [(name, attrs.get(name, "")) for name in _ATTRIBUTES]
    rows += [(name, _lines(nested(attrs, name))) for name in _NESTED_ATTRIBUTES]
    rows = [(name, value) for name, value in rows if value != ""]
    return html.Dl([part for name, value in rows for part in (html.Dt(name), html.Dd(str(value)))])


def _lines(value: Any) -> str:
    return "\n".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, Mapping) else str(value)


def _section(title: str, caption: str, content: Any):
    head = html.Div(html.H2(title, className="card-title"), className="card-head")
    return html.Section([head, html.P(caption, className="caption") if caption else None, content])


def _copyable(id: str, text: str):
    """A text with a button that copies it."""
    return html.Div(
        [
            html.Button("copy", type="button", className="copy", **{"data-copy": id, "aria-label": f"copy the {id}"}),
            html.Pre(text, id=id, tabIndex=0, **{"aria-label": id}),
        ],
        className="copyable",
    )
