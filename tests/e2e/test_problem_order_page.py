"""Tests of the Problem Order page in Chromium: the walks of the specification page, by clicks and by keyboard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.plugins.market import Market
from tests.plugins.website import Website, website
from web.sessions import sign_link
from workers.embedded.client import ServerUrls

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.long, pytest.mark.browser, pytest.mark.timeout(240)]

SECRET = "a secret that only the marketplace and we know"


def seed(market: Market) -> None:
    for order_id in (1001, 1002, 1003):
        market.order(order_id)


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(servers, admin, template_database, seed, link_secret=SECRET) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page without JavaScript, which reports what the content policy blocks."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    yield page
    context.close()
    assert blocked == []


def sign_in(page: Page, site: Website, name: str, order_id: int) -> None:
    token = sign_link(SECRET, name, int(time.time()), order_id=order_id)  # noqa: TID251 - the marketplace's clock
    page.goto(f"{site.url}/problem-order/sign-in?token={token}")


def test_seller_files_a_request_and_cancels(site: Website, page: Page, picture: Callable[[Page, str], None]) -> None:
    page.set_viewport_size({"width": 900, "height": 900})
    sign_in(page, site, "seller", 1001)
    page.get_by_text("File a cancel request", exact=True).click()
    page.locator('form[action$="ocr.file"]').get_by_label("Reason").select_option("S_MUTUAL")
    page.locator('form[action$="ocr.file"]').get_by_label("Your comment").fill("We agreed to call it off.")
    page.locator('form[action$="ocr.file"]').get_by_role("button", name="Take Action").click()
    assert page.get_by_role("status").inner_text().startswith("Done")
    picture(page, "problem-order-seller")
    page.locator('form[action$="orders.cancel"]').get_by_role("button", name="Take Action").click()
    assert "CANCELLED" in page.get_by_role("heading", level=1).inner_text()


def test_buyer_files_a_request_with_the_keyboard_on_a_narrow_screen(
    site: Website,
    page: Page,
    picture: Callable[[Page, str], None],
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, site, "buyer", 1002)
    page.locator('details:has(form[action$="ocr.file"]) summary').focus()
    for key in ("Enter", "Tab", "ArrowDown", "Tab"):
        page.keyboard.press(key)
    page.keyboard.type("We agreed.")
    for key in ("Tab", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector('[role="status"]', timeout=60_000)
    assert "OCR" in page.get_by_role("heading", level=1).inner_text()
    assert page.locator("main").bounding_box()["width"] <= 360  # type: ignore[index] # it is visible
    picture(page, "problem-order-buyer")


def test_four_step_edit(site: Website, page: Page, picture: Callable[[Page, str], None]) -> None:
    page.set_viewport_size({"width": 900, "height": 900})
    sign_in(page, site, "seller", 1003)
    page.get_by_text("File a cancel request", exact=True).click()
    page.locator('form[action$="ocr.file"]').get_by_label("Reason").select_option("S_NO_STOCK")
    page.locator('form[action$="ocr.file"]').get_by_label("Your comment").fill("They were lost.")
    page.locator('form[action$="ocr.file"]').get_by_role("button", name="Take Action").click()
    page.get_by_role("link", name="Edit the items before they return").click()
    page.get_by_label("Remarks").select_option("new")
    page.get_by_role("button", name="Continue to step 2").click()
    page.get_by_label("Quantity").fill("7")
    page.get_by_label("Remarks").fill("box 12")
    page.get_by_role("button", name="Continue to step 3").click()
    assert "box 12" in page.get_by_role("table").inner_text()
    picture(page, "problem-order-edit")
    page.get_by_role("button", name="Take Action").click()
    assert "CANCELLED" in page.get_by_role("heading", level=1).inner_text()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(site: Website, browser: Browser, colours: Literal["light", "dark"]) -> None:
    """It checks labels, headings, roles and contrast. It is a script, which the pages' own policy would block."""
    context = browser.new_context(bypass_csp=True, color_scheme=colours)
    page = context.new_page()
    visits = {
        "seller": ("", "/1001", "/1001/edit", "/bills/seller/2026-11", "/999"),
        "buyer": ("/1002",),
        "Kim": ("/1001", "/forecast"),
    }
    findings = []
    for name, paths in visits.items():
        token = sign_link(SECRET, name, int(time.time()), staff=name == "Kim")  # noqa: TID251 - as above
        page.goto(f"{site.url}/problem-order/sign-in?token={token}")
        for path in paths:
            page.goto(f"{site.url}/problem-order{path}")
            for details in page.locator("details").all():
                details.evaluate("element => element.open = true")
            violations = Axe().run(page).response["violations"]
            findings += [
                (path, finding["id"], finding["impact"], finding["nodes"][0]["html"]) for finding in violations
            ]
    context.close()
    assert findings == []
