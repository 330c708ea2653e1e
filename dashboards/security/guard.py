"""Guard of the server: it answers only its own pages, under its own host names, with bodies of a bounded size.

A page of another site must not reach the stores through a user's browser, whether or not a token is needed.

Names. Where only this machine reaches the server, it answers to loopback names and to the name it was given, on any
port, since tunnels use other ports. It refuses a name that an attacker points to 127.0.0.1 (DNS rebinding).

Origins. ``Sec-Fetch-Site`` says whether a request comes from a page of the same origin as the browser sees it, also in
front of a reverse proxy that does not pass its name on. Browsers leave it out where the page came over plain http from
another machine; old browsers always do. Then either ``Origin`` is this host, or the request carries `PAGE_HEADER`: our
pages send it, and a page of another origin cannot, since browsers first ask for a permission that is never given. A
request with none of these comes from no page, or loads a picture whose content the browser keeps from the page.
"""

import re
from collections.abc import Collection

from dash.exceptions import DashException
from flask import Flask, Response, abort, request
from werkzeug import Response as AnyResponse
from werkzeug.exceptions import HTTPException

MAX_BODY = 2 * 2**20
"""Bytes of a request's body. Pages send up to 3 kB, and almost 1 MB where 100,000 samples are selected."""
PAGE_COOKIE, PAGE_HEADER = "gradscope_page", "Gradscope-Page"
"""Dash sends the content of the cookie, which only a page of the same origin can read, in the header."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE)
_FORBIDDEN_PATH = re.compile(r"//|(^|/)\.{1,2}(/|$)|[%\\\x00-\x1f]")
"""In a path that was decoded once: browsers resolve dots, and no address here has the other characters."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Forbids the browser any request to another host."""


def register(server: Flask, prefix: str, names: Collection[str] | None = None) -> None:
    """Refuse requests that are not for this server, in one line each, and restrict the pages in the browser.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    names
        Host names that the server answers to, without ports and with IPv6 addresses in brackets; any where None.
    """
    server.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @server.before_request
    def check() -> None:
        _check_host(names)
        if _is_cross_site():
            abort(403, "this request comes from a page of another site; open the dashboard in a tab of its own")
        if _FORBIDDEN_PATH.search(request.path):
            abort(404, "there is nothing at this address")
        if (request.content_length or 0) > MAX_BODY:
            abort(413, f"a body of {request.content_length} bytes; at most {MAX_BODY}")

    @server.errorhandler(HTTPException)
    def as_text(error: HTTPException) -> AnyResponse:
        response = error.get_response(request.environ)
        if response.status_code >= 400:
            response.data = f"{error.description}\n"
            response.headers |= {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        return response

    @server.errorhandler(DashException)
    def unknown(_: DashException) -> Response:
        """Packages and files that Dash does not have."""
        return Response("there is nothing at this address\n", 404, mimetype="text/plain")

    @server.after_request
    def restrict(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        if response.mimetype == "text/html":
            response.set_cookie(PAGE_COOKIE, "1", path=prefix, samesite="Strict")
        return response


def local_names(host: str) -> frozenset[str]:
    """The names of a server that listens on `host`, which only this machine reaches."""
    return LOOPBACK | {f"[{host}]" if ":" in host else host.lower()}


def _check_host(names: Collection[str] | None) -> None:
    host = request.environ.get("HTTP_HOST", "")
    found = _HOST.fullmatch(host)
    if found is None:
        abort(400, f"Host {host[:60]!r} is not the name of a host")
    if names is not None and found[1].lower() not in names:
        abort(
            421,
            f"this dashboard listens on its own machine only, and {found[1]!r} is not a name of it: use "
            f"{' or '.join(sorted(names))}, through a tunnel too; a reverse proxy sends one of these as Host "
            "(nginx's proxy_pass does by default)",
        )


def _is_cross_site() -> bool:
    """Whether a request comes from a page of another origin, unless it follows a link."""
    sent = request.headers
    if (site := sent.get("Sec-Fetch-Site")) is not None:
        followed = sent.get("Sec-Fetch-Mode") == "navigate" and sent.get("Sec-Fetch-Dest") == "document"
        return site not in ("same-origin", "none") and not (followed and request.method in ("GET", "HEAD"))
    if (origin := sent.get("Origin")) is None or PAGE_HEADER in sent:
        return False
    return origin.partition("://")[2].lower() != sent.get("Host", "").lower()
