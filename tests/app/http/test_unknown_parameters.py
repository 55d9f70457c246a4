import pytest

from tests.app.conftest import assert_refused

CREATED = [f"created_at[{bound}]" for bound in ("gte", "gt", "lte", "lt")]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/datasets", ["name_prefix", "sha256", "limit", "cursor", "tag", "order", *CREATED]),
        ("/v1/models", ["name_prefix", "limit", "cursor", "tag", "order", *CREATED]),
        ("/v1/jobs", None),
        ("/v1/datasets/ds_00000000000000000000000000000000/rows", ["offset", "limit", "step"]),
        ("/v1/models/people", []),
        ("/v1/models/people/versions/1/checkpoint", []),
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_refused_with_those_it_has(
    shared_client, path, known
):
    response = shared_client.get(path, params={"Limit": 5})
    assert_refused(response, 422, "unknown-parameter")
    assert response.json()["errors"][0]["parameter"] == "Limit"
    if known is not None:
        assert response.json()["supported"] == known


@pytest.mark.parametrize(
    ("what", "known"),
    [
        ("log_prob", ["space", "extra", "parts", "conditionals"]),
        ("sample", ["space"]),
        ("inverse", ["space", "extra"]),
        ("forward", ["space"]),
    ],
)
def test_the_routes_of_scores_refuse_them_too(shared_client, what, known):
    response = shared_client.post(f"/v1/models/people/{what}?spaces=model", json={})
    assert_refused(response, 422, "unknown-parameter")
    assert response.json()["supported"] == known


def test_a_huge_name_is_cut(shared_client):
    response = shared_client.get("/v1/models", params={"x" * 5000: 1, "y": 2})
    assert_refused(response, 422, "unknown-parameter")
    assert len(response.content) < 2000


def test_known_parameters_are_taken(shared_client):
    assert shared_client.get("/v1/datasets?limit=5").status_code == 200
    assert shared_client.get("/v1/jobs?state=queued&limit=5").status_code == 200
