"""Pictures over HTTP: sprites of tensors and of final images.

Only keys of the library, numbers and two words are taken from a request: no path reaches the file system.
"""

import re
from collections.abc import Callable

from flask import Flask, Response, request

from dashboards.data.library import Broken, Library
from dashboards.data.recorded import Recorded
from dashboards.images.tiles import Images, Picture
from dashboards.state import LIMITS, SHOWN_MOST, unmask
from gradscope.errors import GradscopeError

_FOREVER = "public, max-age=31536000, immutable"


def register(server: Flask, library: Library, prefix: str) -> None:
    """Serve the pictures of a library's runs.

    ``frames/<key>/<sample>/<step>.png?cells=<mask>&limits=shared|cell``
        See `Images.frame`; the mask is hexadecimal, its bit i stands for cell i. What the tiles hold is in the header
        ``Gradscope-Frame``.
    ``thumbnails/<key>/<cell>.png?samples=<first>-<last>``
        See `Images.thumbnails`.

    Pictures of which every tile is written may be kept for ever, so a page should add something to the address that
    changes with what it shows, ``&v=<version>``; others are not kept. What does not exist is answered by 404 and a line
    of text.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """
    images = Images()
    base = prefix.rstrip("/")

    @server.get(f"{base}/frames/<key>/<int:sample>/<int:step>.png")
    def frame(key: str, sample: int, step: int) -> Response:
        def draw() -> Picture:
            limits = request.args.get("limits", LIMITS[0])
            if limits not in LIMITS:
                raise GradscopeError(f"limits {limits[:20]!r}: one of {', '.join(LIMITS)}")
            return images.frame(_run(library, key), sample, step, _cells(request.args.get("cells", "")), limits)

        return _answer(draw)

    @server.get(f"{base}/thumbnails/<key>/<int:cell>.png")
    def thumbnails(key: str, cell: int) -> Response:
        def draw() -> Picture:
            samples = request.args.get("samples", "")
            if not (found := re.fullmatch(r"(\d{1,9})-(\d{1,9})", samples)):
                raise GradscopeError(f"samples {samples[:20]!r}: the first and the last, such as 0-63")
            return images.thumbnails(_run(library, key), cell, int(found[1]), int(found[2]))

        return _answer(draw)


def _answer(draw: Callable[[], Picture]) -> Response:
    try:
        picture = draw()
    except GradscopeError as error:
        return Response(f"{error}\n", 404, {"Cache-Control": "no-store"}, mimetype="text/plain")
    headers = {"Cache-Control": _FOREVER if picture.complete else "no-store"}
    if picture.about:
        headers["Gradscope-Frame"] = picture.about
    return Response(picture.png, headers=headers, mimetype="image/png")


def _run(library: Library, key: str) -> Recorded:
    run = library.runs.get(key)
    if run is None:
        raise GradscopeError(f"run {key[:20]!r}: one of {', '.join(library.runs)}")
    if isinstance(run, Broken):
        raise GradscopeError(run.reason)
    return run


def _cells(text: str) -> tuple[int, ...]:
    try:
        cells = unmask(text)
    except ValueError:
        cells = ()
    if not 1 <= len(cells) <= SHOWN_MOST:
        raise GradscopeError(f"cells {text[:20]!r}: a hexadecimal number with 1 to {SHOWN_MOST} bits set")
    return cells
