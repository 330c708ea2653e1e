"""Axe finds nothing serious on pages of unusual stores, in open menus and dialogs, in light and dark."""

from pathlib import Path

import any_sample
import chromium
import numpy as np
import pytest
import small_store
from small_store import BAD

KINDS = ("video", "signal", "trajectory", "point", "cloud", "table")


def partial():
    """A run of which two cells have no step, and two half of them."""
    ds = small_store.evaluated()
    written = ds["written"].values
    written[1, 0, 0], written[0, 1, 1, :, :, 5:] = 0, 0
    return ds.assign_attrs(run_id="9a27", status="recording")


def not_finite():
    """The first gradients of one cell are NaN."""
    ds = small_store.evaluated()
    late = ds["timestep"] < 600
    for name, value in {"gradient": np.nan, "gradient_norm": np.nan, "finite_fraction": 0.2}.items():
        ds[name].loc[BAD] = ds[name].sel(BAD).where(late, value)
    return ds.assign_attrs(run_id="9a9a")


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("unusual")
    few = small_store.evaluated().isel(sample=slice(4)).assign_attrs(run_id="4444")
    made = {"partial": partial(), "not_finite": not_finite(), "four": few}
    return {name: small_store.save(ds, folder / f"{name}.zarr") for name, ds in made.items()} | {
        kind: any_sample.save(folder / f"{kind}.zarr", kind, marred=[((1, 0, 0, 1), 1, 3, np.nan)]) for kind in KINDS
    }


def assert_accessible(page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.locator(f"html[data-mantine-color-scheme={scheme}]").wait_for()
        page.wait_for_timeout(300)  # colours fade over
        assert chromium.serious(page) == []


@pytest.mark.parametrize("name", ["partial", "not_finite", "four", *KINDS])
def test_pages_of_unusual_stores(serve, visit, stores, name):
    address = serve(stores[name])
    for view in ("trajectory?cell=1", "samples") if name in KINDS else ("overview", "trajectory?cell=9", "samples"):
        assert_accessible(visit(f"{address}{view}"))


def test_banner_menus_and_dialogs(serve, visit, stores):
    page = visit(f"{serve(stores['four'], stores['not_finite'])}trajectory?store=4444&cell=9&finding=9.unstable")
    page.locator("#finding-banner h2").wait_for()
    for menu in ("Notes", "cells, diagnostics and class", "Export maps", "Export"):
        page.locator("summary:visible").get_by_text(menu, exact=True).first.click()
        assert_accessible(page)
    for view, shown in (
        ("trajectory?store=4444&cell=9&zoom=gradient", "#zoom[open]"),
        ("compare?store=4444&other_store=9a9a&cell=9&other=1", "#compare-table tbody"),
    ):
        page.goto(page.url.partition("trajectory")[0] + view)
        page.locator(shown).wait_for()
        chromium.settle(page)
        assert_accessible(page)
