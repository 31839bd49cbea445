"""Fixtures for pages in the Chromium of this machine, if there is one; nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ALONE = (
    "--no-sandbox",  # the tests may run as root, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "img"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="Replace the pictures in docs/img.")


def chromium_program() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser per process; tests that need it do not run where there is none."""
    program = chromium_program()
    if program is None:
        pytest.skip("not run: there is no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only tests with a browser need it

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(ALONE))
        yield chromium
        chromium.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Take a screenshot for the docs if requested; else only check that the page renders."""

    def keep(page: Page, name: str) -> None:
        image = page.screenshot(animations="disabled")
        assert image.startswith(b"\x89PNG")
        if request.config.getoption("--screenshots", default=False):
            IMAGES.mkdir(parents=True, exist_ok=True)
            (IMAGES / f"{name}.png").write_bytes(image)

    return keep
