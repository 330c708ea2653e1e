"""The address that the dashboard listens on."""

import socket
import threading
import urllib.request

import pytest

from dashboards import serve
from dashboards.serving import is_local
from gradscope.errors import GradscopeError


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("", False)])
def test_who_can_reach_an_address(host, local):
    assert is_local(host) == local


def test_a_taken_port_is_said(stored):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GradscopeError, match=f"--port {port}: .*another --port"):
            serve([stored], "127.0.0.1", port)


def test_it_serves_and_says_where(stored):
    said = []
    spoken = threading.Event()

    def tell(text):
        said.append(text)
        spoken.set()

    threading.Thread(target=serve, args=([stored], "127.0.0.1", 0), kwargs={"tell": tell}, daemon=True).start()
    assert spoken.wait(20)
    url = said[0].split()[2]
    with urllib.request.urlopen(url, timeout=10) as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "<title>gradscope</title>" in page
    assert '<html lang="en">' in page
    assert "default-src 'self'" in policy


def test_opening_it_to_others_is_warned_of(stored, monkeypatch):
    import waitress

    class Server:
        effective_port = 1234

        def run(self):
            pass

    monkeypatch.setattr(waitress, "create_server", lambda *args, **kwargs: Server())
    said = []
    serve([stored], "0.0.0.0", 1234, tell=said.append)
    assert said[0].startswith("warning: 0.0.0.0 opens the dashboard to others")
    assert "http://127.0.0.1:1234/" in said[1]
