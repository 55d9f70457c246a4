"""What holds for requests to any route: HEAD, the format of the response, and parameters."""

import pytest

from app.http.accept import best_media_type
from app.problems.problem import Problem
from tests.api.conftest import CSV, TABLE, assert_refused

CREATED = [f"created_at[{bound}]" for bound in ("gte", "gt", "lte", "lt")]


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/datasets", "/v1/models", "/docs", "/"])
def test_head_has_the_headers_of_get_and_no_body(shared_client, path):
    got, head = shared_client.get(path), shared_client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_streamed_rows_ends_before_the_body(client):
    location = client.post("/v1/datasets", content=TABLE, headers=CSV).headers["location"]
    response = client.head(f"{location}/rows", headers={"Accept": "text/csv"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/csv")


def test_head_is_refused_where_there_is_no_get(shared_client):
    assert shared_client.head("/v1/models/nobody").status_code == 404
    response = shared_client.head("/v1/models/people/log_prob")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    response = shared_client.delete("/v1/datasets")
    assert_refused(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        (None, "a/b"),
        ("*/*", "a/b"),
        ("text/*, a/b;q=0.5", "text/csv"),
        ("TEXT/CSV;q=0.2, , a/b; q=0.1", "text/csv"),
        ("a/b;q=0, */*;q=0.1", "text/csv"),
    ],
)
def test_the_offered_type_of_the_highest_quality_is_chosen(accept, best):
    assert best_media_type(accept, ["a/b", "text/csv"]) == best


@pytest.mark.parametrize("accept", ["image/png", "*/*;q=0", "a/b;q=x"])
def test_a_caller_who_accepts_none_is_told_what_there_is(accept):
    with pytest.raises(Problem) as caught:
        best_media_type(accept, ["a/b"])
    assert caught.value.members == {"supported": ["a/b"]}


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "datasets", ["name_prefix", "sha256", "limit", "cursor", "tag", "order", *CREATED]),
        ("GET", "datasets/ds_00000000000000000000000000000000/rows", ["offset", "limit", "step"]),
        ("GET", "models/people", []),
        (
            "POST",
            "models/people/log_prob",
            ["space", "extra", "parts", "conditionals", "columns", "given"],
        ),
        ("POST", "models/people/sample", ["space"]),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_known_ones(shared_client, method, path, known):
    response = shared_client.request(method, f"/v1/{path}", params={"Limit": 5})
    assert_refused(response, 422, "unknown-parameter")
    assert response.json()["errors"][0]["parameter"] == "Limit"
    assert response.json()["supported"] == known
    response = shared_client.request(method, f"/v1/{path}", params={"x" * 5000: 1, "y": 2})
    assert_refused(response, 422, "unknown-parameter")
    assert len(response.content) < 2000


def test_known_parameters_are_taken(shared_client):
    assert shared_client.get("/v1/datasets?limit=5").status_code == 200
    assert shared_client.get("/v1/jobs?state=queued&limit=5").status_code == 200
