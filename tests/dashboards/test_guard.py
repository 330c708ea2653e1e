"""The guard, by requests as browsers and attackers send them."""

import pytest

from dashboards.app import app_of, create_app
from dashboards.data.library import Library
from dashboards.security import guard

pytestmark = pytest.mark.usefixtures("silent")
PAGE = "/_dash-update-component"
BODY = {
    "output": "store-select.data",
    "outputs": {"id": "store-select", "property": "data"},
    "inputs": [{"id": "page", "property": "id", "value": "page"}],
    "changedPropIds": [],
}
HERE = {"Host": "127.0.0.1:8050"}
DASHES = {"Content-Type": "application/json"}
PAGES = ("/", "/trajectory", PAGE, "/frames/5f0c/0/0.png?cells=1", "/assets/style.css", "/nowhere/x")


@pytest.fixture(scope="module")
def local(stored):
    """A server that only this machine reaches, given as ``me.test``."""
    return app_of(Library([stored]), "/", guard.local_names("me.test")).server.test_client()


@pytest.fixture(scope="module")
def public(stored):
    """A server that other machines reach."""
    return create_app([stored]).server.test_client()


def status(client, path, **headers):
    """The status of a GET, or for callbacks of a POST as our page sends it; a refusal is a line of text."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(path, json=BODY, headers=sent) if path == PAGE else client.get(path, headers=sent)
    if answer.status_code >= 400:
        assert answer.mimetype == "text/plain"
        assert answer.text.count("\n") == 1
        assert "Traceback" not in answer.text
    return answer.status_code


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:8050", True),
        ("127.0.0.1:9000", True),  # a tunnel has another port
        ("[::1]:8050", True),
        ("me.test:8050", True),
        ("evil.test", False),
        ("evil.test:8050", False),
        ("127.0.0.1.evil.test", False),
        ("localhost.evil.test:8050", False),
        ("10.0.0.7:8050", False),
        ("0.0.0.0:8050", False),
        ("[::]:8050", False),
    ],
)
def test_a_local_server_answers_to_its_own_names_alone(local, public, path, host, allowed):
    assert (status(local, path, Host=host) != 421) == allowed
    assert status(public, path, Host=host) == 200


@pytest.mark.parametrize(
    "host", ["", "localhost:", "a b", "localhost:80@evil.test", "local/host", "x:999999", "[x", "é"]
)
def test_a_malformed_host_is_refused_by_all(local, public, host):
    assert status(local, "/", Host=host) == status(public, "/", Host=host) == 400


def test_a_refused_name_gets_advice(local):
    text = local.get("/", headers={"Host": "gpu.test:8050"}).text
    assert "'gpu.test' is not a name of it" in text
    assert "127.0.0.1 or [::1] or localhost or me.test" in text
    assert "reverse proxy" in text


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("site", "mode", "dest", "allowed"),
    [
        ("same-origin", "cors", "empty", True),
        ("same-origin", "no-cors", "image", True),
        ("none", "navigate", "document", True),  # a typed address
        ("cross-site", "cors", "empty", False),
        ("cross-site", "no-cors", "image", False),
        ("cross-site", "no-cors", "script", False),
        ("cross-site", "navigate", "iframe", False),
        ("same-site", "cors", "empty", False),  # another port of this host
        ("same-site", "no-cors", "image", False),
        ("nonsense", "cors", "empty", False),
        ("", "", "", False),
    ],
)
def test_pages_of_other_sites_reach_nothing(local, public, path, site, mode, dest, allowed):
    sent = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}
    for client in (local, public):
        assert (status(client, path, **HERE, **sent) != 403) == allowed


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_links_of_other_sites_are_followed_but_forms_are_not(local, site):
    sent = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert status(local, "/trajectory", **HERE, **sent) == 200
    assert status(local, PAGE, **HERE, **sent) == 403


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8050", True),
        ("https://127.0.0.1:8050", True),
        ("http://127.0.0.1:3000", False),
        ("http://localhost:8050", False),
        ("http://evil.test", False),
        ("http://127.0.0.1:8050.evil.test", False),
        ("null", False),
        ("", False),
    ],
)
def test_without_sec_fetch_site_the_origin_has_to_agree(local, public, path, origin, allowed):
    for client in (local, public):
        assert (status(client, path, **HERE, Origin=origin) != 403) == allowed


def test_our_page_is_allowed_through_a_proxy_that_sends_its_own_host(local):
    """A proxy such as nginx sends Host 127.0.0.1:8050, the browser sends the public name as Origin."""
    over_tls = {"Origin": "https://public.test", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}
    assert status(local, PAGE, **HERE, **over_tls) == 200
    plain = {"Origin": "http://public.test"}
    assert status(local, PAGE, **HERE, **plain) == 403
    page = local.get("/", headers=HERE)
    name, _, value = page.headers["Set-Cookie"].partition(";")[0].partition("=")
    assert (name, "SameSite=Strict" in page.headers["Set-Cookie"]) == (guard.PAGE_COOKIE, True)
    assert '"csrf_header_name":"Gradscope-Page"' in page.text  # Dash sends the cookie's value in it
    assert '"csrf_token_name":"gradscope_page"' in page.text
    assert status(local, PAGE, **HERE, **plain, **{guard.PAGE_HEADER: value}) == 200
    assert status(local, PAGE, **HERE, **plain, **{guard.PAGE_HEADER: value, "Sec_Fetch_Site": "cross-site"}) == 403


def test_no_other_origin_gets_permission(local):
    """The preflight request, which browsers send before a header or JSON to another origin."""
    preflight = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}
    preflight |= {"Access-Control-Request-Headers": f"content-type,{guard.PAGE_HEADER}"}
    for headers in (preflight, preflight | {"Origin": "http://127.0.0.1:8050"}):
        answer = local.options(PAGE, headers=HERE | headers)
        assert not [name for name in answer.headers.keys() if name.startswith("Access-Control")]
    assert local.options(PAGE, headers=HERE | preflight).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd", "/assets/../app.py", "/assets/..%2fapp.py", "/assets/%2e%2e/app.py",
        "/assets/%252e%252e%252fapp.py", "/assets/..%5capp.py", "/assets/....//app.py", "/assets//etc/passwd",
        "/frames/../../etc/passwd", "/frames/..%2f..%2fetc/0/0.png?cells=1", "/frames/%252e%252e/0/0.png?cells=1",
        "/thumbnails/..%2f..%2fx/0.png", "/thumbnails/x/0.png", "/numbers/..%2f..%2fx.csv", "/numbers/%252e.csv",
        "/_dash-component-suites/../../etc/passwd", "/_dash-component-suites/dash/..%2f..%2f..%2fetc%2fpasswd",
        "/_dash-component-suites/os/path.py", "/_dash-component-suites/dash/dash.py", "/static/x",
        "/_dash-component-suites/dash/%252e%252e/x.js", "/trajectory/../../x", "/run%00.png", "/a%0d%0aSet-Cookie:x",
    ],
)  # fmt: skip
def test_paths_outside_of_the_app_are_not_found(local, public, path):
    assert status(local, path, **HERE) == status(public, path) == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "POST"])
def test_nothing_else_can_be_done_to_a_page(local, method):
    answer = local.open("/trajectory", method=method, headers=HERE)
    assert (answer.status_code, answer.mimetype) == (405, "text/plain")


def test_large_bodies_are_refused_unread(local):
    for path in (PAGE, "/trajectory"):
        answer = local.post(path, data=b"x" * (guard.MAX_BODY + 1), headers=HERE | DASHES)
        assert (answer.status_code, answer.mimetype) == (413, "text/plain")


def test_answers_restrict_the_browser(public):
    for path in PAGES:
        headers = (public.post(path, json=BODY) if path == PAGE else public.get(path)).headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
