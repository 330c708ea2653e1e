"""The pages of watched loops, of classifier-free guidance and of checks in a browser."""

import json

import chromium
import pytest
import small_leaderboard
import small_store
import watched_store

LARGE = {"width": 1920, "height": 1080}
DOCUMENT = {
    "kind": "gradscope check", "version": 1, "source": "both.yaml", "right": False,
    "answers": [
        {"guide": "robust", "classifier_input": "x_t", "timestep": 999, "verdict": "right", "kind": "right",
         "confidence": "high", "meaning": "c = g", "evidence": {"cosine": 1.0}},
        {"guide": "robust", "classifier_input": "x0", "timestep": 10, "verdict": "doubled", "kind": "fault",
         "confidence": "high", "meaning": "c = 2 g", "advice": "<b>look</b> for a gradient that is added twice"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    (folder / "check.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    return {
        "loop": small_store.save(watched_store.classifier().assign_attrs(run_id="100b0000"), folder / "loop.zarr"),
        "guidance": small_store.save(
            watched_store.classifier_free().assign_attrs(run_id="cf600000"), folder / "free.zarr"
        ),
        "check": folder / "check.json",
        "oracle": small_leaderboard.saved(folder / "oracle.zarr"),
    }


@pytest.mark.parametrize("name", ["loop", "guidance", "check", "oracle"])
def test_the_page_opens_in_light_and_dark_and_in_both_sizes(serve, visit, stores, name):
    """Errors of the console fail the test, see `visit`."""
    page = visit(f"{serve(stores[name])}{name}")
    assert page.locator(f"#to-{name}").get_attribute("aria-current") == "page"
    assert page.locator("#notices").inner_text() == ""
    page.locator("#page .ag-row").first.wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.locator(f"html[data-mantine-color-scheme={scheme}]").wait_for()
        page.wait_for_timeout(300)  # colours fade over
        assert chromium.serious(page) == []
        for size in (chromium.SIZE, LARGE):
            page.set_viewport_size(size)
            page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_the_navigation_has_the_pages_that_have_something_to_show(serve, visit, stores):
    page = visit(serve(*stores.values()))
    usual = ["Overview", "Trajectory", "Compare", "Distributions", "Samples", "Loop", "Run"]
    assert links(page) == usual
    for store, names in (
        ("free.zarr", [*usual[:4], "Guidance", *usual[4:]]),
        ("check.json", ["Check"]),
        ("oracle.zarr", ["Leaderboard"]),
        ("loop.zarr", usual),
    ):
        page.locator("#store-select").click()
        page.get_by_role("option", name=store).click()
        page.wait_for_function(
            "(names) => [...document.querySelectorAll('.nav a:not([hidden])')].map((a) => a.innerText).join() == names",
            arg=",".join(names),
        )
        chromium.settle(page)
        assert links(page) == names
        assert page.locator("#notices").inner_text() == ""


def test_the_text_beside_the_verdicts_is_that_of_the_row(serve, visit, stores):
    page = visit(serve(stores["check"]))
    text = page.locator(".finding")
    assert "doubled" in page.locator("#check-name").inner_text()  # the first that is not right
    assert "<b>look</b> for a gradient that is added twice" in text.inner_text()
    assert "Evidence" not in text.inner_text()
    page.locator("#check-rows .ag-row").first.locator("[col-id=confidence]").click()
    page.locator("#check-name", has_text="right").wait_for()
    assert "What to change" not in text.inner_text()
    assert "cosine: 1" in text.inner_text()


def test_a_click_on_a_row_of_the_leaderboard_draws_its_curve_or_removes_it(serve, visit, stores):
    page = visit(serve(stores["oracle"]))
    legend = page.locator("#oracle-curves .legend .legendtext")
    legend.first.wait_for()
    before = legend.all_text_contents()
    new = page.locator("#oracle-rows .ag-row", has_text="mine").first
    name = ", ".join(new.locator(f"[col-id={key}]").inner_text() for key in ("guide", "guidance_method", "stabilizer"))
    assert name not in before
    new.locator("[col-id=coverage]").click()
    legend.filter(has_text=name).wait_for()
    assert legend.all_text_contents() == [*before, name]
    assert len(chromium.query(page)["rows"].split(",")) == len(before) + 1
    new.locator("[col-id=coverage]").click()
    legend.filter(has_text=name).wait_for(state="detached")
    assert legend.all_text_contents() == before


def test_a_click_on_a_cell_opens_its_trajectory_with_the_parts(serve, visit, stores):
    page = visit(f"{serve(stores['guidance'])}guidance")
    page.locator("#guidance-rows .ag-row").nth(3).click()
    page.wait_for_url("**/trajectory?**")
    chromium.settle(page)
    query = chromium.query(page)
    assert query["cell"] == "3"
    assert query["variables"] == "gradient_parallel_norm,gradient_perpendicular_norm,prediction_change"


def test_numbers_of_tables_are_short(serve, visit, stores):
    page = visit(serve(stores["check"]))
    shown = page.evaluate(
        """() => {
            const { significant, digits } = window.dashAgGridFunctions;
            const small = [1.05e-6, -2e-7, 1.2e-4, 0, 12345, 0.1 + 0.2];
            return [...small.map(significant), digits(-0.001, 2), digits(-0.006, 2), digits(0, 1), digits(null, 1)];
        }"""
    )
    assert shown == ["1.05e-6", "-2e-7", "1.2e-4", "0", "12300", "0.3", "0.00", "-0.01", "0.0", "–"]


def links(page) -> list[str]:
    """Texts of the navigation."""
    return [link.inner_text() for link in page.locator(".nav a").all() if link.is_visible()]
