"""Chromium, watched pages, and stores for the dashboard."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import chromium
import numpy as np
import pytest
import small_store
import xarray as xr
from playwright.sync_api import Browser, Page

from gradscope.analysis.synthetic import trajectories
from gradscope.store import CELL_DIMS, Array, Frame, Grid, Schema, StoreWriter, create

SMALL = ("sampling.samples=8", "sampling.batch_size=8", "sampling.num_inference_steps=10", "recording.tensor_samples=8")
TENSORS = ("gradient", "update", "x_t", "pred_original_sample")
SCALARS = ("gradient_norm", "update_norm", "gradient_cosine", "update_cosine", "effective_strength", "log_prob")
FAULTS = {
    ("robust", 0.0): "none",
    ("robust", 0.5): "none",
    ("non_robust", 0.0): "vanishing",
    ("non_robust", 0.5): "adversarial",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def record() -> Callable[..., subprocess.Popen]:
    """Starts to record a run of the shipped models: ``record("both.yaml", path, "sampling.samples=8", ...)``."""

    def start(config: str, store: Path, *overrides: str) -> subprocess.Popen:
        sets = [part for override in overrides for part in ("--set", override)]
        program = [sys.executable, "-c", "from gradscope.cli import main; main()"]
        arguments = ["record", "--config", config, "--store", str(store), *sets]
        return subprocess.Popen([*program, *arguments], stdout=subprocess.DEVNULL)

    return start


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, record: Callable[..., subprocess.Popen]) -> Path:
    """``both.yaml``, smaller, on the shipped models; GRADSCOPE_BOTH_STORE names a whole one in its place."""
    if given := os.environ.get("GRADSCOPE_BOTH_STORE"):
        return Path(given)
    path = tmp_path_factory.mktemp("recorded") / "both.zarr"
    assert record("both.yaml", path, *SMALL).wait() == 0
    return path


@pytest.fixture(scope="session")
def unstable(tmp_path_factory: pytest.TempPathFactory, record: Callable[..., subprocess.Popen]) -> Path:
    """The non-robust guide at x_t, in as many steps as gradients at a fixed distance need."""
    path = tmp_path_factory.mktemp("recorded") / "unstable.zarr"
    one = (
        "sampling.num_inference_steps=20",
        "classifiers={non_robust: zoo:sportballs32/non_robust}",
        "guidance.classifier_input=[x_t]",
        "guidance.guidance_scale=[0.5]",
        "stabilizers={none: {}}",
    )
    assert record("both.yaml", path, *SMALL, *one).wait() == 0
    return path


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 samples in each of four cells, one of them adversarial: enough for p-values."""
    parts = []
    for seed, (cell, fault) in enumerate(FAULTS.items()):
        at = dict(zip(CELL_DIMS, (cell[0], "x_t", "none", cell[1]), strict=True))
        part = trajectories(fault, 64, 20, seed).drop_vars(["coverage", "coverage_interval", "coverage_floor", "bound"])
        parts.append(part.assign_coords({dim: [value] for dim, value in at.items()}))
    ds = xr.combine_by_coords(parts, combine_attrs="override", join="outer").sel(classifier=["robust", "non_robust"])
    ds = ds.assign_coords(sample=range(64)).assign_attrs(small_store.ATTRIBUTES | {"run_id": "51a7"})
    return small_store.save(ds, tmp_path_factory.mktemp("synthetic") / "synthetic.zarr")


@pytest.fixture
def write(hold) -> Callable[..., Path]:
    """Writes a run of two cells up to one of 20 steps of its first cell, or continues it: ``write(path, steps)``."""

    def go(path: Path, steps: int) -> Path:
        data = trajectories(samples=8, timesteps=20).squeeze()
        grid = Grid(
            ("robust", "non_robust"), ("x_t",), ("none",), (0.5,), data["label"].values, np.arange(8),
            data["timestep"].values, data["alphas_cumprod"].values, data["sigma"].values, (3, 8, 8), 8,
        )  # fmt: skip
        image = ("channel", "height", "width")
        arrays = (
            *[Array(name, "tensor", {"long_name": name, "units": "1"}, dims=image) for name in TENSORS],
            *[Array(name, "scalar", {"long_name": name, "units": "1"}) for name in SCALARS],
            Array("image", "final", {"long_name": "final sample", "units": "1"}, dims=image),
        )
        if not path.exists():
            create(path, Schema(grid, arrays), small_store.ATTRIBUTES | {"status": "recording"})
            hold(path)
        writer = StoreWriter(path, Schema(grid, arrays))
        for step in range(steps):
            now = {name: data[name].isel(timestep=step).values for name in (*TENSORS, *SCALARS)}
            last = {"image": now["x_t"]} if step == grid.timesteps - 1 else {}
            writer.submit(Frame((0, 0, 0, 0), 0, step, now | last))
        writer.close()
        return path

    return go


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if chromium.executable() is None:
        why = "no `chromium` on the path: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with chromium.chromium() as started:
        yield started


@pytest.fixture(scope="session")
def url(both: Path, synthetic: Path) -> Iterator[str]:
    """The dashboard of `both` and `synthetic`, in this order."""
    with chromium.served([both, synthetic]) as address:
        yield address


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves other stores until the test ends: ``serve(path, ..., prefix="/")``."""
    with ExitStack() as stack:
        yield lambda *stores, prefix="/": stack.enter_context(chromium.served(stores, prefix))


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    """A page that tests share, since a new one compiles all scripts again."""
    with browser.new_context(viewport=chromium.SIZE, permissions=["clipboard-read", "clipboard-write"]) as context:
        yield context.new_page()


@pytest.fixture
def visit(browser: Browser, tab: Page) -> Iterator[Callable[..., Page]]:
    """Opens a URL and waits until it is there; afterwards, nothing may have gone wrong.

    ``visit(url, color_scheme="dark")``: in a context of its own, with these options. `expected`: errors of the console
    with this text are meant to happen.
    """
    with ExitStack() as stack:
        watches = []

        def go(address: str, expected: str | None = None, **options) -> Page:
            page = tab
            if options:
                page = stack.enter_context(browser.new_context(viewport=chromium.SIZE, **options)).new_page()
            watches.append(stack.enter_context(chromium.watched(page, address, expected)))
            page.goto(address)
            chromium.settle(page)
            return page

        yield go
        tab.goto("about:blank")
        tab.emulate_media(color_scheme="null")
        tab.set_viewport_size(chromium.SIZE)
    assert [problem for watch in watches for problem in watch.problems] == []
