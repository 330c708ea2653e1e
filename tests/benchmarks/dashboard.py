"""The speed of the dashboard in Chromium, on a store of 10 GB and on one of 100 MB.

    python tests/benchmarks/dashboard.py --json dashboard.json
    python tests/benchmarks/dashboard.py --big big.zarr --small small.zarr

Scrub: the time from a key press until maps, marks, slider and numbers are painted at the next step. Jump: the same from
a click on the slider, to a step whose maps were never requested. Sample: the time from a key press until maps, curves
and belief of the next sample are painted. The goals are for two idle cores.

    python tests/benchmarks/dashboard.py --big runs/both.zarr --small small.zarr

measures all three at the size of runs/both.yaml.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1]))  # the tests' folder

import chromium  # noqa: E402

RUNS = 12
"""Number of runs of key presses, at different places."""
PRESSES = 10
JUMPS = 24
SAMPLES = 16
LOADS = 8
PAUSE = 150
"""Milliseconds from the end of a painting to the next key press."""
GOALS = {
    ("scrub", "big"): "<= 50",
    ("jump", "big"): "<= 100",
    ("sample", "big"): "<= 250",
    ("overview: findings", "big"): "<= 2000",
    ("trajectory: maps", "big"): "<= 2000",
}
_WATCH = """
window.painted = () => new Promise((done, fail) => {
    setTimeout(() => fail(new Error("nothing was painted within a minute")), 60000);
    const range = document.getElementById("timestep"), maps = document.getElementById("maps");
    const before = range.value;
    let asked = null, said = null;
    const ask = (event) => (asked = asked ?? event.timeStamp);
    for (const kind of ["keydown", "pointerdown"]) document.addEventListener(kind, ask, { capture: true, once: true });
    document.addEventListener("gradscope:moved", ({ detail }) => (said = detail.ms), { once: true });
    const there = () => {
        const [, t, step] = document.getElementById("where").textContent.match(/t = (\\d+), step (\\d+)/);
        const marked = [...document.querySelectorAll("#curves .js-plotly-plot")].every((figure) => {
            const mark = figure.querySelector(".marks > *");
            if (!mark || !(figure.layout.meta || {}).timestep) return !(figure.layout.meta || {}).timestep;
            const { range, type, _offset, _length, _categories } = figure._fullLayout.xaxis;
            const x = type === "category" ? _categories.map(String).indexOf(t) : Number(t);
            const { left, width } = mark.getBoundingClientRect();
            const expected = _offset + _length * (x - range[0]) / (range[1] - range[0]);
            return Math.abs(left + width / 2 - figure.getBoundingClientRect().left - expected) < 1.5;
        });
        return range.value !== before && Number(step) === Number(range.value) + 1 && marked
            && maps.dataset.timestep === t && maps.getAttribute("aria-busy") === "false";
    };
    const look = () => {
        if (asked !== null && there()) requestAnimationFrame((now) => finish(now - asked)); // it is painted by now
        else requestAnimationFrame(look);
    };
    const finish = (ms) => (said === null ? setTimeout(() => finish(ms), 5) : done([ms, said]));
    look();
});
"""
_SAMPLE = """
window.sampled = (sample) => new Promise((done, fail) => {
    setTimeout(() => fail(new Error(`sample ${sample} was not painted within a minute`)), 60000);
    let asked = null;
    document.addEventListener("keydown", (event) => (asked = event.timeStamp), { capture: true, once: true });
    const maps = document.getElementById("maps");
    const said = new RegExp("sample " + sample + "(?![0-9])");
    const drawn = (frame) => {
        const { data } = frame.querySelector(".js-plotly-plot") || {};
        const title = frame.querySelector(".card-title").textContent;
        return data && (said.test(title) || data.some(({ name }) => said.test(name)));
    };
    const there = () => maps.getAttribute("aria-busy") === "false"
        && said.test(document.getElementById("focus-name").textContent)
        && [...document.querySelectorAll("#curves > :not([hidden])")].every(drawn);
    const look = () => {
        if (asked !== null && there()) requestAnimationFrame((now) => done(now - asked)); // it is painted by now
        else requestAnimationFrame(look);
    };
    look();
});
"""
_LOADED = """
window.loaded = {};
(function look() {
    const seen = (selector) => document.querySelector(selector) !== null;
    const now = {
        "overview: findings": seen("#findings-table .ag-row"),
        "overview: heat map": seen("#stability .main-svg .hm, #stability .main-svg .heatmaplayer image"),
        "trajectory: maps": seen("#maps[data-timestep][aria-busy=false]"),
        "trajectory: curves": seen("#curves .js-plotly-plot .scatterlayer .trace"),
    };
    for (const [name, there] of Object.entries(now)) if (there && !(name in loaded)) loaded[name] = performance.now();
    requestAnimationFrame(look);
})();
"""
VIEWS = {
    "overview": ("overview: findings", "overview: heat map"),
    "trajectory": ("trajectory: maps", "trajectory: curves"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--big", type=Path, help="an existing store; by default one of 10 GB is made, then removed")
    parser.add_argument("--small", type=Path, help="an existing store; by default one of 100 MB is made, then removed")
    parser.add_argument("--json", type=Path, help="where to write all measurements")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            "big": args.big or made(Path(folder) / "big.zarr", "--tensor-samples", "25"),
            "small": args.small or made(Path(folder) / "small.zarr", "--timesteps", "100", "--tensor-samples", "2"),
        }
        measured: dict[tuple[str, str], list[float]] = defaultdict(list)
        with opened(stores) as pages:
            loads(pages, measured)
            scrubs(pages, measured)
        with opened(stores) as pages:
            jumps(pages, measured)
            samples(pages, measured)
    report(measured)
    if args.json:
        machine = {"cpus": os.cpu_count(), "memory": psutil.virtual_memory().total}
        rows = [{"what": what, "store": store, "values": values} for (what, store), values in measured.items()]
        args.json.write_text(json.dumps({"machine": machine, "measured": rows}, indent=1))


def made(path: Path, *arguments: str) -> Path:
    subprocess.run([sys.executable, str(Path(__file__).parent / "make_store.py"), str(path), *arguments], check=True)
    return path


class Open:
    """One store, with its own server process and its own page."""

    def __init__(self, page, url: str, pid: int) -> None:
        self.page, self.url, self.process = page, url, psutil.Process(pid)

    def memory(self) -> float:
        """Memory of the server in MB."""
        return self.process.memory_info().rss / 1e6

    def show(self, view: str) -> None:
        self.page.goto(self.url + view)
        chromium.settle(self.page)

    def place(self, step: int) -> None:
        """Move the slider, and wait until the neighbouring steps are loaded."""
        self.page.evaluate(
            """(step) => {
                const range = document.getElementById("timestep");
                range.value = step;
                range.dispatchEvent(new Event("input"));
            }""",
            step,
        )
        self.page.wait_for_timeout(1000)

    def steps(self) -> int:
        return 1 + int(self.page.locator("#timestep").get_attribute("max"))


@contextmanager
def opened(stores: dict[str, Path]) -> Iterator[dict[str, Open]]:
    with ExitStack() as stack:
        browser = stack.enter_context(chromium.chromium())
        pages = {}
        for name, path in stores.items():
            url, pid = stack.enter_context(chromium.command(path))
            page = stack.enter_context(browser.new_context(viewport=chromium.SIZE)).new_page()
            page.set_default_timeout(120_000)
            page.add_init_script(_WATCH + _SAMPLE + _LOADED)
            pages[name] = Open(page, url, pid)
        yield pages


def loads(pages: dict[str, Open], measured) -> None:
    """Time until a page can be used: once with a server that just started, then repeatedly."""
    for load in range(1 + LOADS):
        for name, each in pages.items():
            for view, awaited in VIEWS.items():
                each.show(view)
                each.page.wait_for_function("(names) => names.every((name) => name in loaded)", arg=list(awaited))
                times = each.page.evaluate("() => loaded")
                for what in awaited:
                    measured[what if load else f"{what}, first visit", name].append(times[what])


def scrubs(pages: dict[str, Open], measured) -> None:
    for each in pages.values():
        each.show("trajectory")
    for run in range(RUNS):
        for name, each in pages.items():
            each.page.bring_to_front()
            each.page.locator("#timestep").focus()
            # The last press of the last run ends at the last step: a press there would paint nothing.
            each.place((each.steps() - 1 - PRESSES) * (run // 2) // (RUNS // 2 - 1))
            for _ in range(PRESSES):
                ms, reported = painted(each, lambda page=each.page: page.keyboard.press("ArrowRight"))
                measured["scrub", name].append(ms)
                measured["scrub, as the page says", name].append(reported)
                each.page.wait_for_timeout(PAUSE)
            each.page.keyboard.press("ArrowDown" if run % 2 == 0 else "ArrowUp")
            measured["memory", name].append(each.memory())


def jumps(pages: dict[str, Open], measured) -> None:
    rng = random.Random(0)
    for each in pages.values():
        each.show("trajectory?t=999999")
    places = [(i + 0.5 + rng.uniform(-0.2, 0.2)) / JUMPS for i in range(JUMPS)]
    for place in rng.sample(places, JUMPS):
        for name, each in pages.items():
            each.page.bring_to_front()
            box = each.page.locator("#timestep").bounding_box()
            at = (box["x"] + place * box["width"], box["y"] + box["height"] / 2)
            ms, _ = painted(each, lambda page=each.page, at=at: page.mouse.click(*at))
            measured["jump", name].append(ms)
            measured["memory", name].append(each.memory())
            each.page.wait_for_timeout(1000)


def samples(pages: dict[str, Open], measured) -> None:
    """Go to one sample after the other, with a pause in which the curves are drawn."""
    for each in pages.values():
        each.show("trajectory?sample=0")
    for sample in range(1, 1 + SAMPLES):
        for name, each in pages.items():
            each.page.bring_to_front()
            each.page.evaluate("(sample) => { window.waiting = sampled(sample); }", sample)
            each.page.keyboard.press("ArrowDown")
            measured["sample", name].append(each.page.evaluate("() => window.waiting"))
            each.page.wait_for_timeout(1000)


def painted(each: Open, act) -> tuple[float, float]:
    """Milliseconds from an action to the frame that shows its full result: as measured, and as the page reports."""
    each.page.evaluate("() => { window.waiting = painted(); }")
    act()
    ms, reported = each.page.evaluate("() => window.waiting")
    return ms, reported


def report(measured) -> None:
    table = Table(title=f"{os.cpu_count()} CPUs, Chromium without a GPU; ms, memory in MB")
    for column in ("what", "store", "N", "median", "25 to 75 %", "95 %", "goal"):
        table.add_column(column, justify="left" if column in ("what", "store", "goal") else "right")
    for (what, store), values in measured.items():
        shown = max(values) if what == "memory" else np.median(values)
        goal = "<= 500" if (what, store) == ("memory", "big") else GOALS.get((what, store), "")
        tail = "max" if what == "memory" else f"{np.quantile(values, 0.95):.0f}"
        low, high = np.quantile(values, [0.25, 0.75])
        table.add_row(what, store, str(len(values)), f"{shown:.0f}", f"{low:.0f} to {high:.0f}", tail, goal)
    for what in ("scrub", "jump", "sample"):
        ratio = np.median(measured[what, "big"]) / np.median(measured[what, "small"])
        table.add_row(f"{what}, big / small", "", "", f"{ratio:.2f}", "", "", "<= 1.2")
    Console().print(table)


if __name__ == "__main__":
    main()
