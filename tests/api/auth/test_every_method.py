"""Every route under every method, with a key and without, with a body and without."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.auth.admission import Policy
from app.main import create_app
from app.scoring import routes as scores
from app.settings import ApiSettings
from models_store.keys import Scope
from tests.api.conftest import CSV, TABLE
from tests.api.serving import bearer, keyed, stocked

# DELETE is the last: what is there is gone after it.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO", "DELETE")
TEMPLATES = sorted(
    {
        str(route.path).replace(":path}", "}")
        for route in iter_route_contexts(create_app(ApiSettings()).routes)
    }
)
ABSENT = {
    "dataset_id": "ds_x",
    "job_id": "job_x",
    "webhook_id": "wh_x",
    "key_id": "key_x",
    "name": "nobody",
    "model": "nobody",
    "ref": "nobody",
    "version": "7",
    "alias": "nothing",
    "kind": "pairs",
    "slug": "nothing",
    "path": "nothing",
    "project": "nobody-s",
    "digest": "0" * 64,
}
NOWHERE = ["/nothing", "/v1", "/v1/", "/v1/datasets/", "/v1/jobs/a/b/c", "/livez/", "/problems/"]


class Door:
    """An application that asks for keys, and what is there for the paths of its routes."""

    def __init__(self, client: TestClient, token: str, present: dict[str, str]) -> None:
        self.client, self.key, self.present = client, bearer(token), present

    def fill(self, template: str, *, there: bool) -> str:
        if there and "dataset_id" in template:
            self.present["dataset_id"] = self.made("datasets", content=TABLE, headers=CSV)
        if there and "webhook_id" in template:
            self.present["webhook_id"] = self.made("webhooks", json={"url": "https://example.org/"})
        if there and "key_id" in template:
            self.present["key_id"] = self.made("keys", json={})
        return template.format_map(self.present if there else ABSENT)

    def made(self, what: str, headers: dict[str, str] | None = None, **body: Any) -> str:
        headers = self.key | (headers or {})
        return str(self.client.post(f"/v1/{what}", headers=headers, **body).json()["id"])

    def ask(
        self, method: str, path: str, *, key: bool = True, body: bytes = b""
    ) -> httpx2.Response:
        headers = (self.key if key else {}) | ({"Content-Type": "application/json"} if body else {})
        return self.client.request(
            method, path, headers=headers, content=body, follow_redirects=False
        )


@pytest.fixture(scope="module")
def door(shared_settings: ApiSettings) -> Iterator[Door]:
    with keyed(shared_settings) as (client, keys):
        token = keys.create("default", Scope.ADMIN).token
        version = stocked(client, "default")
        present = {
            "job_id": str(version.job_id),
            "name": "people",
            "model": "people",
            "ref": "people",
            "version": "1",
            "alias": "production",
            "kind": "images",
            "slug": "not-found",
            "path": "site.css",
            "project": "default",
            "digest": "0" * 64,
        }
        yield Door(client, token, present)


def allowed_by(answer: httpx2.Response) -> set[str]:
    return set(answer.headers["allow"].split(", "))


def check(method: str, path: str, answer: httpx2.Response) -> None:
    where = f"{method} {path} answered {answer.status_code}"
    assert 200 <= answer.status_code < 500, where
    if method != "HEAD" and answer.status_code >= 400 and path.startswith("/v2"):
        assert answer.json().keys() == {"error"}, where
    elif method != "HEAD" and answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", where
        assert answer.json()["status"] == answer.status_code, where
    if answer.status_code == 405:
        assert method not in allowed_by(answer), where
    elif method == "OPTIONS":
        assert answer.status_code in (401, 404), where


@pytest.mark.parametrize("there", [True, False], ids=["present", "absent"])
def test_a_wrong_method_is_refused_with_those_that_there_are(door, there):
    for template in TEMPLATES:
        check_methods(door, template, there=there)


def check_methods(door: Door, template: str, *, there: bool) -> None:
    path = door.fill(template, there=there)
    answers = {}
    for method in METHODS:
        answers[method] = door.ask(method, path, body=b"{}" if there else b"")
        check(method, path, answers[method])
    refused = [answer for answer in answers.values() if answer.status_code == 405]
    assert refused, path
    allowed = allowed_by(refused[0])
    assert all(allowed_by(answer) == allowed for answer in refused), path
    assert not any(answers[method].status_code == 405 for method in allowed), path
    # `/v1/jobs/training` is no job, so that GET does not find it; PATCH looks at its body first.
    others = {method: answers[method].status_code for method in METHODS if method not in allowed}
    assert others.pop("PATCH", 405) in {404, 405, 415, 422}, path
    # GET and DELETE take `preview` for the id of a dataset, which it cannot be.
    known = {404, 405, 422} if path == "/v1/datasets/preview" else {404, 405}
    assert set(others.values()) <= known, path
    if "GET" in allowed:
        head, got = (door.ask(method, path) for method in ("HEAD", "GET"))
        types = (answer.headers.get("content-type") for answer in (head, got))
        assert (head.status_code, next(types)) == (got.status_code, next(types)), path


def test_where_there_is_nothing_every_method_is_not_found(door):
    for path in NOWHERE:
        for method in METHODS:
            answer = door.ask(method, path, body=b"{}")
            check(method, path, answer)
            assert answer.status_code == 404, (method, path)


def test_without_a_key_nothing_is_told_about_methods_and_paths(door):
    policy = Policy(scores.router)
    paths = [template.format_map(ABSENT) for template in TEMPLATES] + NOWHERE
    for path in paths:
        for method in METHODS:
            answer = door.ask(method, path, key=False, body=b"{}")
            check(method, path, answer)
            assert (answer.status_code == 401) == (policy.needed(method, path) is not None), path
