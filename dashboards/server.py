"""The server: waitress serves the dashboard on this machine."""

import ctypes
import logging
import platform
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.data.remote import exists, store_address
from dashboards.security import connections, guard
from dashboards.security import token as tokens
from gradscope.errors import GradscopeError


def serve(
    stores: Sequence[str | Path],
    host: str,
    port: int,
    prefix: str = "/",
    tell: Callable[[str], None] = print,
    token: str | None = None,
    no_token: bool = False,
) -> None:
    """Serve the dashboard until interrupted.

    Parameters
    ----------
    stores
        Paths or URLs of recorded stores.
    host, port
        Address to listen on; port 0 is any free one.
    prefix
        Path of the app behind a reverse proxy.
    tell
        Called with each message for the user.
    token
        What visitors have to know. Where it is None and other machines reach the address, one is generated and printed.
    no_token
        Let everyone in who reaches the address.

    Raises
    ------
    GradscopeError
        A store does not exist, the address is in use or not one of this machine, or the token is too short.
    """
    if token is not None and no_token:
        raise GradscopeError("--no-token: a token is given, by --token or GRADSCOPE_TOKEN; leave out one of them")
    local = is_local(host)
    secret = tokens.check(token) if token is not None else None if local or no_token else tokens.generated()
    _share_freed_memory()
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each request that waits for a thread
    addresses = [store_address(store) for store in stores]
    if missing := [store for store in addresses if not exists(store)]:
        raise GradscopeError(f"{missing[0]} does not exist")
    library = Library(addresses)
    app = app_of(library, prefix, guard.local_names(host) if local else None, secret)
    try:
        server, port = connections.listen(app.server, host, port)
    except (OSError, ValueError) as error:  # waitress raises ValueError for an unknown name
        why = "no machine of this name is known" if isinstance(error, ValueError) else error.strerror or str(error)
        raise GradscopeError(f"--host {host} --port {port}: {why}; try another --host or --port") from error
    if not local and secret is None:
        tell(
            f"warning: {host} without a token: anyone who reaches port {port} of this machine can read these stores. "
            "Leave out --no-token, or prefer an SSH tunnel or a reverse proxy with a password"
        )
    everywhere = host in ("", "0.0.0.0", "::")
    shown = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
    # A generated token is needed to open the page; a chosen one is known already, and stays out of logs.
    query = "" if secret is None else f"?token={secret if token is None else '...'}"
    elsewhere = "from another machine: its name in place of 127.0.0.1; " if everywhere else ""
    tell(f"gradscope dashboard: http://{shown}:{port}{prefix}{query}  ({elsewhere}Ctrl-C ends it)")
    threading.Thread(target=lambda: library.runs, daemon=True).start()  # open stores while the browser loads the page
    server.run()


def _share_freed_memory() -> None:
    """Let all threads take memory from two pools: by default each has its own, which keeps what others could use."""
    if platform.libc_ver()[0] == "glibc":
        arena_max = -8  # M_ARENA_MAX of malloc.h
        ctypes.CDLL(None).mallopt(arena_max, 2)


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return all(ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host or "0.0.0.0", None))
    except (OSError, ValueError):
        return False
