"""The dashboard in a real browser: what tests, screenshots and benchmarks share."""

import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Request, sync_playwright

from dashboards import create_app
from dashboards.security import connections
from dashboards.state import PAGES

SIZE = {"width": 1280, "height": 720}
USUAL = tuple(name for name in PAGES if name not in ("guidance", "loop"))
"""Pages that have something to show of runs of gradscope's own sampler."""
_FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage"
).split()


def executable() -> str | None:
    """Debian's Chromium, where it is installed."""
    return shutil.which("chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(stores: Sequence[Path], prefix: str = "/") -> Iterator[str]:
    """The dashboard of some stores on a free port, in threads of this process; its URL."""
    server, port = connections.listen(create_app(stores, prefix).server, "127.0.0.1", 0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{port}{prefix}"
    server.task_dispatcher.shutdown()
    server.close()


@contextmanager
def command(*stores: Path) -> Iterator[tuple[str, int]]:
    """The dashboard by its command, in a process of its own; its URL, and the process's id."""
    arguments = ["dashboard", *map(str, stores), "--port", "0"]
    started = [sys.executable, "-u", "-c", "from gradscope.cli import main; main()", *arguments]
    process = subprocess.Popen(started, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if "http://" not in said:
            raise RuntimeError(f"gradscope {' '.join(arguments)} did not start: {said}")
        yield said.split()[2], process.pid
    finally:
        process.terminate()
        process.wait(10)


class Watch:
    """Keeps what a page should not do: errors, but those `expected`, requests that fail, requests of any other host."""

    def __init__(self, url: str, expected: str | None) -> None:
        self.host, self.expected, self.problems = urlsplit(url).netloc, expected, list[str]()
        self.handlers = {
            "console": self._console,
            "pageerror": lambda error: self.problems.append(f"page error: {error}"),
            "request": self._request,
            "requestfailed": self._failed,
        }

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not (self.expected and self.expected in message.text):
            self.problems.append(f"console: {message.text} ({message.location.get('url')})")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.problems.append(f"request of another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself gave it up, as when it moves on to the next picture
            self.problems.append(f"failed: {request.url}: {request.failure}")


@contextmanager
def watched(page: Page, url: str, expected: str | None = None) -> Iterator[Watch]:
    """Watches a page that shows a dashboard."""
    watch = Watch(url, expected)
    for event, handler in watch.handlers.items():
        page.on(event, handler)
    yield watch
    for event, handler in watch.handlers.items():
        page.remove_listener(event, handler)


def settle(page: Page) -> None:
    """Wait until a page is there and stays so for a moment: no callback runs, figures are drawn, pictures loaded."""
    with suppress(Error):  # a new page is coming, which has none
        page.evaluate("() => { window.settled = 0; }")  # a click has just begun what is waited for
    page.wait_for_function(
        """() => {
            const seen = (each) => each.offsetParent !== null;
            const busy = document.querySelector("._dash-loading, ._dash-loading-callback, #maps[aria-busy=true]");
            const graphs = [...document.querySelectorAll(".dash-graph")].filter(seen);
            const there = !busy && document.querySelector(".nav a[aria-current=page]")
                && graphs.every((each) => each.querySelector(".main-svg"))
                && [...document.images].filter(seen).every((each) => each.complete);
            if (!there || !window.settled) window.settled = performance.now();
            return there && performance.now() - window.settled > 200;
        }"""
    )


def serious(page: Page) -> list[str]:
    """Violations of accessibility that axe calls serious or critical."""
    from axe_playwright_python.sync_playwright import Axe  # benchmarks and screenshots do without it

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['target']}: {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def query(page: Page) -> dict[str, str]:
    """The state in a page's address."""
    return dict(parse_qsl(urlsplit(page.url).query))


def choose(page: Page, key: str, option: int) -> None:
    """Choose one of a select's options by its place, as with the mouse."""
    page.locator(f'[id=\'{{"key":"{key}","type":"control"}}\']').click()
    page.locator("[role=option]:visible").nth(option).click()
    settle(page)


def pixels(locator: Locator, shape: tuple[int, ...]) -> np.ndarray:
    """A map as it is on the screen, one colour for each element of the tensor, ``(height, width, 3)``."""
    shot = np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), dtype=float)
    scales = (size / n for n, size in zip(shape, shot.shape[:2], strict=True))
    rows, columns = (((np.arange(n) + 0.5) * scale).astype(int) for n, scale in zip(shape, scales, strict=True))
    return shot[np.ix_(rows, columns)]


def differs(locator: Locator, tensor: np.ndarray, kind: str) -> float:
    """How far what is seen is from a tensor, ``(channel, height, width)``: 0 where it shows just that.

    `kind`: ``image``, in [-1, 1]; or ``signed``, whose mean over channels is blue below 0 and red above.
    """
    seen = pixels(locator, tensor.shape[1:])
    if kind == "image":
        return float(np.abs(seen - 127.5 * (np.moveaxis(tensor, 0, -1).clip(-1, 1) + 1)).mean()) / 255
    mean = tensor.mean(axis=0)
    limit = np.quantile(np.abs(mean), 0.99)  # beyond it colours are cut off
    return 1 - float(np.corrcoef((seen[..., 0] - seen[..., 2]).ravel(), mean.clip(-limit, limit).ravel())[0, 1])
