from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from app.problems.problem import install_problem_handlers
from app.site.routes import guide_routes


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    install_problem_handlers(app)
    app.include_router(guide_routes(tmp_path / "site"))
    return TestClient(app)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    page = tmp_path / "site" / "index.html"
    page.parent.mkdir()
    (tmp_path / "secret.txt").touch()
    page.write_text("<script>one</script><p>Welcome")
    return page


def test_a_guide_that_was_not_built_says_how(client):
    answer = client.get("/guide/")

    assert answer.status_code == 404
    assert "make docs" in answer.json()["detail"]


@pytest.mark.usefixtures("index")
def test_pages_may_run_their_own_scripts_alone(client):
    answer = client.get("/guide")

    assert answer.url.path == "/guide/"
    assert "Welcome" in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-dpLDrTVAu4A8Ags67mbNiIcSMjTqDG5xQ8Ct1z/0Me0=';" in policy


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("path", ["nowhere", "%2e%2e/secret.txt", "..%2fsecret.txt", "/etc/passwd"])
def test_nothing_else_is_served(client, path):
    assert client.get(f"/guide/{path}").status_code == 404


@pytest.mark.usefixtures("index")
def test_a_path_of_thousands_of_folders_is_not_looked_up(client, monkeypatch):
    monkeypatch.setattr(StaticFiles, "lookup_path", lambda *_: pytest.fail("looked up"))
    answer = client.get("/guide/" + "x/" * 2_000)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "There is no such file."
