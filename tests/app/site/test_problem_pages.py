import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.problems import types
from app.problems.problem import FieldError, Problem, problem_of, problem_response
from app.problems.types import PROBLEM_TYPES
from app.settings import ApiSettings
from models_store import errors
from models_store.errors import LimitError, NotFoundError, RequestError, StoreError
from tabular.errors import TableError


def all_store_errors() -> list[type[StoreError]]:
    found, pending = [], [StoreError]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind is not StoreError]


# Workers meet these two; no request does.
NOT_FOR_CALLERS = {errors.FencedError, errors.CancelledInsteadError}
FOR_CALLERS = sorted(set(all_store_errors()) - NOT_FOR_CALLERS, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", FOR_CALLERS)
def test_every_store_error_has_a_problem_type(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "text")
    error.slug, error.detail, error.pointer = "limit-memory", "text", "/flow"
    error.position = None
    assert problem_of(error).type.slug != "internal"


def test_every_problem_type_has_its_texts_and_every_text_is_of_a_problem_type():
    texts = Path(types.__file__).with_name("types.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(texts)) == set(PROBLEM_TYPES)


def test_an_error_without_a_type_is_an_internal_error_and_is_logged(caplog):
    assert problem_of(errors.FencedError("job_1", attempt=1)).type.slug == "internal"
    assert "without a problem type" in caplog.text


def test_a_limit_error_keeps_its_own_slug():
    assert problem_of(LimitError("limit-queued-jobs", "Full.")).status == 429


def test_a_request_error_points_at_its_field():
    problem = problem_of(RequestError("unknown-column", "No.", pointer="/columns/0"))
    assert problem.errors == (FieldError("No.", pointer="/columns/0"),)


def test_a_request_error_in_a_text_tells_the_position():
    error = RequestError("formula", "No.", pointer="/target/log_density", position=7)
    content = json.loads(bytes(problem_response(problem_of(error), request_id="r").body))
    assert content["position"] == 7


def test_a_table_error_tells_column_and_row():
    response = problem_response(
        problem_of(TableError("dataset-dtype", "Text.", column="a", row=3)), request_id="r"
    )
    content = json.loads(bytes(response.body))
    assert (content["column"], content["row"]) == ("a", 3)


def test_the_keys_of_stored_files_are_not_told():
    problem = problem_of(errors.BlobCorruptError("models/secret/model.safetensors"))
    assert "secret" not in problem.detail
    assert problem.status == 503


@pytest.mark.parametrize("text", ["x" * 100_000, "\u20ac" * 100_000, "\ud800" * 300])
def test_a_problem_is_small_whatever_it_is_made_of(text):
    problem = Problem(
        "validation",
        text,
        errors=[FieldError(text, pointer=text)] * 100,
        members={"a": text.encode(errors="replace").decode()},
    )
    body = problem_response(problem, request_id="r" * 128).body
    assert len(body) <= 8000
    assert json.loads(bytes(body))["errors"]


def test_members_cannot_replace_the_standard_ones():
    body = problem_response(Problem("validation", members={"status": 200}), request_id="r").body
    assert json.loads(bytes(body))["status"] == 422


@pytest.mark.parametrize("slug", ["overloaded", "db-unavailable", "limit-queued-jobs"])
def test_passing_problems_say_when_to_try_again(slug):
    assert int(problem_response(Problem(slug), request_id="r").headers["retry-after"]) >= 1


def test_an_unknown_route_is_a_problem(shared_client):
    response = shared_client.get("/v1/nowhere")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["type"] == "/problems/not-found"
    assert content["instance"] == response.headers["x-request-id"]


def test_a_wrong_method_is_a_problem_that_lists_every_right_one(shared_client):
    response = shared_client.put("/v1/datasets/ds_" + "0" * 32)
    assert (response.status_code, response.json()["type"]) == (405, "/problems/method-not-allowed")
    assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH"


def test_a_wrong_parameter_is_named_and_its_value_is_not_repeated(shared_client):
    response = shared_client.get("/v1/datasets", params={"limit": "secret"})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/validation")
    assert response.json()["errors"][0]["parameter"] == "limit"
    assert "secret" not in response.text


@pytest.fixture
def failing_client(settings: ApiSettings) -> Iterator[TestClient]:
    app = create_app(settings)

    @app.get("/failing")
    def failing() -> None:
        raise RuntimeError("a secret of the inside")

    @app.get("/missing")
    def missing() -> None:
        raise NotFoundError("dataset", "ds_missing")

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_an_unexpected_error_tells_nothing_but_its_id(failing_client, caplog):
    response = failing_client.get("/failing")
    assert (response.status_code, response.json()["type"]) == (500, "/problems/internal")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["instance"] == response.headers["x-request-id"]
    assert "secret" not in response.text
    assert "a secret of the inside" in caplog.text


def test_a_missing_thing_is_not_found(failing_client):
    response = failing_client.get("/missing")
    assert response.status_code == 404
    assert response.json()["detail"] == "No such dataset: ds_missing."


@pytest.mark.long
def test_every_problem_type_has_a_page(shared_client):
    for slug, kind in PROBLEM_TYPES.items():
        response = shared_client.get(kind.uri)
        assert response.status_code == 200
        assert slug in response.text


def test_the_list_links_to_every_page(shared_client):
    page = shared_client.get("/problems").text
    assert all(f'href=".{kind.uri}"' in page for kind in PROBLEM_TYPES.values())


@pytest.mark.parametrize("slug", ["nothing", "<script>", "a%00b", "..%2f..%2fetc"])
def test_an_unknown_problem_type_is_a_problem_and_no_page(shared_client, slug):
    response = shared_client.get(f"/problems/{slug}")
    assert response.status_code in {404, 422}
    assert response.headers["content-type"] == "application/problem+json"
    assert "<script>" not in response.text
