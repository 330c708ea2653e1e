"""The menu of notes in the header: those of the store, and a field for one on the view that is shown."""

from collections.abc import Sequence
from typing import Annotated

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from pydantic import BaseModel, Field

from dashboards.data.library import Library
from dashboards.data.notes import TEXT_MAX, Note, ViewText, add_note, delete_note, read_notes, why_no_notes
from dashboards.data.remote import StoreAddress
from dashboards.widgets.links import View
from gradscope.errors import GradscopeError


class Change(BaseModel, extra="forbid"):
    """A note to add or to delete: content of the dcc.Store ``note-change``."""

    view: ViewText | None = None
    text: Annotated[str, Field(max_length=TEXT_MAX)] = ""
    delete: Annotated[str, Field(max_length=16)] = ""


def notes_menu() -> html.Details:
    """The menu; `register` fills it."""
    return html.Details(
        [
            html.Summary("Notes", id="notes-count", className="export-button"),
            html.Div(
                [
                    html.P(id="notes-reason", className="caption"),
                    html.Div(
                        [
                            html.Label("a note on this view", htmlFor="note-text"),
                            dcc.Textarea(id="note-text", maxLength=TEXT_MAX),
                            html.Button("Keep the note", id="note-add", type="button"),
                        ],
                        id="note-new",
                    ),
                    html.Ul(id="notes", className="notes"),
                    dcc.Store(id="note-change"),
                ],
                className="export-items",
            ),
        ],
        className="export notes-menu",
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the menu."""
    app.clientside_callback(
        ClientsideFunction("gradscope_notes", "add"),
        Output("note-change", "data"),
        Output("note-text", "value"),
        Input("note-add", "n_clicks"),
        State("note-text", "value"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("notes", "children"),
        Output("notes-count", "children"),
        Output("notes-reason", "children"),
        Output("note-new", "hidden"),
        Input("note-change", "data"),
        Input("view", "data"),
    )
    def show(change: Change | None, view: View | None):
        if view is None:
            return (no_update,) * 4
        path = library.run(view.store).path
        try:
            if change is not None and ctx.triggered_id == "note-change":
                notes = _changed(path, change)
            else:
                notes = read_notes(path)
        except GradscopeError as error:
            return [], "Notes", str(error), True
        reason = why_no_notes(path)
        return [_item(note) for note in notes], f"Notes ({len(notes)})" if notes else "Notes", reason, bool(reason)


def _changed(path: StoreAddress, change: Change) -> Sequence[Note]:
    if change.delete:
        return delete_note(path, change.delete)
    text = change.text.strip()
    return add_note(path, change.view, text) if change.view and text else read_notes(path)


def _item(note: Note) -> html.Li:
    page = note.view.partition("?")[0]
    return html.Li(
        [
            html.Div(note.text, className="note-text"),
            html.A(f"{page}, {note.written[:10]}", href=note.view, className="view-link"),
            html.Button("delete", type="button", **{"data-note": note.id, "aria-label": f"delete: {note.text[:40]}"}),
        ]
    )
