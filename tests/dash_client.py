"""Callbacks of a Dash app without a browser, and the components that they return."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plotly.io.json import to_json_plotly

Value = tuple[Any, str, Any]
"""Id, property and value of an input or a state."""


def body(outputs: Sequence[str], inputs: Sequence[Value], states: Sequence[Value], triggered: str = "") -> dict:
    """The body that the browser sends; see `ask`."""
    sent = [{"id": json.loads(id) if id.startswith("{") else id, "property": name}
            for id, name in (output.rsplit(".", 1) for output in outputs)]  # fmt: skip
    return {
        "output": f"..{'...'.join(outputs)}.." if len(outputs) > 1 else outputs[0],
        "outputs": sent if len(outputs) > 1 else sent[0],
        "inputs": [{"id": i, "property": p, "value": v} for i, p, v in inputs],
        "state": [{"id": i, "property": p, "value": v} for i, p, v in states],
        "changedPropIds": [triggered] if triggered else [],
    }


def ask(
    client,
    outputs: Sequence[str],
    inputs: Sequence[Value],
    states: Sequence[Value],
    triggered: str = "",
    prefix: str = "/",
) -> dict:
    """Return the answer of the callback with these outputs (each ``id.property``, the id as JSON or a text), by id.

    Parameters
    ----------
    triggered
        The input that changed, as ``id.property``; empty for the first call on a new page.
    prefix
        Path of the app on its host.
    """
    answer = client.post(f"{prefix}_dash-update-component", json=body(outputs, inputs, states, triggered))
    assert answer.status_code == 200, answer.data
    return answer.get_json()["response"]


def parts(component: Any) -> list[Mapping[str, Any]]:
    """All components in a component, with their properties, as the browser gets them."""
    found: list[Mapping[str, Any]] = []

    def look(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            if "props" in value and "type" in value:
                found.append({"type": value["type"], **value["props"]})
            for item in value.values():
                look(item)

    look(component if isinstance(component, dict | list) else json.loads(to_json_plotly(component)))
    return found


def texts(component: Any) -> str:
    """All texts in a component."""
    words: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            words.append(str(value))
        elif isinstance(value, list):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            look(value.get("props", {}).get("children"))

    look(component if isinstance(component, dict | list) else json.loads(to_json_plotly(component)))
    return " ".join(words)


def show(client, path="", prefix="/", **query):
    """The page of an address: its children, notices and view."""
    outputs = ["page.children", "notices.children", "view.data", "store-select.value", "live.children", "poll.disabled"]
    return ask(client, outputs, [("address", "data", {"path": path, "query": query})], [], "address.data", prefix)
