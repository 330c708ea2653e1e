"""Bodies of callbacks that no page of ours sends are refused with 400 and one line, or answered without a fault."""

import json
from copy import deepcopy

import dash_client
import pytest
from dash import Input, Output, State, html
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.errors import PydanticSchemaGenerationError

from dashboards.security import guard
from dashboards.security.callbacks import CheckedDash, register

pytestmark = pytest.mark.usefixtures("silent")
PATH = "/_dash-update-component"
VIEW = {"store": "5f0c", "page": "overview", "url": "overview?store=5f0c&cell=1&t=400&sample=0"}
GOOD = {
    "page.id": "page",
    "address.data": {"path": "overview", "query": {}},
    "view.data": VIEW,
    "version.data": None,
    "poll.n_intervals": 1,
    "overview-found.data": None,
    "note-change.data": None,
    "cells-table.columnDefs": [],
    "samples-table.columnDefs": [],
    "samples-page.value": 1,
    "trajectory-cursor.data": {"cell": 1, "sample": 0, "cells": [1, 3], "variables": ["gradient_cosine"]},
    "trajectory-finding.data": "9.unstable",
    "compare-samples.value": ["1", "3"],
    "compare-body.id": "compare-body",
    '{"key":"cell","type":"control"}.value': "1",
    '{"key":"other","type":"control"}.value': "3",
    '{"key":"cells","type":"control"}.value': ["1", "3"],
    '{"key":"variables","type":"control"}.value': "gradient_cosine",
    '{"key":"label","type":"control"}.value': "all",
    '{"key":"only","type":"control"}.value': "all",
    '{"key":"mixture","type":"control"}.value': "all mixtures",
    '{"key":"rows","type":"control"}.value': ["0", "1"],
    '{"key":"score","type":"control"}.value': "update_cosine",
    '{"key":"xt","type":"control"}.value': "control",
}
WRONG = (
    None, True, -1, 3, 1.5, 10**30, "", "x", "-1", "999999999", "1" * 5000, "../../etc/passwd", "<b>", "\x00", "é",
    "١", "1\n", [], ["x"], ["99"], [[]], [None], ["1"] * 500, {}, {"a": 1}, {"store": "5f0c"},
    {"store": None, "page": None, "url": None}, VIEW | {"store": "other"}, VIEW | {"url": "?%ff&cells=zz"},
    VIEW | {"more": 1}, {"path": "x", "query": {"cell": "1e9", "t": "NaN", "cells": "f" * 300}},
    {"path": "../..", "query": {"store": "\x00"}}, {"path": "run", "query": {"a": 1}},
    {"cell": 99, "sample": 0, "cells": [1], "variables": ["gradient_cosine"]},
    {"cell": 0, "sample": 99, "cells": [99], "variables": ["gradient_cosine"]},
    {"cell": 0, "sample": 0, "cells": [], "variables": []},
    {"cell": 0, "sample": 0, "cells": [0], "variables": ["gradient", "x", "<b>"]},
    {"cell": 2**40, "sample": 0, "cells": [], "variables": []}, [{"field": {"function": "alert(1)"}}],
)  # fmt: skip


def name(place):
    """``id.property``, as `GOOD` has it."""
    id = place["id"] if isinstance(place["id"], str) else json.dumps(place["id"], separators=(",", ":"))
    return f"{id}.{place['property']}"


def callbacks(app):
    """A body for every callback that runs on the server, as our page sends it."""

    def sent(name):
        id, _, property = name.rpartition(".")
        return {"id": json.loads(id) if id[0] == "{" else id, "property": property}

    for output, callback in app.callback_map.items():
        if "callback" not in callback:
            continue
        outputs = [sent(part) for part in output.strip(".").split("...")]
        values = {
            part: [
                sent(key) | {"value": GOOD[key]}
                for key in (f"{each['id']}.{each['property']}" for each in callback[part])
            ]
            for part in ("inputs", "state")
        }
        yield {
            "output": output,
            "outputs": outputs if output[:2] == ".." else outputs[0],
            "changedPropIds": [],
            **values,
        }


def post(client, body):
    """Return the status; a refusal is one line of text, and an answer reports no fault."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(PATH, data=data, headers={"Content-Type": "application/json"})
    if answer.status_code >= 400:
        assert answer.mimetype == "text/plain"
        assert answer.text.count("\n") == 1, answer.text
        assert answer.text.startswith("callback: ")
        assert len(answer.text) < 400
    assert "fault of gradscope" not in answer.text, (body, answer.text)
    return answer.status_code


@pytest.mark.slow
def test_every_callback_is_answered_as_our_page_asks_it(app, client):
    bodies = list(callbacks(app))
    assert len(bodies) > 15
    for body in bodies:
        assert post(client, body) in (200, 204), body["output"]


@pytest.mark.slow
def test_every_wrong_value_is_refused_or_answered(app, client, bounded):
    """Try each input and state of each callback; those that all callbacks share, in one callback."""
    refused, tried = 0, set()
    for body in callbacks(app):
        for kind in ("inputs", "state"):
            for i, place in enumerate(body[kind]):
                key = name(place)
                shared = key in ("version.data", "view.data", "overview-found.data")
                for wrong in () if shared and key in tried else WRONG:
                    broken = deepcopy(body)
                    broken[kind][i]["value"] = wrong
                    found = post(client, broken)
                    assert found in (200, 204, 400), (body["output"], kind, i, wrong)
                    refused += found == 400
                tried.add(key)
    assert refused > 500


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("trajectory-cursor.data", {"cell": "1", "sample": 0, "cells": [], "variables": []}, "cursor: cell: "),
        (
            "trajectory-cursor.data",
            {"cell": 1, "sample": 0, "cells": list(range(17)), "variables": []},
            "cursor: cells: ",
        ),
        (
            "trajectory-cursor.data",
            {"cell": 1, "sample": 0, "cells": [], "variables": ["a"] * 4},
            "cursor: variables: ",
        ),
        ("trajectory-cursor.data", {"cell": True, "sample": 0, "cells": [], "variables": []}, "cursor: cell: "),
        ("trajectory-cursor.data", {"cell": -1, "sample": 0, "cells": [], "variables": []}, "cursor: cell: "),
        ("trajectory-cursor.data", GOOD["trajectory-cursor.data"] | {"limits": "x"}, "cursor: limits: "),
        ("view.data", "overview", "view: "),
        ("view.data", VIEW | {"url": "x" * 9000}, "9000 characters; at most 8192 are possible"),
        ("version.data", 1, "version: "),
        ("compare-samples.value", [1], "samples: 0: "),
        ("compare-samples.value", "1", "samples: "),
        ('{"key":"cell","type":"control"}.value', "1\n", ""),
        ('{"key":"only","type":"control"}.value', "none", "only: "),
        ("samples-page.value", 0, "page: "),
        ("samples-page.value", 10**400, "numbers have to be finite, integers at most 2**53"),
    ],
)
def test_wrong_types_are_refused_by_name(app, client, key, value, reason):
    tried = 0
    for body in callbacks(app):
        for place in (*body["inputs"], *body["state"]):
            if name(place) == key:
                place["value"] = value
                answer = client.post(PATH, json=body)
                assert answer.status_code == 400
                assert answer.text.startswith(f"callback: {reason}")
                tried += 1
    assert tried


def test_a_new_callback_is_checked_by_its_annotations_alone():
    app = CheckedDash("new", suppress_callback_exceptions=True)
    app.layout = html.Div()
    register(app, "/")

    @app.callback(Output("sum", "data"), Input("numbers", "data"), State("factor", "data"))
    def scaled(numbers: list[int], factor: float) -> list[float]:
        return [factor * number for number in numbers]

    client = app.server.test_client()
    client.get("/_dash-dependencies")

    def post(numbers, factor):
        body = dash_client.body(["sum.data"], [("numbers", "data", numbers)], [("factor", "data", factor)])
        return client.post(PATH, json=body)

    assert post([1, 2], 0.5).get_json()["response"]["sum"]["data"] == [0.5, 1.0]
    for values in ((["1"], 0.5), ([True], 0.5), ("1", 0.5), ([1], "x"), ([1], None)):
        assert post(*values).status_code == 400
    with pytest.raises(PydanticSchemaGenerationError):

        @app.callback(Output("other", "data"), Input("numbers", "data"))
        def unknown(numbers):
            return numbers


def test_wrong_structures_are_refused(app, client):
    for body in callbacks(app):
        for change in (
            {"output": "nothing.data"}, {"output": None}, {"output": ["a"]}, {"output": "shown.data"},
            {"output": body["output"] + "x"}, {"outputs": []}, {"outputs": {"id": "page", "property": "children"}},
            {"outputs": None}, {"outputs": "x"}, {"inputs": []}, {"inputs": None}, {"inputs": [{}]},
            {"inputs": {"a": 1}}, {"state": {}},
            {"inputs": [[body["inputs"][0]]]}, {"inputs": body["inputs"] * 2}, {"state": [*body["state"], {"id": "x"}]},
            {"inputs": [each | {"property": "x"} for each in body["inputs"]]}, {"state": 1},
            {"inputs": [each | {"id": ["x"]} for each in body["inputs"]]}, {"changedPropIds": ["{x.value"]},
            {"changedPropIds": [{}]}, {"changedPropIds": 1}, {"changedPropIds": ["__import__('os').x"]},
        ):  # fmt: skip
            assert post(client, body | change) == 400, change
        for key in ("output", "outputs", "inputs"):
            assert post(client, {k: v for k, v in body.items() if k != key}) == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"{", b"null", b"[]", b"1", b'"x"', b"{}", b"\xff\xfe{}", b"\x80", b'{"output": "\xff"}', b"NaN",
        b'{"output": "store-select.data", "outputs": NaN}', b'{"output": Infinity}', b"1" * 10_000, b"-" * 1000,
        b"[" * 100_000, b"[" * 900 + b"]" * 900, b'{"a":' * 50_000,
        b'{"output": "\\ud800", "outputs": [], "inputs": []}',
        "{}".encode("utf-16"), b"\x1f\x8b\x08\x00", b"a=1&b=2", b"\x00" * 100,
    ],
)  # fmt: skip
def test_bytes_that_are_not_a_body_are_refused(client, body):
    assert post(client, body) == 400


def test_nan_and_depth_inside_a_good_body_are_refused(app, client):
    body = json.dumps(next(callbacks(app)))
    assert post(client, body.encode()) == 200
    for wrong in ("NaN", "-Infinity", "[" * 400 + "]" * 400, "[" * 5000 + "]" * 5000, "1" * 5000, '"\\udfff"'):
        assert post(client, body.replace('"value": "page"', f'"value": {wrong}').encode()) == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_another_content_type_is_refused(app, client, kind):
    """A page of another site may send some of these without the browser's preflight request."""
    answer = client.post(PATH, data=json.dumps(next(callbacks(app))), headers={"Content-Type": kind})
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert "application/json is needed" in answer.text


MANY = 200_000
LONG = [
    ("changedPropIds", [1] * 5 * MANY),
    ("changedPropIds", ["x"] * 2 * MANY),
    *((kind, wrong) for kind in ("outputs", "inputs", "state") for wrong in ([1] * 5 * MANY, [{}] * 3 * MANY)),
    ("compare-samples.value", ["x"] * 2 * MANY),
    ("compare-samples.value", ["1"] * 2 * MANY),
    ("cells-table.columnDefs", [1] * 5 * MANY),
    ("cells-table.columnDefs", [{str(i): [] for i in range(MANY // 2)}]),
    ("trajectory-cursor.data", GOOD["trajectory-cursor.data"] | {str(i): 1 for i in range(MANY // 2)}),
    ("trajectory-cursor.data", GOOD["trajectory-cursor.data"] | {"cells": ["x"] * 2 * MANY}),
    ("address.data", {"path": "x", "query": {str(i): 1 for i in range(MANY // 2)}}),
    ("overview-found.data", {"of": "x", "in": {str(i): 1 for i in range(MANY // 2)}}),
]


@pytest.mark.parametrize(("key", "value"), LONG, ids=[f"{key}-{i}" for i, (key, _) in enumerate(LONG)])
def test_many_wrong_items_are_refused_at_the_first(app, client, request, key, value):
    if "." not in key:
        body = next(callbacks(app)) | {key: value}
    else:
        found = ((body, place) for body in callbacks(app) for place in (*body["inputs"], *body["state"]))
        body, place = next((b, p) for b, p in found if name(p) == key)
        place["value"] = value
    sent = json.dumps(body, separators=(",", ":")).encode()
    assert 2**19 < len(sent) <= guard.MAX_BODY
    request.getfixturevalue("bounded")  # from here on
    assert post(client, sent) == 400


def test_all_samples_can_be_selected(app, client):
    """The largest body that our pages can send."""
    body = next(b for b in callbacks(app) if b["output"] == "compare-selected.children")
    body["inputs"][0]["value"] = [str(sample) for sample in range(100_000)]
    assert len(json.dumps(body)) < 0.6 * guard.MAX_BODY
    assert post(client, body) == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_of_any_shape_is_a_fault(app, client, data):
    bodies = list(callbacks(app))
    body = deepcopy(data.draw(st.sampled_from(bodies)))
    where = data.draw(st.sampled_from(["body", "output", "outputs", "inputs", "state", "value", "changedPropIds"]))
    value = data.draw(json_values)
    if where == "body":
        body = value
    elif where == "value":
        data.draw(st.sampled_from([*body["inputs"], *body["state"]]))["value"] = value
    else:
        body[where] = value
    assert post(client, body) in (200, 204, 400)
