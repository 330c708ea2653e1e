"""Many and slow connections, by real sockets."""

import contextlib
import select
import socket
import threading
import time

import pytest

from dashboards.security import connections

LIMIT = 0.6
"""Seconds in place of 10."""


def application(environ, start_response):
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"here"]


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(connections, "HEADERS", LIMIT)
    monkeypatch.setattr(connections, "BODY", LIMIT)
    server, port = connections.listen(application, "0.0.0.0", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield port
    server.task_dispatcher.shutdown()
    server.close()


@pytest.fixture
def connect(port):
    """Opens a connection from an address of this machine: ``connect("127.0.0.2")``."""
    with contextlib.ExitStack() as opened:

        def go(address="127.0.0.1"):
            connection = socket.socket()
            connection.settimeout(5)
            connection.bind((address, 0))
            connection.connect(("127.0.0.1", port))
            return opened.enter_context(connection)

        yield go


def ask(connection, path="/"):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return answered(connection)


def answered(connection):
    """Whether a whole answer comes."""
    got = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while not got.endswith(b"here") and (more := connection.recv(4096)):
            got += more
    return got.startswith(b"HTTP/1.1 200") and got.endswith(b"here")


def ended_after(connection):
    """Seconds until the server closes a connection."""
    start = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return time.monotonic() - start


def still_open(sockets):
    """Those that the server did not close."""
    ended, _, _ = select.select(sockets, [], [], 0.2)
    return [connection for connection in sockets if connection not in ended]


def test_500_idle_connections_of_one_client_keep_nobody_out(connect, monkeypatch):
    monkeypatch.setattr(connections, "HEADERS", 60)
    idle = [connect("127.0.0.9") for _ in range(500)]
    start = time.monotonic()
    assert ask(connect("127.0.0.1"))
    assert ask(connect("127.0.0.9"))  # nor that client
    assert time.monotonic() - start < 2
    latest = idle[-connections.PER_MACHINE + 1 :]  # one gave way
    assert still_open(idle) == latest


def test_the_connection_that_was_idle_longest_ends(connect, monkeypatch):
    monkeypatch.setattr(connections, "PER_MACHINE", 3)
    first, second, third = connect(), connect(), connect()
    for connection in (second, first, third):
        assert ask(connection)
        time.sleep(0.02)
    fourth = connect()
    assert ask(fourth)
    assert ended_after(second) < 2
    assert ask(first)
    assert ask(third)


@pytest.mark.slow
def test_a_connection_with_a_request_in_progress_does_not_end(connect, monkeypatch):
    monkeypatch.setattr(connections, "PER_MACHINE", 2)
    busy = [connect(), connect()]
    for connection in busy:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.2)
    assert ended_after(connect()) < 0.9  # the new one ends: there is no idle one
    assert all(map(answered, busy))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_slow_headers_end(connect, sent):
    connection = connect()
    connection.sendall(sent)
    assert LIMIT - 0.1 < ended_after(connection) < LIMIT + 2.5


@pytest.mark.slow
def test_bytes_that_trickle_do_not_help(connect):
    connection = connect()
    start = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for letter in b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40:
            connection.sendall(bytes([letter]))
            time.sleep(0.1)
    assert LIMIT - 0.1 < time.monotonic() - start < LIMIT + 3


@pytest.mark.slow
def test_between_requests_a_connection_may_be_idle_for_longer(connect):
    connection = connect()
    assert ask(connection)
    time.sleep(LIMIT + 1.5)
    assert still_open([connection])
    connection.sendall(b"GET")
    assert LIMIT - 0.1 < ended_after(connection) < LIMIT + 2.5


@pytest.mark.slow
def test_a_body_may_take_longer_but_not_for_ever(connect):
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx")
    assert 2 * LIMIT - 0.1 < ended_after(connection) < 2 * LIMIT + 2.5


@pytest.mark.slow
def test_a_slow_answer_is_not_a_slow_request(connect):
    assert ask(connect(), "/slow")  # takes longer than the headers may


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("localhost", "localhost"),
        ("::1", "::"),
    ],
)
def test_which_addresses_are_one_client(address, client):
    assert connections.client_of(address) == client


def test_this_machine_which_tunnels_and_proxies_use_may_have_more():
    limits = {address: connections.limit_of(connections.client_of(address)) for address in ("192.0.2.7", "2001:db8::1")}
    assert set(limits.values()) == {connections.PER_CLIENT}
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert connections.limit_of(connections.client_of(address)) == connections.PER_MACHINE
    assert connections.PER_MACHINE + 2 * connections.PER_CLIENT < connections.CONNECTIONS


def test_a_name_with_two_addresses_is_served_at_one_port(monkeypatch):
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]

    class Two(connections.Adjustments):
        def __init__(self, **options):
            super().__init__(**options)
            self.listen = both

    monkeypatch.setattr(connections, "Adjustments", Two)
    server, port = connections.listen(application, "localhost", 0)
    threading.Thread(target=server.run, daemon=True).start()
    for _, _, _, (address, _) in both:
        with socket.create_connection((address, port), timeout=5) as connection:
            assert ask(connection)
    server.task_dispatcher.shutdown()
    server.close()
