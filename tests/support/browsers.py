"""Chromium for tests of pages: what a page loads and complains about is watched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # it ships no type information
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

WAIT_MS = 240_000  # for whatever a page is waited for: a busy machine is no fault
expect.set_options(timeout=WAIT_MS)
# The themes differ in colours alone: what else axe looks at is looked at in one of them.
_RULES_OF_THEMES: dict[Literal["light", "dark"], dict[str, object]] = {
    "light": {},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}},
}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=WAIT_MS
        )
        yield browser
        browser.close()


@contextmanager
def watched_page(
    browser: Browser,
    url: str,
    *,
    height: int = 1600,
    expected: tuple[str, ...] = (),
    beside: tuple[str, ...] = (),
) -> Iterator[Page]:
    """A page that may load from one server alone, and may not complain.

    Args:
        browser: Browser that shows it.
        url: Server.
        height: Height of the window in pixels.
        expected: Parts of complaints that belong to the test.
        beside: Other servers that it may load from.
    """
    page = browser.new_page(base_url=url, viewport={"width": 1280, "height": height})
    page.set_default_timeout(WAIT_MS)
    requested: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    yield page
    page.close()
    known = (url, *beside, "data:", "blob:")
    assert [found for found in requested if not found.startswith(known)] == []
    unexpected = [text for text in complaints if not any(part in text for part in expected)]
    assert unexpected == [], unexpected


def findings_of_axe(page: Page) -> str:
    """Return what axe finds in a view in the light and the dark theme, with all details unfolded."""
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    reports = []
    for theme, rules in _RULES_OF_THEMES.items():
        # What pulses has another colour at each moment.
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        found = Axe().run(page, options={"resultTypes": ["violations"], **rules})
        reports += [f"{theme}: {found.generate_report()}"] if found.violations_count else []
    return "\n".join(reports)


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until an element has the focus, which must be seen, as a person without a mouse does."""
    expect(target).to_be_enabled()
    for _ in range(200):
        page.keyboard.press("Tab")
        if has_focus(target):
            outline = target.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"Tab does not reach {target}")


def has_focus(target: Locator) -> bool:
    """Return whether an element has the focus."""
    return bool(target.evaluate("element => element === document.activeElement"))
