import pytest

from tests.app.conftest import CSV, TABLE, assert_refused


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/datasets", "/v1/models", "/docs", "/"])
def test_head_has_the_headers_of_get_and_no_body(shared_client, path):
    got = shared_client.get(path)
    head = shared_client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_what_is_not_there_is_not_found(shared_client):
    response = shared_client.head("/v1/models/nobody")
    assert (response.status_code, response.content) == (404, b"")


def test_head_of_a_route_that_has_no_get_is_refused(shared_client):
    response = shared_client.head("/v1/models/people/log_prob")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_head_of_streamed_rows_ends_before_the_body(client):
    location = client.post("/v1/datasets", content=TABLE, headers=CSV).headers["location"]
    response = client.head(f"{location}/rows", headers={"Accept": "text/csv"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/csv")


def test_an_unsupported_method_is_told_that_there_is_head(shared_client):
    response = shared_client.delete("/v1/datasets")
    assert_refused(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"
