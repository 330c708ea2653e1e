"""What is seen before the page is there, and what the keyboard does to a select."""

import chromium
import pytest


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_frame_is_there_before_the_layout(browser, url, scheme):
    with browser.new_context(viewport=chromium.SIZE, color_scheme=scheme) as context:
        page, held = context.new_page(), []
        page.route("**/_dash-layout", lambda route: held.append(route))  # unanswered for now
        page.goto(f"{url}overview", wait_until="commit")
        page.wait_for_function("() => document.querySelector('._dash-loading') && window.dash_clientside")
        text = page.locator("body").inner_text()
        assert text.split()[:2] == ["gradscope", "Overview"]
        assert "Loading" not in text
        dark = page.locator(".first-paint").evaluate("(each) => getComputedStyle(each).backgroundColor")
        assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
        while not held:
            page.wait_for_timeout(50)
        held.pop().continue_()
        chromium.settle(page)
        assert not page.locator(".first-paint").is_visible()
        assert page.locator("header.header").count() == 1


def test_typing_replaces_the_text_of_a_select(visit, url):
    page = visit(f"{url}trajectory")
    select = page.locator('[id=\'{"key":"cell","type":"control"}\']')
    before = select.input_value()
    select.click()
    page.keyboard.type("non_robust, x0")
    assert select.input_value() == "non_robust, x0"
    page.locator("[role=option]:visible", has_text="non_robust, x0").first.click()
    chromium.settle(page)
    after = select.input_value()
    assert after.startswith("non_robust, x0")
    assert after != before
    page.keyboard.type("robust, x_t")  # the select has the focus still
    assert select.input_value() == "robust, x_t"
