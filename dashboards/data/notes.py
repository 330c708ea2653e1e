"""Notes: short texts on views of a store, kept in a file beside it. The store itself is never written."""

import json
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from dashboards.data.remote import StoreAddress
from gradscope.errors import GradscopeError
from gradscope.store.locations.files import regular, replace_file

TEXT_MAX = 2000
"""Characters of a note."""
NOTES_MAX = 500
"""Notes of a store."""
FILE_MAX = 4 * 2**20
"""Bytes of the file that are read."""
_LOCK = Lock()

ViewText = Annotated[str, Field(max_length=2000, pattern=r"^[a-z]+\?[\w=&,.%+~-]*$")]
"""Relative address of a view. It has no colon, so it cannot be a script or another site."""


class Note(BaseModel, extra="forbid"):
    """One note."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    view: ViewText
    text: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
    written: Annotated[str, Field(max_length=40)]
    """When, in ISO 8601."""


class _File(BaseModel, extra="forbid"):
    notes: Annotated[list[Note], Field(max_length=NOTES_MAX)]


def notes_file(store: StoreAddress) -> Path:
    """The file with the notes of a store: ``runs/both.zarr.notes.json`` of ``runs/both.zarr``.

    Raises
    ------
    GradscopeError
        The store lies in an object store.
    """
    if not isinstance(store, Path):
        raise GradscopeError("Notes are kept beside stores on this machine; this one lies in an object store.")
    return store.with_name(f"{store.name}.notes.json")


def why_no_notes(store: StoreAddress) -> str:
    """Why no note can be written; empty if one can."""
    folder = notes_file(store).parent
    return "" if os.access(folder, os.W_OK) else f"Notes are kept beside the store, and {folder} cannot be written."


def read_notes(store: StoreAddress) -> list[Note]:
    """The notes of a store, the oldest first; none where there is no file.

    Raises
    ------
    GradscopeError
        The file is not one of notes.
    """
    file = notes_file(store)
    try:
        with regular(file) as content:
            text = content.read(FILE_MAX + 1)
        if len(text) > FILE_MAX:
            raise GradscopeError(f"{file} has more than {FILE_MAX} bytes: not a file of notes")
        return _File.model_validate_json(text).notes
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GradscopeError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise GradscopeError(f"{file} is not a file of notes: {place}: {first['msg']}") from error


def add_note(store: StoreAddress, view: str, text: str) -> list[Note]:
    """Keep a note on a view; the notes then.

    Raises
    ------
    GradscopeError
        There are too many notes, or the file cannot be read or written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with _LOCK:
        before = read_notes(store)
        if len(before) >= NOTES_MAX:
            raise GradscopeError(f"{store.name} has {NOTES_MAX} notes already; delete one")
        return _write(store, [*before, Note(id=secrets.token_hex(8), view=view, text=text, written=now)])


def delete_note(store: StoreAddress, id: str) -> list[Note]:
    """Remove a note; the notes then. GradscopeError where the file cannot be read or written."""
    with _LOCK:
        return _write(store, [note for note in read_notes(store) if note.id != id])


def _write(store: StoreAddress, notes: Sequence[Note]) -> list[Note]:
    file = notes_file(store)
    text = json.dumps({"notes": [note.model_dump() for note in notes]}, indent=1, ensure_ascii=False)
    try:
        replace_file(file, f"{text}\n".encode(), durable=True)
    except OSError as error:
        raise GradscopeError(f"{file} cannot be written: {error.strerror}") from error
    return list(notes)
