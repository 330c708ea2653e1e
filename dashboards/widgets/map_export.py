"""Export of maps: the menu beside them, and the routes of a tensor as npy and of a trajectory as GIF.

The browser saves pictures of the maps that it shows, see assets/map_export.js.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from dash import html
from flask import Flask, Response, current_app
from PIL import Image, ImageDraw

from dashboards.data.library import BrokenRun, Library
from dashboards.data.limits import ELEMENTS
from dashboards.data.open_run import OpenRun
from dashboards.images.tensor_reader import TensorReader
from dashboards.widgets.export import stamp
from dashboards.widgets.file_names import cell_text, safe, stem
from gradscope.errors import GradscopeError

FRAMES = 200
"""Pictures of a GIF at most; of more steps some are left out, at even distances."""
TILE = 128
"""Pixels of a tile in a GIF at least."""
PAUSE = 100
"""Milliseconds of a picture."""
STRIP = 16
"""Height in pixels of the line that says t."""


def map_menu(run: OpenRun):
    """A menu that saves the maps of the focused cell or of all cells, its tensors, and its trajectory."""
    if not run.tensors:
        return None
    pictures = [
        html.Button(f"{kind.upper()}, {words}", type="button", **{"data-maps": kind, "data-which": which})
        for which, words in (("focus", "focused cell"), ("cells", "all cells"))
        for kind in ("svg", "png")
    ]
    tensors = [
        html.Button(f"npy: {name}", type="button", **{"data-maps": "npy", "data-which": name}) for name in run.tensors
    ]
    gif = html.Button("GIF along t", type="button", **{"data-maps": "gif", "data-which": "focus"})
    names = {"data-cells": "/".join(cell_text(cell) for cell in run.cells), "data-store": stem(run.path.name)}
    return html.Details(
        [
            html.Summary("Export maps", className="export-button"),
            html.Div([*pictures, gif, *tensors], className="export-items"),
        ],
        className="export map-export",
        **{"data-stamp": stamp(run), **names},
    )


def register(server: Flask, library: Library, prefix: str) -> None:
    """Serve tensors and trajectories of a library's runs.

    ``tensors/<key>/<cell>/<sample>/<t>/<tensor>.npy``
        One tensor at a timestep as NumPy reads it, with the sample's dimensions in the order of `OpenRun.kind`.
    ``trajectories/<key>/<cell>/<sample>.gif?cells=<mask of the cell>``
        The tensors of one sample along t. Further parameters are those of ``frames``, whose route draws each picture.

    What does not exist is answered with 404 and one line.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """
    base, reader = prefix.rstrip("/"), TensorReader()

    @server.get(f"{base}/tensors/<key>/<int:cell>/<int:sample>/<int:t>/<tensor>.npy")
    def tensor_file(key: str, cell: int, sample: int, t: int, tensor: str) -> Response:
        def make(run: OpenRun) -> tuple[bytes, str]:
            if tensor not in run.tensors:
                raise GradscopeError(f"tensor {tensor[:40]!r}: one of {', '.join(run.tensors)}")
            steps = {int(run.ds["timestep"].values[step]): step for step in _kept(run, cell, sample)}
            if t not in steps:
                raise GradscopeError(f"t = {t}: no tensors of sample {sample} are recorded there")
            content = io.BytesIO()
            values = reader.rows(run, tensor, (cell,), sample, steps[t], np.ones(1, bool))[0]
            np.save(content, values, allow_pickle=False)
            return content.getvalue(), f"{tensor}_t{t}_sample{sample}.npy"

        return _answer(library, key, cell, make, "application/octet-stream")

    @server.get(f"{base}/trajectories/<key>/<int:cell>/<int:sample>.gif")
    def trajectory_file(key: str, cell: int, sample: int) -> Response:
        def make(run: OpenRun) -> tuple[bytes, str]:
            steps = _kept(run, cell, sample)
            if not steps:
                raise GradscopeError(f"sample {sample}: none of its tensors is recorded")
            return _gif(run, steps, lambda step: _drawn(key, sample, step)), f"trajectory_sample{sample}.gif"

        return _answer(library, key, cell, make, "image/gif")


def _answer(
    library: Library, key: str, cell: int, make: Callable[[OpenRun], tuple[bytes, str]], mimetype: str
) -> Response:
    try:
        run = library.runs.get(key)
        if not isinstance(run, OpenRun):
            known = run.reason if isinstance(run, BrokenRun) else f"run {key[:20]!r}: one of {', '.join(library.runs)}"
            raise GradscopeError(known)
        place = cell_text(run.cell(cell))
        content, name = make(run)
    except GradscopeError as error:
        return Response(f"{error}\n", 404, {"Cache-Control": "no-store"}, mimetype="text/plain")
    file = safe(f"{stem(run.path.name)}_{place}_{name}")
    headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename={file}"}
    return Response(content, headers=headers, mimetype=mimetype)


def _kept(run: OpenRun, cell: int, sample: int) -> list[int]:
    """Steps whose tensors are written."""
    if not 0 <= sample < run.tensor_samples:
        raise GradscopeError(f"sample {sample}: there are {run.tensor_samples} samples with tensors, from 0")
    return np.flatnonzero(run.written(cell, sample) >= 3).tolist()


def _drawn(key: str, sample: int, step: int) -> Image.Image:
    """The tiles of a step, as the request's parameters want them."""
    answer: Any = current_app.view_functions["frame"](key=key, sample=sample, step=step)
    if answer.status_code != 200:
        raise GradscopeError(answer.get_data(as_text=True).strip())
    picture = Image.open(io.BytesIO(answer.get_data())).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _gif(run: OpenRun, steps: list[int], draw: Callable[[int], Image.Image]) -> bytes:
    first = draw(steps[0])
    times = max(1, -(-TILE // first.height))
    width, height = first.width * times, first.height * times
    most = max(1, min(FRAMES, ELEMENTS // (width * height)))
    chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]

    def pictures() -> Iterator[Image.Image]:
        for step in chosen:
            page = Image.new("RGB", (width, height + STRIP), "white")
            page.paste(draw(step).resize((width, height), Image.Resampling.NEAREST))
            ImageDraw.Draw(page).text((4, height + 2), f"t = {run.ds['timestep'].values[step]:g}", fill="#1a1a1a")
            yield page.quantize(256)

    content, rest = io.BytesIO(), pictures()
    next(rest).save(
        content, "gif", save_all=True, append_images=rest, duration=PAUSE, loop=0, comment=stamp(run).encode()
    )
    return content.getvalue()
