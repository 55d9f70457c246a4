"""The service below a path of a real nginx, which takes the path off or leaves it on."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from pydantic import ValidationError

from app.settings import ApiSettings
from densityd.client import ApiError, Client
from tests.app.conftest import served
from tests.browsers import chromium, needs_chromium, watched_page
from tests.proxies import NGINX, Nginx, nginx_before

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
ROOT = "/densityd"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("below")
    shutil.copy(migrated_database, folder)
    with served(folder, DENSITYD_ROOT_PATH=ROOT) as url:
        yield url


@pytest.fixture(scope="module")
def nginx(straight: str) -> Iterator[Nginx]:
    with nginx_before(int(straight.rpartition(":")[2])) as nginx:
        yield nginx


@pytest.fixture(params=["taken off", "left on"])
def origin(nginx: Nginx, request: pytest.FixtureRequest) -> str:
    port = nginx.buffering if request.param == "taken off" else nginx.keeping
    return f"http://127.0.0.1:{port}"


@pytest.mark.long
@needs_nginx
def test_links_lead_back_through_the_proxy(origin):
    with httpx.Client(base_url=origin, timeout=60) as http:
        for seed in (1, 2):
            body = {"model": "people", "n": 5, "seed": seed}
            made = http.post(f"{ROOT}/v1/jobs/sampling", json=body)
            assert made.headers["Location"] == f"{ROOT}/v1/jobs/{made.json()['id']}"
            assert http.get(made.headers["Location"]).json()["id"] == made.json()["id"]
        page = http.get(f"{ROOT}/v1/jobs?limit=1")
        (after,) = re.findall(r'<(.*)>; rel="next"', page.headers["Link"])
        assert http.get(after).json()["items"] != page.json()["items"]
        kind = http.get(f"{ROOT}/v1/models/none").json()["type"]
        assert kind == f"{ROOT}/problems/not-found"
        assert f"<code>{kind}</code>" in http.get(kind).text
        (server,) = http.get(f"{ROOT}/openapi.json").json()["servers"]
        assert server == {"url": ROOT}


@pytest.mark.long
@needs_nginx
def test_the_client_takes_a_url_with_a_path(origin):
    with Client(f"{origin}{ROOT}/") as client:
        assert client.log_prob("people", [[170, 70, 40]]).shape == (1,)
        assert all(model.name == "people" for model in client.models.list())
        with pytest.raises(ApiError, match="No such model"):
            client.models.get("no_such")


@pytest.mark.long
@needs_nginx
@needs_chromium
def test_pages_below_the_path_load_all_that_they_need(nginx):
    origin = f"http://127.0.0.1:{nginx.buffering}"
    with chromium() as browser, watched_page(browser, f"{origin}{ROOT}") as page:
        page.goto(f"{origin}{ROOT}/")
        page.get_by_role("link", name="Models", exact=True).click()
        expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="people", exact=True)).to_be_visible()
        page.get_by_role("link", name="Settings", exact=True).click()
        expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()
        page.get_by_role("link", name="Swagger UI", exact=True).click()
        block = page.locator("#operations-operations-get_liveness")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        status = block.locator(".live-responses-table tbody .response-col_status")
        expect(status).to_have_text(re.compile("200"))
        page.goto(f"{origin}{ROOT}/problems")
        page.get_by_role("link", name="not-found", exact=True).click()
        page.get_by_role("link", name="All problem types", exact=True).click()
        expect(page.get_by_role("heading", name="Problems", exact=True)).to_be_visible()


@pytest.mark.long
def test_probes_need_no_path_and_the_path_alone_leads_to_the_page(straight):
    assert httpx.get(f"{straight}/livez").status_code == 200
    assert httpx.get(f"{straight}{ROOT}/livez").status_code == 200
    assert httpx.get(f"{straight}{ROOT}").headers["Location"] == f"{ROOT}/"
    for elsewhere in (f"{ROOT}{ROOT}/livez", f"{ROOT}x/livez", "/v2/none"):
        assert httpx.get(f"{straight}{elsewhere}").status_code == 404


@pytest.mark.parametrize("path", ["densityd", "/densityd/", "/a//b", "/a b", "/"])
def test_a_root_path_that_is_none_is_refused(path):
    with pytest.raises(ValidationError, match="a root path looks like /densityd"):
        ApiSettings(root_path=path)
