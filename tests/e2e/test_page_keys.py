"""Keys of a project on the web page, without a mouse: the page is opened with one, which makes others."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsers import findings_of_axe, needs_chromium, tab_to, watched_page
from tests.ports import free_port
from tests.servers import tied
from tests.waiting import wait_until

_MAIN = "from densityd.cli import main; main()"
TIMEOUT_S = 240  # of a start, on a machine that may be busy
pytestmark = [needs_chromium, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """An API without workers, and the key of an administrator."""
    folder, port = tmp_path_factory.mktemp("keys"), free_port()
    environment = os.environ | {
        "DENSITYD_DATA_DIR": str(folder / "data"),
        "DENSITYD_PORT": str(port),
        "DENSITYD_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    made = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", _MAIN, "keys", "create", "--scope", "admin"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            tied(sys.executable, "-P", "-m", "app"), env=environment, stderr=log
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process, folder / "log")
            yield url, made.stdout.split()[-1]
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the page of settings, which asks for the readiness, has nothing to complain of."""
    with httpx.Client(timeout=TIMEOUT_S) as client:
        while process.poll() is None:
            with suppress(httpx.ConnectError):
                if client.get(f"{url}/readyz").is_success:
                    return
            time.sleep(0.05)
    raise AssertionError(log.read_text())


def write(page: Page, label: str, text: str) -> None:
    tab_to(page, page.get_by_label(label, exact=True))
    page.keyboard.type(text)


def press(page: Page, button: str) -> None:
    tab_to(page, page.get_by_role("main").get_by_role("button", name=button, exact=True))
    page.keyboard.press("Enter")


def works(url: str, key: str) -> bool:
    return httpx.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {key}"}).is_success


@pytest.mark.long
def test_a_key_is_made_replaced_and_revoked_by_keys(
    browser: Browser, service: tuple[str, str]
) -> None:
    url, admin = service
    with watched_page(browser, url, expected=("status of 401",)) as page:
        page.goto("/#/settings")
        write(page, "API key", admin)
        press(page, "Use this key")
        expect(page.get_by_role("heading", name="Keys of this project", exact=True)).to_be_visible()

        write(page, "For", "nightly scores")
        press(page, "Make a key")
        shown = page.get_by_role("group", name="New key", exact=True)
        first = shown.inner_text()
        row = page.get_by_role("row").filter(has_text="nightly scores")
        expect(row).to_have_count(1)
        assert works(url, first)
        assert findings_of_axe(page) == ""

        replace = row.get_by_role("button", name="Replace", exact=True)
        tab_to(page, replace)
        page.keyboard.press("Enter")
        expect(shown).not_to_have_text(first)
        second = shown.inner_text()
        assert works(url, second)
        expect(page.get_by_role("status").filter(has_text="still works for a day")).to_be_visible()
        expect(row).to_have_count(2)  # the newest last
        expect(replace.first).to_be_focused()
        revoke = row.last.get_by_role("button", name="Revoke", exact=True)
        tab_to(page, revoke)
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # the focus is on the answer
        expect(row.filter(has_text="revoked")).to_have_count(1)
        wait_until(lambda: not works(url, second))
        assert works(url, first)
