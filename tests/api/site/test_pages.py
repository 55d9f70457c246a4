"""Pages and their files; `tests/service/test_page.py` uses the page in a browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.problems.problem import install_problem_handlers
from app.problems.types import PROBLEM_TYPES
from app.settings import ApiSettings
from app.site.html import STATIC_FOLDER
from app.site.routes import guide_routes
from densityd.client import ApiError, Client
from tests.api.conftest import assert_refused, served
from tests.support.proxies import NGINX, Nginx, nginx_before

PAGE = STATIC_FOLDER / "page"
MODULES = sorted((PAGE / "js").glob("*.js"))


def test_the_first_load_is_below_350_kb():
    """All modules are imported at once, so that they are the first load, with styles and libraries."""
    loaded = [path for path in PAGE.rglob("*") if path.suffix in {".js", ".css"}]
    assert set(MODULES) < set(loaded)
    assert sum(path.stat().st_size for path in loaded) < 350_000


def test_what_a_module_exports_another_one_imports():
    exported, imported = set(), set()
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        exported |= set(
            re.findall(r"^export (?:async )?(?:function\*?|const|class) (\w+)", text, re.M)
        )
        for names in re.findall(r"^import \{([^}]*)\}", text, re.MULTILINE):
            imported |= {name.partition(" as ")[0].strip() for name in names.split(",")}
    assert exported
    assert exported - imported == set()


def test_the_page_has_no_inline_style():
    for path in MODULES:
        assert not re.search(r"\bstyle=", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("path", ["site.css", "page/js/main.js", "docs/swagger-ui.css"])
def test_a_file_is_packed_and_not_sent_again_while_it_is_current(shared_client, path):
    first = shared_client.get(f"/static/{path}")
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-cache")
    again = shared_client.get(f"/static/{path}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = shared_client.get(f"/static/{path}", headers={"Accept-Encoding": "identity"})
    assert plain.content == first.content
    assert ("content-encoding" in first.headers) == (len(plain.content) >= 4096)


@pytest.mark.parametrize("path", ["none.js", "../html.py", "page/../../html.py", "%2e%2e/html.py"])
def test_nothing_else_is_sent(shared_client, path):
    assert shared_client.get(f"/static/{path}").status_code == 404


@pytest.fixture
def guide_client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    install_problem_handlers(app)
    app.include_router(guide_routes(tmp_path / "site"))
    return TestClient(app)


def test_the_guide_and_nothing_beside_it_is_served_once_it_is_built(guide_client, tmp_path):
    told = assert_refused(guide_client.get("/guide/"), 404, "not-found")
    assert "make docs" in told["detail"]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<script>one</script><p>Welcome")
    (tmp_path / "secret.txt").touch()
    for path in ("nowhere", "%2e%2e/secret.txt", "..%2fsecret.txt", "/etc/passwd"):
        assert guide_client.get(f"/guide/{path}").status_code == 404
    answer = guide_client.get("/guide")
    assert answer.url.path == "/guide/"
    assert "Welcome" in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0=';" in policy


def test_every_problem_type_has_a_page_and_the_list_links_to_it(shared_client):
    listed = shared_client.get("/problems").text
    for slug, kind in PROBLEM_TYPES.items():
        response = shared_client.get(kind.uri)
        assert response.status_code == 200
        assert slug in response.text
        assert f'href=".{kind.uri}"' in listed
    for slug in ("nothing", "<script>"):
        response = shared_client.get(f"/problems/{slug}")
        assert response.headers["content-type"] == "application/problem+json"
        assert response.status_code in {404, 422}
        assert "<script>" not in response.text


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
