"""Files of pages: what browsers keep, what is compressed, what is not served."""

import gzip
import re
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.testclient import TestClient

from app.problems.problem import install_problem_handlers
from app.site.html import STATIC_FOLDER
from app.site.static_files import StaticFolder

TEXT = "a line of a script\n" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "js").mkdir(parents=True)
    (folder / "js" / "one.js").write_text(TEXT)
    (tmp_path / "secret.txt").touch()
    return folder


def served(files: StaticFolder) -> TestClient:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/static/{path:path}")
    async def file(request: Request, path: str) -> Response:
        return await files.respond(path, request)

    return TestClient(app)


def test_a_file_is_sent_compressed_or_not(folder):
    client = served(StaticFolder(folder))
    plain = client.get("/static/js/one.js", headers={"Accept-Encoding": "identity"})
    assert plain.text == TEXT
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-type"].startswith("text/javascript")
    packed = client.get("/static/js/one.js", headers={"Accept-Encoding": "gzip"})
    assert packed.text == TEXT
    assert int(packed.headers["content-length"]) == len(gzip.compress(TEXT.encode(), mtime=0))
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]


def test_browsers_keep_a_version_for_good_and_ask_again_for_all_else(folder):
    files = StaticFolder(folder)
    client, version = served(files), files.version
    kept = client.get(f"/static/{version}/js/one.js")
    assert kept.headers["cache-control"] == "max-age=31536000, immutable"
    for path in ("js/one.js", "v-0123456789abcdef/js/one.js"):
        asked = client.get(f"/static/{path}")
        assert (asked.text, asked.headers["cache-control"]) == (TEXT, "no-cache")
        again = client.get(f"/static/{path}", headers={"If-None-Match": asked.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    (folder / "js" / "one.js").write_text(TEXT.upper() + "one more\n")
    assert files.version != version
    changed = client.get(f"/static/{version}/js/one.js")
    assert changed.text.startswith(TEXT.upper())
    assert changed.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["nowhere", "js", "%2e%2e/secret.txt", "..%2fsecret.txt", "/etc/passwd", "v-1/", "v-1"]
)
def test_nothing_else_is_served(folder, path):
    assert served(StaticFolder(folder)).get(f"/static/{path}").status_code == 404


def test_the_page_names_current_files_that_browsers_keep(shared_client):
    page = shared_client.get("/").text
    links = re.findall(r'(?:href|src)="(static/v-[^"]+)"', page)
    modules = {path.name for path in (STATIC_FOLDER / "page" / "js").glob("*.js")}
    assert modules <= {Path(link).name for link in links}
    for link in links:
        answer = shared_client.get(f"/{link}")
        assert (answer.status_code, answer.headers["cache-control"][-9:]) == (200, "immutable")
