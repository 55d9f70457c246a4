"""The service below a path of a real nginx, which takes the path off or leaves it on."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from app.settings import ApiSettings
from densityd.client import ApiError, Client
from tests.api.conftest import served
from tests.support.proxies import NGINX, Nginx, nginx_before

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


@needs_nginx
def test_the_client_takes_a_url_with_a_path(origin):
    with Client(f"{origin}{ROOT}/") as client:
        assert client.log_prob("people", [[170, 70, 40]]).shape == (1,)
        assert all(model.name == "people" for model in client.models.list())
        with pytest.raises(ApiError, match="No such model"):
            client.models.get("no_such")


def test_probes_need_no_path_and_the_path_alone_leads_to_the_page(straight):
    assert httpx.get(f"{straight}/livez", timeout=60).status_code == 200
    assert httpx.get(f"{straight}{ROOT}/livez", timeout=60).status_code == 200
    assert httpx.get(f"{straight}{ROOT}", timeout=60).headers["Location"] == f"{ROOT}/"
    for elsewhere in (f"{ROOT}{ROOT}/livez", f"{ROOT}x/livez", "/v2/none"):
        assert httpx.get(f"{straight}{elsewhere}", timeout=60).status_code == 404


def test_a_root_path_that_is_none_is_refused():
    for path in ("densityd", "/densityd/", "/a//b", "/a b", "/"):
        with pytest.raises(ValidationError, match="a root path looks like /densityd"):
            ApiSettings(root_path=path)
