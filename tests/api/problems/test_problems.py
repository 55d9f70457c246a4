"""Errors as problems: each has a type, small and without secrets, and says what would have been right."""

import errno
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.problems import types
from app.problems.problem import FieldError, Problem, problem_of, problem_of_lack, problem_response
from app.problems.types import PROBLEM_TYPES
from app.settings import ApiSettings
from models_store import errors
from models_store.errors import RequestError, StoreError
from models_store.jobs.jobs import Jobs
from tabular.errors import TableError
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.serving import registered, stores
from tests.store.makers import PROJECT, submitted


def all_store_errors() -> list[type[StoreError]]:
    found, pending = [], [StoreError]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind is not StoreError]


# Workers meet these two; no request does.
NOT_FOR_CALLERS = {errors.FencedError, errors.CancelledInsteadError}


def test_every_store_error_has_a_problem_type():
    for kind in set(all_store_errors()) - NOT_FOR_CALLERS:
        error: Any = kind.__new__(kind)
        Exception.__init__(error, "text")
        error.slug, error.detail, error.pointer = "limit-memory", "text", "/flow"
        error.position = None
        assert problem_of(error).type.slug != "internal", kind


def test_every_problem_type_has_its_texts_and_every_text_is_of_a_problem_type():
    texts = Path(types.__file__).with_name("types.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(texts)) == set(PROBLEM_TYPES)


def test_an_error_without_a_type_is_an_internal_error_and_is_logged(caplog):
    assert problem_of(errors.FencedError("job_1", attempt=1)).type.slug == "internal"
    assert "without a problem type" in caplog.text


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


@pytest.mark.parametrize("text", ["\u20ac" * 100_000, "\ud800" * 300])
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


def test_passing_problems_say_when_to_try_again():
    for slug in ("overloaded", "db-unavailable", "limit-queued-jobs"):
        assert int(problem_response(Problem(slug), request_id="r").headers["retry-after"]) >= 1


def test_a_wrong_parameter_is_named_and_its_value_is_not_repeated(shared_client):
    response = shared_client.get("/v1/datasets", params={"limit": "secret"})
    assert_refused(response, 422, "validation")
    assert response.json()["errors"][0]["parameter"] == "limit"
    assert "secret" not in response.text


@pytest.fixture
def failing_client(settings: ApiSettings) -> Iterator[TestClient]:
    app = create_app(settings)

    @app.get("/failing")
    def failing() -> None:
        raise RuntimeError("a secret of the inside")

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_an_unexpected_error_tells_nothing_but_its_id(failing_client, caplog):
    response = failing_client.get("/failing")
    assert_refused(response, 500, "internal")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["instance"] == response.headers["x-request-id"]
    assert "secret" not in response.text
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), BlockingIOError(errno.EAGAIN, "try again")]
)
def test_a_process_that_is_not_started_is_no_defect(error):
    problem = problem_of_lack(error)
    assert problem is not None
    assert (problem.type.uri, problem.status) == ("/problems/overloaded", 503)
    assert problem_of_lack(RuntimeError("other")) is None
    assert problem_of_lack(OSError(errno.ENOSPC, "full")) is None


def detail(response, status, slug):
    assert_refused(response, status, slug)
    return response.json()["detail"]


def test_an_unknown_route_is_said_to_be_one_and_the_nearest_is_named(shared_client):
    for path, nearest in (
        ("/v1/dataset", "/v1/datasets"),
        ("/v1/models/people/version", "/v1/models/{name}/versions"),
        ("/v1/jobs/job_1/event", "/v1/jobs/{job_id}/events"),
        ("/v1/model/people", "/v1/models/{name}"),
    ):
        told = detail(shared_client.get(path), 404, "not-found")
        assert told == f"There is no such route. The nearest is `{nearest}`."
    assert detail(shared_client.get("/xyzzy"), 404, "not-found") == "There is no such route."


def test_a_wrong_method_is_told_which_are_right(shared_client):
    told = detail(shared_client.put("/v1/datasets"), 405, "method-not-allowed")
    assert told == "This route takes GET, HEAD, POST, not PUT."


def test_a_trailing_comma_is_named(shared_client):
    headers = {"Content-Type": "application/json"}
    body = b'{"model_name": "m",}'
    answer = shared_client.post("/v1/jobs/variational", content=body, headers=headers)
    assert "A comma stands behind the last value" in detail(answer, 400, "json-syntax")
    other = shared_client.post("/v1/jobs/variational", content=b'{"a" 1}', headers=headers)
    assert "comma" not in detail(other, 400, "json-syntax")


def test_a_date_is_a_bound_of_a_list(client):
    submitted(Jobs(client.app.state.database))
    for bound, count in (("gte]=2020-01-01", 1), ("lt]=2020-01-01", 0), ("lt]=2999-12-31", 1)):
        answer = client.get(f"/v1/jobs?created_at[{bound}")
        assert (answer.status_code, len(answer.json()["items"])) == (200, count)
    assert client.get("/v1/jobs?created_at[gte]=2020-13-01").status_code == 422


def test_an_unknown_version_or_alias_lists_those_that_there_are(client):
    for seed in (0, 1):
        registered(*stores(client), seed=seed)
    assert client.put("/v1/models/people/aliases/live", json={"version": 1}).status_code == 200
    body = {"rows": [[170, 70, 40]]}
    told = detail(client.post("/v1/models/people:99/log_prob", json=body), 404, "not-found")
    assert told == "No such version: people:99. There is people:2, people:1."
    told = detail(client.post("/v1/models/people@prod/log_prob", json=body), 404, "not-found")
    assert told.startswith("No such alias: prod. There is live.")


def test_a_model_whose_first_training_waits_is_told_so(client):
    job = submitted(Jobs(client.app.state.database), project=PROJECT, model_name="later")
    told = detail(client.get("/v1/models/later"), 404, "not-found")
    assert told == f"No such model: later. Its first training, {job.id}, is queued."


GOLDEN = Path(__file__).parent / "messages.txt"
DATASET = "ds_" + "0" * 32
TRAINING = {"model_name": "shuttle", "dataset_id": DATASET}


def training(**change):
    return "POST", "/v1/jobs/training", {**TRAINING, **change}


REQUESTS = [
    training(optimisation={"max_epoch": 3}),
    training(optimisation={"max_epochs": 0}),
    training(optimisation={"max_epochs": "3"}),
    training(optimisation={"max_epochs": 3.5}),
    training(optimisation={"learning_rate": True}),
    training(optimisation={"batch_sise": 3, "patienze": 2}),
    training(optimisation=[]),
    training(optimisation={"optimiser": "lion"}),
    training(optimizer={}),
    training(flow={"family": "maff"}),
    training(flow={}),
    training(flow={"family": "maf", "layrs": 3}),
    training(flow={"family": "maf", "depth": 3}),
    training(flow={"family": "maf", "layers": 0}),
    training(flow={"family": "maf", "hidden": [0]}),
    training(flow={"family": "maf", "hidden": 64}),
    training(flow={"family": "maf", "hidden": [1, "x"]}),
    training(**{"a/b~c": 1}),
    training(split={"train": 2}),
    training(split={"sede": 2}),
    training(columns=[]),
    training(columns="x1"),
    training(model_name="Shuttle 1"),
    training(dataset_id="shuttle"),
    training(preprocessing={"standardize": True}),
    training(optimisation={"schedule": "linear"}),
    training(optimisation={"schedule": {"step": {"epochs": 5}}}),
    training(preprocessing={"dequantise": "no"}),
    ("POST", "/v1/jobs/sweep", {**TRAINING, "ranges": {"layers": {"low": 1, "high": 3}}}),
    (
        "POST",
        "/v1/jobs/sweep",
        {**TRAINING, "flow": {"family": "maf"}, "ranges": {"flow.layrs": {"values": [1, 2]}}},
    ),
    ("GET", "/v1/models?tag=", None),
    ("POST", "/v1/jobs/training", {}),
    ("POST", "/v1/jobs/training", {"model_name": "shuttle"}),
    ("POST", "/v1/jobs/training", []),
    ("POST", "/v1/jobs/training", {"model_name": "a", "dataset_id": DATASET, "flow": "maf"}),
    ("POST", "/v1/jobs/variational", {"model_name": "a", "target": {"potential": "U1", "dim": 2}}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "n": 0}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "m": 3}),
    ("POST", "/v1/jobs/sampling", {"model": "shuttle", "n": 3, "output": "xlsx"}),
    ("POST", "/v1/jobs/scoring", {"model": "shuttle"}),
    ("POST", "/v1/webhooks", {"url": "http://example.org/"}),
    ("POST", "/v1/webhooks", {"url": "https://10.0.0.1/"}),
    ("POST", "/v1/webhooks", {"url": "https://example.org/", "event": []}),
    ("POST", "/v1/keys", {"scopes": "read"}),
    ("POST", "/v1/keys", {"expires_days": -1}),
    ("PATCH", f"/v1/datasets/{DATASET}", {"types": {"a": "text"}}),
    ("PATCH", "/v1/models/shuttle", {"tags": {"a:b": "c"}}),
    ("PUT", "/v1/models/shuttle/aliases/production", {"version": 0}),
    ("GET", "/v1/jobs?state=done", None),
    ("GET", "/v1/jobs?created_at[gte]=yesterday", None),
    ("GET", "/v1/jobs?limit=1000&order=up", None),
    ("GET", "/v1/models?limit=ten", None),
    ("GET", "/v1/models?linit=10", None),
]


def texts(client: TestClient) -> str:
    parts = []
    for method, path, body in REQUESTS:
        answer = client.request(method, path, json=body) if body is not None else client.get(path)
        problem = answer.json()
        lines = [f"{method} {path} {body if body is not None else ''}".rstrip()]
        lines.append(f"  {problem['status']} {problem['title']}: {problem['detail']}")
        for error in problem.get("errors", ()):
            place = error.get("pointer", error.get("parameter"))
            lines.append(f"    {place or '(body)'}: {error['detail']}")
        parts.append("\n".join(lines))
    # New families come now and then.
    return re.sub(r"'gaussian', .*?'(?=[.;])", "all families", "\n\n".join(parts) + "\n")


def test_wrong_requests_are_told_in_one_voice(shared_client):
    told = texts(shared_client)
    assert told == GOLDEN.read_text("utf-8")
    assert "Input should" not in told
    assert "see `errors`; see" not in told


def test_refusals_of_the_store_are_whole_sentences_that_name_their_object(client):
    """Compare the texts of refusals that only a stored table can cause."""
    made = client.post("/v1/datasets", content=TABLE, headers=CSV).json()
    path, tag = f"/v1/datasets/{made['id']}", {"If-Match": '"older"'}
    body = {"model_name": "people", "dataset_id": made["id"]}
    first = made["columns"][0]["name"]

    def train(**change):
        return client.post("/v1/jobs/training", json={**body, **change})

    formula = {"model_name": "ring", "target": {"log_density": "-z1 +", "dim": 1}}
    refusals = {
        f"Column {first!r} is named twice.": train(columns=[first, first]),
        f"Dataset {made['id']} has no column 'depth'.": train(
            columns=["depth"], context_columns=[first]
        ),
        f"Dataset {made['id']} has no column 'HEIGHT' and 1 more; did you mean": train(
            columns=["HEIGHT", "depth"]
        ),
        "The dataset is in another state; the request's condition does not hold.": client.patch(
            path, json={"description": "people"}, headers=tag
        ),
        "No such model: nobody.": client.get("/v1/models/nobody"),
        "The formula cannot be read at character": client.post(
            "/v1/jobs/variational", json=formula
        ),
    }
    for wanted, answer in refusals.items():
        sentence = answer.json()["detail"].split("\n")[0]
        assert sentence.startswith(wanted)
        assert sentence.endswith((".", "?"))


def main() -> None:
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - only this needs it

    from models_store.database.database import migrate  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        settings = ApiSettings(data_dir=Path(folder))
        migrate(settings.resolved_database_url)
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            GOLDEN.write_text(texts(client), "utf-8")


if __name__ == "__main__":
    main()
