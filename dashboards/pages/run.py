"""What was run, with what, how far it is, and what it takes on disk."""

import io
import json
import shlex
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html
from dash import State as Unwatched
from ruamel.yaml import YAML, RoundTripRepresenter

from dashboards.data.disk import readable, sizes
from dashboards.data.library import Library, Recorded
from dashboards.state import State
from dashboards.widgets.controls import name_of
from dashboards.widgets.grid import Row, fitting, number, table, words
from dashboards.widgets.links import View, came_from, into
from gradscope.store import CELL_DIMS
from gradscope.store.attributes import nested

TITLE = "Run"
_KNOWN = ("run_id", "configuration_hash", "created", "status", "device", "threads", "schema_version", "command")
_MANY = ("versions", "weights_sha256")
PROGRESS = (
    words("cell", "cell", 190),
    number("finished", "samples", 90, "of(params.value, params.data.samples)", headerTooltip="finished"),
    number("steps", "timesteps", 110, "of(params.value, params.data.all)", headerTooltip="written, of all samples"),
    number("share", "share", 64, "percent(params.value)"),
)
ARRAYS = (
    words("name", "array", 160),
    words("over", "over", 150, headerTooltip="dimensions besides those of the cells"),
    words("dtype", "dtype", 70),
    number("bytes", "on disk", 76, "text(params.data.size)"),
)


def layout(run: Recorded, state: State):
    progress, arrays = progress_rows(run, state), array_rows(run)
    total = readable(sum(row["bytes"] for row in arrays))
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            _part(
                "Configuration",
                "The whole of it, with defaults; a file of it runs the same again: gradscope record --config FILE.",
                _copied("configuration", configuration(run.ds.attrs)),
            ),
            html.Div(
                [
                    _part("Provenance", "", _provenance(run)),
                    _part("Commands", "Run them where the store is.", _copied("commands", commands(run))),
                ],
                className="run-column",
            ),
            html.Div(
                [
                    _part(
                        "Progress", "",
                        table("progress-table", PROGRESS, progress, "progress", fitting(len(progress), 16)),
                    ),
                    _part(
                        f"On disk: {total}", "", table("arrays-table", ARRAYS, arrays, "arrays", fitting(12, 12))
                    ),
                ],
                className="run-column",
            ),
        ],
        className="run",
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    @app.callback(
        Output("progress-table", "rowData"),
        Input("version", "data"),
        Unwatched("view", "data"),
        prevent_initial_call=True,
    )
    def progress(version: str | None, view: View | None):
        return progress_rows(*came_from(library, view))


def progress_rows(run: Recorded, state: State) -> list[Row]:
    """How far each cell is; a row leads to its trajectories."""
    there = run.scalars("written")["written"].transpose(*CELL_DIMS, "sample", "timestep").values > 0
    there = there.reshape(-1, *there.shape[-2:])
    return [
        {
            "id": str(i),
            "cell": name_of(run, i),
            "finished": int(cell.all(axis=1).sum()),
            "samples": cell.shape[0],
            "steps": int(cell.sum()),
            "all": cell.size,
            "share": float(cell.mean()),
            "href": into(run, i).to("trajectory", timestep=state.timestep, sample=state.sample).url(),
        }
        for i, cell in enumerate(there)
    ]


def array_rows(run: Recorded) -> list[Row]:
    """What each array takes on disk, the largest first."""
    names = sorted(map(str, run.ds.variables))
    found = run.memo("sizes on disk", lambda: sizes(run.path, names))
    return [
        {
            "id": name,
            "name": name,
            "over": ", ".join(str(dim) for dim in run.ds[name].dims if dim not in CELL_DIMS),
            "dtype": str(run.ds[name].dtype),
            "bytes": found[name],
            "size": readable(found[name]),
        }
        for name in sorted(names, key=lambda name: -found[name])
    ]


def configuration(attrs: Mapping[str, Any]) -> str:
    """The run's configuration as YAML; as it stands in the store where that is no JSON."""
    text = str(attrs.get("configuration", ""))
    try:
        settings = json.loads(text)
    except ValueError:
        return text or "none is stored"
    out = io.StringIO()
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.dump(settings, out)
    return out.getvalue()


class _Representer(RoundTripRepresenter):
    """Lists on one line and ``null`` spelled out, as people write them."""


_Representer.add_representer(list, lambda r, v: r.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))
_Representer.add_representer(type(None), lambda r, v: r.represent_scalar("tag:yaml.org,2002:null", "null"))


def commands(run: Recorded) -> str:
    """What the command line says of this store."""
    path, page = shlex.quote(str(run.path)), shlex.quote(f"{run.path.stem}.html")
    return (
        f"gradscope info {path}\n"
        f"gradscope evaluate {path}\n"
        f"gradscope report {path}\n"
        f"gradscope report {path} --html {page}\n"
    )


def _provenance(run: Recorded):
    attrs = run.ds.attrs
    rows = [("store", str(run.path))] + [(name, attrs[name]) for name in _KNOWN if name in attrs]
    rows += [(name, _lines(nested(attrs, name))) for name in _MANY if name in attrs]
    return html.Dl([part for name, told in rows for part in (html.Dt(name), html.Dd(str(told)))])


def _lines(told: Any) -> str:
    return "\n".join(f"{name} {value}" for name, value in told.items()) if isinstance(told, Mapping) else str(told)


def _part(title: str, caption: str, content: Any):
    head = html.Div(html.H2(title, className="card-title"), className="card-head")
    return html.Section([head, html.P(caption, className="caption") if caption else None, content])


def _copied(id: str, text: str):
    """A text to be copied."""
    return html.Div(
        [
            html.Button("copy", type="button", className="copy", **{"data-copy": id, "aria-label": f"copy the {id}"}),
            html.Pre(text, id=id, tabIndex=0, **{"aria-label": id}),
        ],
        className="copied",
    )
