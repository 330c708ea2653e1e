"""The server: waitress serves the dashboard on this machine."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import waitress

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.security import guard
from gradscope.errors import GradscopeError

THREADS = 8
CONNECTIONS = 500
"""Open connections; a browser keeps six."""
LIMITS = {"max_request_body_size": guard.MAX_BODY, "connection_limit": CONNECTIONS, "asyncore_use_poll": True}


def serve(stores: Sequence[Path], host: str, port: int, prefix: str = "/", tell: Callable[[str], None] = print) -> None:
    """Serve the dashboard until interrupted.

    Parameters
    ----------
    stores
        Paths of recorded stores.
    host, port
        Address to listen on; port 0 is any free one.
    prefix
        Path of the app behind a reverse proxy.
    tell
        Called with each message for the user.

    Raises
    ------
    GradscopeError
        Another program uses the address, or it is not one of this machine.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each request that waits for a thread
    library = Library(stores)
    app = app_of(library, prefix, guard.local_names(host) if is_local(host) else None)
    try:
        server = waitress.create_server(app.server, host=host, port=port, threads=THREADS, ident="gradscope", **LIMITS)
    except OSError as error:
        raise GradscopeError(f"--host {host} --port {port}: {error.strerror or error}; try another --port") from error
    port = server.effective_port
    if not is_local(host):
        tell(
            f"warning: {host} opens the dashboard to other machines: anyone who reaches port {port} can read these "
            "stores, without a password. Prefer an SSH tunnel, or a reverse proxy with a password"
        )
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    tell(f"gradscope dashboard: http://{f'[{shown}]' if ':' in shown else shown}:{port}{prefix}  (Ctrl-C ends it)")
    threading.Thread(target=lambda: library.runs, daemon=True).start()  # open stores while the browser loads the page
    server.run()


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return all(ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host or "0.0.0.0", None))
    except (OSError, ValueError):
        return False
