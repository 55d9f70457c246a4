"""Every route under every method, with a key and without, with a body and without."""

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.auth.middleware import Policy
from app.main import create_app
from app.scoring import routes as scores
from app.settings import ApiSettings
from models_store.keys import Scope
from tests.api.conftest import CSV, TABLE
from tests.api.serving import bearer, keyed, stocked

# DELETE is the last: what is there is gone after it.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO", "get", "DELETE")
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
NOWHERE = [
    "/nothing",
    "/v1",
    "/v1/",
    "/v1/datasets/",
    "/v1/jobs/a/b/c",
    "//",
    "",
    "*",
    "example.com:443",
    "/livez/",
    "/problems/",
    "/../",
    "/v1/models/a\x00b/nothing",
]


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def allow(self) -> set[str]:
        return set(self.headers["allow"].split(", "))


class Door:
    """An application that asks for keys, called without a client that would mend its requests."""

    def __init__(self, client: TestClient, token: str, present: dict[str, str]) -> None:
        self.present = present
        self._client = client
        self._token = token

    def fill(self, template: str, *, there: bool) -> str:
        if there and "dataset_id" in template:
            headers = {**bearer(self._token), **CSV}
            uploaded = self._client.post("/v1/datasets", content=TABLE, headers=headers)
            self.present["dataset_id"] = uploaded.json()["id"]
        if there and "webhook_id" in template:
            body = {"url": "https://example.org/"}
            made = self._client.post("/v1/webhooks", json=body, headers=bearer(self._token))
            self.present["webhook_id"] = made.json()["id"]
        if there and "key_id" in template:
            made = self._client.post("/v1/keys", json={}, headers=bearer(self._token))
            self.present["key_id"] = made.json()["id"]
        return template.format_map(self.present if there else ABSENT)

    def ask(self, method: str, path: str, *, key: bool = True, body: bytes = b"") -> Answer:
        headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
        if key:
            headers.append((b"authorization", f"Bearer {self._token}".encode()))
        if body:
            headers.append((b"content-type", b"application/json"))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        assert self._client.portal is not None
        answer: Answer = self._client.portal.call(self._call, scope, body)
        return answer

    async def _call(self, scope: dict[str, Any], body: bytes) -> Answer:
        method = scope["method"]
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        answer = Answer()

        async def receive() -> MutableMapping[str, Any]:
            if not messages:
                await asyncio.Event().wait()  # until the answer is there and this is cancelled
            return messages.pop()

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {
                    name.decode(): value.decode() for name, value in message["headers"]
                }
            elif method != "HEAD" or answer.status != 401:
                # The server, not the application, leaves out what access writes for HEAD.
                answer.body += message.get("body", b"")

        app: FastAPI = self._client.app  # type: ignore[assignment]  # the test client forgets
        await app(scope, receive, send)
        return answer


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


def check(method: str, path: str, answer: Answer) -> None:
    where = f"{method} {path} answered {answer.status}"
    assert 200 <= answer.status < 500, where
    if method == "HEAD":
        assert answer.body == b"", where
    elif answer.status >= 400 and path.startswith("/v2"):
        assert json.loads(answer.body).keys() == {"error"}, where
    elif answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json", where
        assert json.loads(answer.body)["status"] == answer.status, where
    if answer.status == 405:
        assert method not in answer.allow, where
    elif method == "OPTIONS":
        assert answer.status in (401, 404), where


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
    refused = [answer for answer in answers.values() if answer.status == 405]
    assert refused, path
    allowed = refused[0].allow
    assert all(answer.allow == allowed for answer in refused), path
    assert not any(answers[method].status == 405 for method in allowed), path
    # `/v1/jobs/training` is no job, so that GET does not find it; PATCH looks at its body first.
    others = {method: answers[method].status for method in METHODS if method not in allowed}
    assert others.pop("PATCH", 405) in {404, 405, 415, 422}, path
    # GET and DELETE take `preview` for the id of a dataset, which it cannot be.
    known = {404, 405, 422} if path == "/v1/datasets/preview" else {404, 405}
    assert set(others.values()) <= known, path
    if "GET" in allowed:
        head, got = (door.ask(method, path) for method in ("HEAD", "GET"))
        types = (answer.headers.get("content-type") for answer in (head, got))
        assert (head.status, next(types)) == (got.status, next(types)), path


def test_where_there_is_nothing_every_method_is_not_found(door):
    for path in NOWHERE:
        for method in METHODS:
            answer = door.ask(method, path, body=b"{}")
            check(method, path, answer)
            assert answer.status == 404, (method, path)


def test_without_a_key_nothing_is_told_about_methods_and_paths(door):
    policy = Policy(scores.router)
    paths = [template.format_map(ABSENT) for template in TEMPLATES] + NOWHERE
    for path in paths:
        for method in METHODS:
            answer = door.ask(method, path, key=False, body=b"{}")
            check(method, path, answer)
            assert (answer.status == 401) == (policy.needed(method, path) is not None), path
