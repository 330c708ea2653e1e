"""Behind a reverse proxy: every request stays below the path that the proxy serves."""

import chromium


def test_every_request_stays_below_the_prefix(serve, visit, both):
    url = serve(both, prefix="/gradscope/")
    requested: list[str] = []
    page = visit(url)
    page.on("request", lambda request: requested.append(request.url))
    for name in ("samples", "trajectory"):
        page.locator(f"#to-{name}").click()
        page.wait_for_url(f"**/gradscope/{name}?**")
        chromium.settle(page)
    page.locator("#timestep").press("ArrowRight")
    chromium.settle(page)
    menu = page.locator("#menu-curve-0")
    menu.locator(".export-button").click()
    with page.expect_download() as download:
        menu.locator(".export-items a").first.click()
    assert download.value.url.startswith(f"{url}numbers/")
    for part in ("frames", "thumbnails"):
        assert any(address.startswith(f"{url}{part}/") for address in requested)
    assert [address for address in requested if not address.startswith((url, "data:", "blob:"))] == []
