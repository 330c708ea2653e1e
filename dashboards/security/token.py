"""The token: a secret that a visitor's first address carries, and afterwards a cookie.

The answer to the first visit is a page that opens the same address without the token, so that it stays neither in the
address bar nor in the history. A redirect would not do: browsers send no `SameSite=Strict` cookie with one that starts
at a link on another site. For the same reason a visit by such a link is opened once more, from a page of ours.
"""

import hmac
import re
import secrets
from hashlib import sha256
from html import escape
from urllib.parse import quote, urlencode

from flask import Flask, Response, abort, request

from gradscope.errors import GradscopeError

LEAST = 8
"""Characters of a token that the user chooses."""


def generated() -> str:
    """A random token of 256 bits."""
    return secrets.token_urlsafe(32)


def check(token: str) -> str:
    """Return the token.

    Raises
    ------
    GradscopeError
        It is too short, or has characters that an address would change.
    """
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{LEAST},200}}", token):
        raise GradscopeError(f"--token: at least {LEAST} letters, digits, - or _ are needed")
    return token


def register(server: Flask, prefix: str, token: str) -> None:
    """Answer 401 and one line to requests that carry the token neither in a cookie nor as ``?token=``.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """
    digest = sha256(token.encode()).hexdigest()
    # Cookies do not know ports: the name keeps two dashboards on one host apart. The value hides the token.
    name, value = f"gradscope_{digest[:8]}", sha256(f"cookie {token}".encode()).hexdigest()

    @server.before_request
    def ask() -> Response | None:
        given = request.args.get("token")
        if given is not None and request.method == "GET" and _same(given, token):
            answer = _open(_without_token())
            answer.set_cookie(name, value, path=prefix, httponly=True, samesite="Strict")
            return answer
        if _same(request.cookies.get(name, ""), value):
            return None
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and request.method == "GET":
            return _open(_without_token())
        wrong = "this is not the token of this dashboard" if given is not None else "this dashboard needs its token"
        abort(
            401,
            f"{wrong}: open the address with ?token= that `gradscope dashboard` printed; after a link from another "
            "page, press Enter in the address bar",
        )

    @server.after_request
    def keep_private(response: Response) -> Response:
        """No cache that several users share may keep an answer."""
        if response.cache_control.public:
            response.cache_control.public = False
            response.cache_control.private = True
        return response


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _without_token() -> str:
    """The address of the request, relative to its host, without a token."""
    query = [(key, value) for key, value in request.args.items(multi=True) if key != "token"]
    return quote(request.path) + (f"?{urlencode(query, safe=',')}" if query else "")


def _open(address: str) -> Response:
    """A page that opens another one of this host in its place."""
    page = f'<!DOCTYPE html><title>gradscope</title><meta http-equiv="refresh" content="0; url={escape(address)}">'
    return Response(page, headers={"Cache-Control": "no-store"}, mimetype="text/html")
