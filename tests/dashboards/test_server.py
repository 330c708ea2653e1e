"""The server: its address, and requests that no browser sends."""

import contextlib
import http.client
import platform
import socket
import subprocess
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

import pytest

from dashboards import serve
from dashboards.security import connections, guard
from dashboards.server import is_local
from gradscope.errors import GradscopeError


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("", False)])
def test_which_addresses_only_this_machine_reaches(host, local):
    assert is_local(host) == local


def test_a_port_in_use_is_an_error(stored):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GradscopeError, match=f"--port {port}: .*another --host or --port"):
            serve([stored], "127.0.0.1", port)


def test_a_store_that_does_not_exist_is_an_error_at_the_start(stored, tmp_path):
    with pytest.raises(GradscopeError, match=f"{tmp_path / 'nothing.zarr'} does not exist"):
        serve([stored, tmp_path / "nothing.zarr"], "127.0.0.1", 0)


def test_an_unknown_host_is_an_error(stored):
    with pytest.raises(GradscopeError, match="--host nowhere.invalid --port 0: no machine of this name is known"):
        serve([stored], "nowhere.invalid", 0, no_token=True)


@pytest.fixture(scope="module")
def url(stored):
    """URL of a server that only this machine reaches."""
    messages = []
    started = threading.Event()

    def tell(text):
        messages.append(text)
        started.set()

    threading.Thread(target=serve, args=([stored], "127.0.0.1", 0), kwargs={"tell": tell}, daemon=True).start()
    assert started.wait(20)
    return messages[0].split()[2]


def raw(url, head, body=b""):
    """Send bytes as they are; the status, the content's type and the content of the answer."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=20) as connection:
        connection.sendall(head.encode("latin-1") + b"\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not listen to the end
            connection.sendall(body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers.get_content_type(), answer.read().decode()


def test_it_serves_at_the_printed_address(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "<title>gradscope</title>" in page
    assert '<html lang="en">' in page
    assert "default-src 'self'" in policy


ASK = "POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (f"{ASK}Content-Length: {10**12}", b"", 413),
        (f"{ASK}Content-Length: {guard.MAX_BODY + 1}", b"x" * (guard.MAX_BODY + 1), 413),
        (f"{ASK}Transfer-Encoding: chunked", (b"10000\r\n" + b"[" * 2**16 + b"\r\n") * 40 + b"0\r\n\r\n", 413),
        (f"{ASK}Transfer-Encoding: chunked", b"3\r\n{}x\r\n0\r\n\r\n", 400),
        (f"{ASK}Transfer-Encoding: chunked", b"zz\r\n", 400),
        (f"{ASK}Content-Length: -1", b"", 400),
        (f"{ASK}Content-Length: 2\r\nContent-Length: 3", b"{}x", 400),
        ("GET / HTTP/1.1", b"", 400),  # no Host
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test", b"", 400),
        ("GET / HTTP/1.1\r\nHost: evil.test", b"", 421),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test", b"", 421),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost", b"", 404),
        ("GET /assets/%2e%2e%2fapp.py HTTP/1.1\r\nHost: localhost", b"", 404),
        ("GET /assets/\xff\xfe.js HTTP/1.1\r\nHost: localhost", b"", 400),
        ("GET /%ff%fe/.. HTTP/1.1\r\nHost: localhost", b"", 404),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 300_000, b"", 431),
        ("BREW / HTTP/1.1\r\nHost: localhost", b"", 405),
    ],
)
def test_bytes_that_no_browser_sends_are_refused_in_text(url, head, body, status):
    got, kind, text = raw(url, head, body)
    assert (got, kind) == (status, "text/plain")
    assert "Traceback" not in text
    assert "root:" not in text


def test_a_name_of_this_machine_is_accepted_on_any_port(url):
    for host in ("localhost", "127.0.0.1:9000", "[::1]:80"):
        assert raw(url, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close")[0] == 200


@pytest.fixture
def said(stored, monkeypatch):
    """What `serve` prints, without serving: ``said(host, token=..., no_token=...)``."""

    class Server:
        def run(self):
            pass

    monkeypatch.setattr(connections, "listen", lambda application, host, port: (Server(), port))

    def go(host, **options):
        messages = []
        serve([stored], host, 1234, "/p/", messages.append, **options)
        return messages

    return go


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("192.0.2.7", "192.0.2.7")])
def test_where_others_reach_it_a_new_token_is_printed_with_the_address(said, host, shown):
    (first,), (second,) = said(host), said(host)
    start = f"gradscope dashboard: http://{shown}:1234/p/?token="
    assert first.startswith(start)
    tokens = [text.removeprefix(start).split()[0] for text in (first, second)]
    assert tokens[0] != tokens[1]
    assert all(len(token) >= 43 for token in tokens)  # 256 bits in base 64
    assert ("from another machine" in first) == (shown == "127.0.0.1")


def test_without_a_token_it_warns(said):
    warning, address = said("0.0.0.0", no_token=True)
    assert warning.startswith("warning: 0.0.0.0 without a token: anyone who reaches port 1234")
    assert "token" not in address


def test_this_machine_alone_needs_no_token(said):
    assert said("127.0.0.1") == ["gradscope dashboard: http://127.0.0.1:1234/p/  (Ctrl-C ends it)"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_chosen_token_is_not_printed(said, host):
    (text,) = said(host, token="chosen-by-me")
    assert "?token=... " in text
    assert "chosen" not in text


@pytest.mark.parametrize("token", ["", "seven77", "with space", "a&b=cdefgh", "löööööööng", "x" * 201])
def test_a_token_that_an_address_cannot_carry_is_an_error(said, token):
    with pytest.raises(GradscopeError, match="--token: at least 8 letters, digits, - or _"):
        said("0.0.0.0", token=token)


def test_a_token_and_none_is_an_error(said):
    with pytest.raises(GradscopeError, match="--token or GRADSCOPE_TOKEN"):
        said("0.0.0.0", token="chosen-by-me", no_token=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc gives memory to threads")
def test_threads_share_freed_memory(tmp_path):
    code = (
        "import ctypes, threading\n"
        "from pathlib import Path\n"
        "from dashboards import serve\n"
        "from dashboards.security import connections\n"
        "class Server:\n"
        "    def run(self):\n"
        "        all_there = threading.Barrier(12)\n"
        "        def work():\n"
        "            all_there.wait()\n"
        "            held = bytearray(100_000)\n"
        "            all_there.wait()\n"
        "        threads = [threading.Thread(target=work) for _ in range(12)]\n"
        "        for thread in threads: thread.start()\n"
        "        for thread in threads: thread.join()\n"
        "        libc = ctypes.CDLL(None)\n"
        "        libc.fopen.restype = ctypes.c_void_p\n"
        f"        file = ctypes.c_void_p(libc.fopen({str(tmp_path / 'pools.xml')!r}.encode(), b'w'))\n"
        "        libc.malloc_info(0, file), libc.fclose(file)\n"
        "connections.listen = lambda app, host, port: (Server(), port)\n"
        f"serve([Path({str(tmp_path)!r})], '127.0.0.1', 0, tell=lambda text: None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "pools.xml").read_text().count("<heap nr=") <= 2
