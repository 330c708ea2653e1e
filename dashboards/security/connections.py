"""Connections: waitress, with a limit for each client and on the time that a request may take to arrive.

One client cannot keep others out by many connections or by slow requests. At a client's limit its
connection that was idle longest ends in favour of the new one, so that users who share an address are served too.
"""

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from dashboards.security.guard import MAX_BODY

THREADS = 8
CONNECTIONS = 500
"""Open connections of all clients."""
PER_CLIENT = 64
"""Open connections of one client; a browser keeps six."""
PER_MACHINE = 256
"""Open connections from this machine's own addresses: tunnels and reverse proxies bring the users of many browsers."""
HEADERS = 10
"""Seconds in which a connection's first bytes, and the headers of each request, have to arrive."""
BODY = 60
"""Seconds in which the rest of a request has to arrive."""


class Channel(HTTPChannel):
    """One connection."""

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        super().__init__(server, sock, addr, adj, map)
        self.client = client_of(addr[0])
        self.since: float | None = self.creation_time
        """When the request that is arriving began; None between two requests."""
        others = [each for each in tuple(map.values()) if isinstance(each, Channel) and each.client == self.client]
        open_ = [each for each in others if not each.will_close and each is not self]
        if len(open_) >= limit_of(self.client):
            idle = [each for each in open_ if not each.requests and not each.total_outbufs_len]
            min(idle, key=lambda each: each.last_activity, default=self).will_close = True

    def received(self, data: bytes) -> bool:
        before = self.request
        went_on: bool = super().received(data)
        if self.request is not before:
            self.since = time.time()
        if self.request is None:
            self.since = None
        return went_on

    def is_late(self, now: float) -> bool:
        """Whether a request takes too long to arrive."""
        if self.since is None or self.requests:
            return False
        in_body = self.request is not None and self.request.headers_finished
        return now - self.since > (HEADERS + BODY if in_body else HEADERS)


class Server(TcpWSGIServer):
    """waitress's server of one address."""

    channel_class = Channel

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in tuple(self.active_channels.values()):
            channel.will_close = channel.will_close or channel.is_late(now)


def listen(application: Callable[..., Any], host: str, port: int) -> tuple[Server, int]:
    """A server that listens on all addresses of a host, and its port; ``run()`` serves.

    Raises
    ------
    OSError
        Another program uses the port, or the address is not one of this machine.
    """
    adjusted = Adjustments(
        host=host,
        port=port,
        ident="gradscope",
        max_request_body_size=MAX_BODY,
        connection_limit=CONNECTIONS,
        cleanup_interval=1,
        asyncore_use_poll=True,
    )
    dispatcher = ThreadedTaskDispatcher()
    sockets: dict[int, Any] = {}
    for family, kind, protocol, address in adjusted.listen:
        if sockets:  # the first one may have chosen a free port, which the others share
            address = (address[0], port, *address[2:])
        sockinfo = (family, kind, protocol, address)
        server = Server(application, sockets, dispatcher=dispatcher, adj=adjusted, sockinfo=sockinfo)
        port = int(server.effective_port)
    dispatcher.set_thread_count(THREADS)
    return server, port


def limit_of(client: str) -> int:
    """Open connections that a client may have."""
    return PER_MACHINE if client == "::" or client.startswith("127.") else PER_CLIENT


def client_of(address: str) -> str:
    """What counts as one client: an IPv4 address; of IPv6 the network, as one machine has all addresses of it."""
    try:
        number = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(number, IPv6Address):
        return address
    return str(number.ipv4_mapped or IPv6Address(int(number) >> 64 << 64))
