"""Make README's pictures of the dashboard: ``python tests/dashboards/screenshots.py runs/both.zarr runs/pictures``."""

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))  # the tests' folder

import chromium  # noqa: E402


def main(store: Path, folder: Path) -> None:
    with chromium.served([store]) as url, chromium.chromium() as browser:
        # Chromium's own waiting evaluates text, which the page forbids.
        with browser.new_context(viewport=chromium.SIZE, color_scheme="light", bypass_csp=True) as context:
            page = context.new_page()
            page.goto(url)
            page.locator("#findings-table .ag-row").first.wait_for()
            save(page, folder / "dashboard-overview.png")
            page.locator("#finding-link").click()
            page.locator("#maps[data-timestep]").wait_for()
            chromium.settle(page)
            save(page, folder / "dashboard-trajectory.png")


def save(page, path: Path) -> None:
    """Save the visible part of a page."""
    chromium.settle(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(path, optimize=True)
    print(f"wrote {path}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
