"""The widget of `ds.gradscope.show()` in a browser without a notebook: a page with a model like Jupyter's."""

import base64
import importlib.resources
import json
from typing import Any

import plotly
from playwright.sync_api import Page, Route

from dashboards.notebook.view import View

ADDRESS = "http://view.test/"
TRAITS = ("_cell", "_sample", "_step", "_about", "_frame", "_figures")
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>view</title>
<style>body {{ font-family: sans-serif; margin: 12px; color: {ink}; background: {paper}; }} {css}</style>
<main id="el"></main>
<script type="module">
class Model {{
  constructor(state) {{ this.listeners = []; this.changed = {{}}; this.state = state; }}
  get(name) {{ return this.state[name]; }}
  set(name, value) {{ this.changed[name] = value; this.take({{ [name]: value }}); }}
  on(event, call) {{ this.listeners.push([event, call]); }}
  off(event, call) {{ this.listeners = this.listeners.filter((each) => each[0] !== event || each[1] !== call); }}
  fire(event, ...given) {{ for (const [name, call] of [...this.listeners]) if (name === event) call(...given); }}
  take(state) {{
    Object.assign(this.state, state);
    for (const name of Object.keys(state)) this.fire(`change:${{name}}`);
  }}
  async save_changes() {{
    const {{ changed }} = this;
    this.changed = {{}};
    this.take(read(await window.kernel(changed)));
  }}
  async send(message) {{
    const code = await (await fetch("plotly.js")).arrayBuffer();
    if (message.want === "plotly") this.fire("msg:custom", {{ plotly: true }}, [new DataView(code)]);
  }}
}}
function read(text) {{
  return JSON.parse(text, (key, value) => key === "png" ? Uint8Array.from(atob(value), (c) => c.charCodeAt(0)) : value);
}}
window.model = new Model(read(await window.kernel({{}})));
const {{ default: widget }} = await import("./view.js");
window.close = widget.render({{ model: window.model, el: document.getElementById("el") }});
</script>"""


def show(page: Page, view: View, dark: bool = False) -> None:
    """Show a view on a page; what the page asks of a kernel is answered by the view."""
    ink, paper = ("#E6E6E6", "#111111") if dark else ("#202020", "#FFFFFF")
    content = {
        "": ("text/html", _PAGE.format(css=view._css, ink=ink, paper=paper)),
        "view.js": ("text/javascript", view._esm),
        "plotly.js": ("text/javascript", importlib.resources.files(plotly) / "package_data" / "plotly.min.js"),
        "favicon.ico": ("image/x-icon", ""),
    }

    def answer(route: Route) -> None:
        kind, body = content[route.request.url.removeprefix(ADDRESS)]
        route.fulfill(body=body if isinstance(body, str) else body.read_bytes(), content_type=kind)

    def kernel(changed: dict[str, int]) -> str:
        for name, value in changed.items():
            setattr(view, name, value)
        return json.dumps({name: getattr(view, name) for name in TRAITS}, default=_text)

    page.route(f"{ADDRESS}**", answer)
    page.expose_function("kernel", kernel)
    page.goto(ADDRESS)


def _text(value: Any) -> str:
    return base64.b64encode(value).decode()
