"""HTTP routes of the pictures: sprites of tensors and of final images.

A request names a run by its key, numbers and two words; nothing in it reaches the file system.
"""

import json
import re
from collections.abc import Callable, Sequence

import numpy as np
from flask import Flask, Response, request

from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Picture, Tiles
from dashboards.state import CELLS_MAX, LIMITS, SCALES, channels, unmask
from gradscope.errors import GradscopeError

_FOREVER = "public, max-age=31536000, immutable"


def register(server: Flask, library: Library, prefix: str) -> None:
    """Serve the pictures of a library's runs.

    ``frames/<key>/<sample>/<step>.png?cells=<mask>&limits=cell|shared|fixed&scale=linear|log&channel=mean|<number>``
        See `Tiles.frame`; bit i of the hexadecimal mask stands for cell i. The header ``Gradscope-Frame`` describes
        the tiles.
    ``values/<key>/<sample>/<step>/<cell>/<tensor>``
        See `Tiles.values`: the numbers as bytes, little-endian and in C order. The header ``Gradscope-Tensor`` has
        their ``shape`` and ``dtype``.
    ``thumbnails/<key>/<cell>.png?samples=<first>-<last>``
        See `Tiles.thumbnails`.

    Browsers may keep a picture for ever once all its tiles are written, so a page adds ``&v=<version>`` to the
    address; other pictures are not kept. An unknown picture is answered with 404 and one line.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """
    tiles = Tiles()
    base = prefix.rstrip("/")

    @server.get(f"{base}/frames/<key>/<int:sample>/<int:step>.png")
    def frame(key: str, sample: int, step: int) -> Response:
        def draw() -> Picture:
            run, cells = _run(library, key), _cells(request.args.get("cells", ""))
            limits, scale = _word("limits", LIMITS), _word("scale", SCALES)
            channel = _word("channel", channels(run))
            return tiles.frame(run, sample, step, cells, limits, scale, None if channel == "mean" else int(channel))

        return _answer(draw)

    @server.get(f"{base}/values/<key>/<int:sample>/<int:step>/<int:cell>/<tensor>")
    def values(key: str, sample: int, step: int, cell: int, tensor: str) -> Response:
        try:
            found = tiles.values(_run(library, key), tensor, cell, sample, step)
        except GradscopeError as error:
            return _refused(error)
        wide = np.promote_types(found.dtype, np.float32)  # browsers have no half precision
        stored = np.ascontiguousarray(found, dtype=wide.newbyteorder("<"))
        about = json.dumps({"shape": stored.shape, "dtype": stored.dtype.str})
        headers = {"Cache-Control": _FOREVER, "Gradscope-Tensor": about}
        return Response(stored.tobytes(), headers=headers, mimetype="application/octet-stream")

    @server.get(f"{base}/thumbnails/<key>/<int:cell>.png")
    def thumbnails(key: str, cell: int) -> Response:
        def draw() -> Picture:
            samples = request.args.get("samples", "")
            if not (found := re.fullmatch(r"(\d{1,9})-(\d{1,9})", samples)):
                raise GradscopeError(f"samples {samples[:20]!r}: the first and the last, such as 0-63")
            return tiles.thumbnails(_run(library, key), cell, int(found[1]), int(found[2]))

        return _answer(draw)


def _answer(draw: Callable[[], Picture]) -> Response:
    try:
        picture = draw()
    except GradscopeError as error:
        return _refused(error)
    headers = {"Cache-Control": _FOREVER if picture.complete else "no-store"}
    if picture.description:
        headers["Gradscope-Frame"] = picture.description
    return Response(picture.png, headers=headers, mimetype="image/png")


def _refused(error: GradscopeError) -> Response:
    return Response(f"{error}\n", 404, {"Cache-Control": "no-store"}, mimetype="text/plain")


def _word(name: str, choices: Sequence[str]) -> str:
    """A word of the query, by default the first choice."""
    word = request.args.get(name, choices[0])
    if word not in choices:
        raise GradscopeError(f"{name} {word[:20]!r}: one of {', '.join(choices)}")
    return word


def _run(library: Library, key: str) -> OpenRun:
    run = library.runs.get(key)
    if run is None:
        raise GradscopeError(f"run {key[:20]!r}: one of {', '.join(library.runs)}")
    if not isinstance(run, OpenRun):
        raise GradscopeError(run.reason if isinstance(run, BrokenRun) else f"{run.path} holds no samples")
    return run


def _cells(text: str) -> tuple[int, ...]:
    try:
        cells = unmask(text)
    except ValueError:
        cells = ()
    if not 1 <= len(cells) <= CELLS_MAX:
        raise GradscopeError(f"cells {text[:20]!r}: a hexadecimal number with 1 to {CELLS_MAX} bits set")
    return cells
