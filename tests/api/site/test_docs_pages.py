"""Swagger UI and ReDoc in a real browser; skipped only where no Chromium is installed."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.site.routes import GUIDE_FOLDER
from tests.support.browsers import chromium, needs_chromium, watched_page

# A busy machine is no fault.
pytestmark = [needs_chromium, pytest.mark.browser, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, guarded_server: tuple[str, dict[str, str]]) -> Iterator[Page]:
    url, headers = guarded_server
    with watched_page(browser, url) as page:
        page.set_extra_http_headers(headers)
        yield page


@pytest.fixture(scope="module")
def operations(guarded_server: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    url, _ = guarded_server
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def open_operation(page: Page, tag: str, operation_id: str) -> Locator:
    """Unfold an operation and press "Try it out"."""
    block = page.locator(f"#operations-{tag}-{operation_id}")
    unfold(page, tag)
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def expect_status(block: Locator, status: str) -> None:
    """Press "Execute" and look at the answer."""
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table tbody .response-col_status")
    expect(answer).to_have_text(re.compile(status))


def unfold(page: Page, tag: str) -> None:
    head = page.locator(f"#operations-tag-{tag}")
    expect(page.locator("#operations-tag-scores")).to_have_attribute("data-is-open", "true")
    if head.get_attribute("data-is-open") == "false":
        head.click()


def test_swagger_ui_lists_every_operation(page, operations):
    page.goto("/docs")
    tags = dict.fromkeys(operation["tags"][0] for operation in operations)
    expect(page.locator(".opblock-tag")).to_have_count(len(tags))
    expect(page.locator(".opblock-tag").first).to_have_attribute("data-tag", "scores")
    for tag in tags:
        unfold(page, tag)
    expect(page.locator(".opblock")).to_have_count(len(operations))
    for operation in operations:
        block = page.locator(f"#operations-{operation['tags'][0]}-{operation['operationId']}")
        expect(block).to_contain_text(operation["summary"])


def test_swagger_ui_sends_the_key_that_it_was_given(browser, guarded_server):
    url, headers = guarded_server
    with watched_page(browser, url, expected=("status of 401",)) as page:
        page.goto("/docs")
        listing = open_operation(page, "models", "list_models")
        expect_status(listing, "401")
        page.locator(".auth-wrapper .authorize").first.click()
        dialogue = page.locator(".dialog-ux")
        dialogue.locator("input").fill(headers["Authorization"].removeprefix("Bearer "))
        dialogue.get_by_role("button", name="Apply credentials").click()
        dialogue.get_by_role("button", name="Close").first.click()
        listing.get_by_role("button", name="Clear").click()
        expect_status(listing, "200")


@pytest.mark.skipif(not GUIDE_FOLDER.exists(), reason="needs the guide that `make docs` builds")
def test_the_guide_searches_and_leads_to_its_pages(page):
    page.goto("/guide")
    page.get_by_role("link", name="tutorial", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("from a table to a deployed model")
    page.get_by_placeholder("Search").fill("quantile")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li").first
    expect(found).to_contain_text("quantile")
    found.get_by_role("link").first.click()
    expect(page).to_have_url(re.compile(r"/guide/\w+.*\.html"))
