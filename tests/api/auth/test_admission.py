"""Who gets in: without a key nobody, anywhere but where it is said."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.auth.admission import Policy, is_of_the_service
from app.main import create_app
from app.scoring import routes as scores
from app.settings import ApiSettings
from models_store.keys import Scope
from tests.api.conftest import FIT, assert_refused, openapi_document
from tests.api.serving import bearer, keyed
from tests.support.waiting import Clock

OPEN = {
    "/",
    "/livez",
    "/v2/health/live",
    "/v2/health/ready",
    "/readyz",
    "/docs",
    "/guide",
    "/guide/{path:path}",
    "/openapi.json",
    "/problems",
    "/problems/{slug}",
    "/static/{path:path}",
    "/static/docs/{path:path}",
}
READS = {
    "infer",
    "log_prob",
    "score",
    "sample",
    "impute",
    "expect",
    "evidence",
    "inverse",
    "forward",
}
POLICY = Policy(scores.router)
DOCUMENT = openapi_document()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


@pytest.fixture(scope="module")
def door(shared_settings):
    with keyed(shared_settings) as (client, keys):
        yield client, {scope: keys.create("mine", scope) for scope in Scope}


@pytest.fixture(scope="module")
def client(door):
    return door[0]


@pytest.fixture(scope="module")
def tokens(door):
    return door[1]


def filled(path):
    for name, value in {
        "dataset_id": "ds_" + "0" * 32,
        "job_id": "job_" + "0" * 32,
        "version": "1",
        "slug": "not-found",
    }.items():
        path = path.replace("{" + name + "}", value)
    return path.replace("{", "").replace("}", "")


def assert_unauthorized(response, *, invalid=False):
    assert_refused(response, 401, "unauthorized")
    error = ', error="invalid_token"' if invalid else ""
    assert response.headers["www-authenticate"] == f'Bearer realm="densityd"{error}'


def test_every_documented_operation_wants_a_key_and_says_so(client):
    for method, path, operation in OPERATIONS:
        needs = {"401", "403", "429"} & set(operation["responses"])
        if path in OPEN:
            assert operation["security"] == []
            assert needs == set()
            assert client.request(method, filled(path)).status_code in (200, 503)
        else:
            assert operation["security"] == [{"apiKey": [POLICY.needed(method, path)]}]
            assert needs == {"401", "403", "429"}
            refused = client.request(method, filled(path))
            if path.startswith("/v2"):  # the form of its protocol
                assert (refused.status_code, set(refused.json())) == (401, {"error"})
            else:
                assert_unauthorized(refused)
    assert DOCUMENT["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


def test_what_does_not_exist_wants_a_key_as_well(client, tokens):
    for path in ("/nowhere", "/v1", "/livez/", "/docs/x"):
        assert client.get(path).status_code == 401
        assert client.post(path).status_code == 401
    for path in ("//livez", "/static", "/problemsx", "/v1/datasets/../../livez"):
        assert POLICY.needed("GET", path) is Scope.READ
    # A route that somebody adds is closed until it is named as open.
    client.app.add_api_route("/new", lambda: "in")
    assert_unauthorized(client.get("/new"))
    assert client.get("/new", headers=bearer(tokens[Scope.READ])).status_code == 200


def test_open_paths_are_open_to_look_at_only(client):
    for path in ("/livez", "/", "/openapi.json", "/problems/not-found"):
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, path).status_code == 401


def test_only_a_bearer_token_in_the_one_header_counts(client, tokens):
    token = tokens[Scope.READ].token
    path = "/v1/datasets"
    assert client.get(path, headers={"Authorization": f"bEARER  {token} "}).status_code == 200
    for value in (
        token,
        f"Basic {token}",
        "Bearer",
        "Bearer ",
        f"Bearer {token[:-1]}",
        f"Bearer {token} {token}",
        f"Bearer {token.partition('.')[0]}",
        "Bearer \xff",
        "Bearer " + "a" * 10_000,
    ):
        headers = {"Authorization": value.encode("latin-1")}
        assert_unauthorized(client.get(path, headers=headers), invalid=True)
    twice = [("Authorization", f"Bearer {token}")] * 2
    assert_unauthorized(client.get(path, headers=twice))
    for name in ("api_key", "access_token", "key", "token", "Authorization"):
        assert_unauthorized(client.get(path, params={name: token}))
        assert_unauthorized(client.get(path, headers={"Cookie": f"{name}={token}"}))
    assert_unauthorized(client.get(path, headers={"X-API-Key": token}))


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_allows_what_it_says_and_nothing_above(client, tokens, scope):
    refused = 0
    for method, path, _ in OPERATIONS:
        needed = POLICY.needed(method, path)
        response = client.request(method, filled(path), headers=bearer(tokens[scope]))
        if needed is None or scope.includes(needed):
            refusal = response.status_code in (401, 403)
            # A project of its own says nothing about all.
            assert refusal is is_of_the_service(path), (method, path)
        else:
            refused += 1
            assert_refused(response, 403, "forbidden")
            assert f'scope="{needed}"' in response.headers["www-authenticate"]
    assert bool(refused) is (scope is not Scope.ADMIN)


def test_questions_need_read_changes_write_and_metrics_and_keys_admin():
    for method, path, _ in OPERATIONS:
        if path in OPEN:
            continue
        if path in ("/metrics", "/v1/audit") or path.startswith(("/v1/keys", "/v1/projects")):
            expected = Scope.ADMIN
        elif method == "GET" or path.rpartition("/")[2] in READS:
            expected = Scope.READ
        else:
            expected = Scope.WRITE
        assert POLICY.needed(method, path) is expected, (method, path)
    for verb in READS:
        assert POLICY.needed("DELETE", f"/v1/models/m/{verb}") is Scope.WRITE
        assert POLICY.needed("POST", f"/v1/models/m/versions/{verb}") is Scope.WRITE
        assert POLICY.needed("POST", f"/v1/models//{verb}") is Scope.WRITE


def test_a_revoked_key_is_out_within_two_seconds(settings, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("app.remembered.time", clock)
    with keyed(settings) as (client, keys):
        key = keys.create("mine", Scope.READ)
        assert client.get("/v1/datasets", headers=bearer(key)).status_code == 200
        keys.revoke(key.key.id)
        clock.now += 2.0
        assert_unauthorized(client.get("/v1/datasets", headers=bearer(key)), invalid=True)


def test_a_service_without_keys_asks_for_none_until_the_first_is_made(settings):
    with keyed(settings, first=False) as (client, keys):
        assert client.get("/v1/datasets").status_code == 200
        # Nobody to tell from others: a key of elsewhere is no hindrance.
        assert client.get("/v1/datasets", headers=bearer("key_x")).status_code == 200
        assert client.get("/metrics").status_code == 200
        made = client.post("/v1/jobs/variational", json=FIT)
        assert made.status_code == 202
        key = keys.create("default", Scope.READ)
        deadline = time.monotonic() + 120
        while client.get("/v1/datasets").status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert_unauthorized(client.get("/v1/datasets"))
        # What was made before is in the project `default`.
        assert client.get(made.headers["location"], headers=bearer(key)).status_code == 200
        keys.revoke(key.key.id)
        assert_unauthorized(client.get("/v1/datasets"))


def test_without_keys_no_public_name_is_served(open_client):
    for host, status in (
        ("testserver", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("a.localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("evil.example:[", 403),
    ):
        answer = open_client.get("/v1/datasets", headers={"Host": host})
        assert answer.status_code == status, host


def test_without_keys_pages_of_other_sites_change_nothing(open_client):
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://testserver", 202),
    ):
        headers = {"Origin": origin}
        answer = open_client.post("/v1/jobs/variational", json=FIT, headers=headers)
        assert answer.status_code == status
    assert open_client.post("/v1/jobs/variational", json=FIT).status_code == 202


@pytest.fixture(scope="module")
def open_client(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("open")
    shutil.copy(migrated_database, folder)
    with TestClient(create_app(ApiSettings(data_dir=folder))) as client:
        yield client


def test_no_site_may_use_the_api_but_those_that_are_named(settings):
    chosen = settings.model_copy(update={"cors_origins": "https://a.example"})
    with keyed(chosen) as (client, keys):
        token = bearer(keys.create("mine", Scope.READ))
        asked = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            preflight = client.options("/v1/jobs", headers={"Origin": origin, **asked})
            got = [
                preflight,
                client.get("/v1/jobs", headers={"Origin": origin, **token}),
                client.get("/v1/jobs", headers={"Origin": origin}),
            ]
            assert [r.status_code for r in got] == [200 if allowed else 400, 200, 401]
            for response in got:
                found = response.headers.get("access-control-allow-origin")
                assert found == (origin if allowed else None)
                assert "access-control-allow-credentials" not in response.headers


def test_origins_that_are_none_are_refused():
    for text in ("*", "https://*", "a.example", "https://a.example/", "null", ","):
        with pytest.raises(ValueError, match="origins look like"):
            ApiSettings(cors_origins=text)


def test_an_unknown_key_and_a_wrong_secret_get_the_same_answer(client, tokens):
    key_id, _, secret = tokens[Scope.READ].token.partition(".")
    bodies = []
    for token in (f"key_{'0' * 32}.{secret}", f"{key_id}.{'0' * 64}", "nonsense"):
        response = client.get("/v1/datasets", headers={**bearer(token), "X-Request-ID": "r"})
        assert_unauthorized(response, invalid=True)
        bodies.append((response.content, response.headers["www-authenticate"]))
    assert len(set(bodies)) == 1


ROOT = Path(__file__).parents[3]
EXAMPLES = ["quickstart.sh", "penguins.sh", "quickstart.py", "variational.py"]


def run(example: str, url: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: text for name, text in os.environ.items() if name != "DENSITYD_API_KEY"}
    program = "sh" if example.endswith(".sh") else sys.executable
    return subprocess.run(  # noqa: S603 - our own command
        [program, str(ROOT / "examples" / example), url],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_names_the_key_that_is_missing(guarded_server, example):
    done = run(example, guarded_server[0])
    assert done.returncode == 1
    assert "DENSITYD_API_KEY" in done.stdout + done.stderr
    assert "densityd keys create --scope write" in done.stdout + done.stderr


def test_an_example_says_that_no_service_answers():
    done = run("quickstart.sh", "http://127.0.0.1:9")
    assert (done.returncode, "make up" in done.stderr) == (1, True)
