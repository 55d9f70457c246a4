"""Listings: summaries, in pages that are bounded in bytes."""

import pytest

from models_store.aliases import MAX_ALIASES
from models_store.jobs.leases import JobWork
from tests.api.conftest import assert_refused
from tests.api.serving import registered
from tests.store.makers import added, submitted

PAGE_BYTES = 300_000
WIDE = [
    {
        "name": f"{number:0128d}",
        "dtype": "float64",
        "mean": 0.123456789,
        "std": 1.0,
        "min": -1.0,
        "max": 1.0,
        "distinct": None,
    }
    for number in range(4096)
]


@pytest.fixture
def jobs(client):
    return client.app.state.jobs


def pages(client, path):
    """Every page of a listing."""
    cursor = ""
    while cursor is not None:
        answer = client.get(path + ("&cursor=" + cursor if cursor else ""))
        assert answer.status_code == 200
        assert len(answer.content) < PAGE_BYTES
        yield answer.json()["items"]
        cursor = answer.json()["next_cursor"]


def test_wide_datasets_are_listed_without_their_columns(client, registry):
    made = [added(registry, columns=WIDE).id for _ in range(2)]
    [listed] = pages(client, "/v1/datasets?limit=200")
    assert [one["id"] for one in listed] == made[::-1]
    for one in listed:
        whole = client.get(f"/v1/datasets/{one['id']}").json()
        assert one == {name: whole[name] for name in one}
        assert one["column_count"] == len(whole["columns"]) == 4096
        assert set(whole) - set(one) == {"columns", "options", "warnings"}


def test_jobs_are_listed_without_their_requests(client, jobs):
    context = [[0.25] * 4] * 10_000
    made = [submitted(jobs, request={"context": context}).id for _ in range(5)]
    [listed] = pages(client, "/v1/jobs?limit=200")
    assert [one["id"] for one in listed] == made[::-1]
    whole = client.get(f"/v1/jobs/{made[0]}").json()
    assert listed[-1] == {name: whole[name] for name in listed[-1]}
    assert set(whole) - set(listed[-1]) == {"queue", "request"}
    assert whole["request"]["context"] == context


def test_versions_are_listed_without_what_may_be_large(client):
    state = client.app.state
    registered(state.database, state.blobs)
    [[listed]] = pages(client, "/v1/models/people/versions?limit=200")
    whole = client.get("/v1/models/people/versions/1").json()
    lineage = whole["lineage"]
    del lineage["target"]
    assert listed == {name: whole[name] for name in listed}
    assert set(whole) - set(listed) == {
        "columns",
        "context_columns",
        "types",
        "flow",
        "preprocessing",
        "held_out",
    }


def test_a_page_ends_before_it_has_too_many_bytes_and_the_next_goes_on(client, jobs):
    made = [submitted(jobs).id for _ in range(40)]
    work = JobWork(client.app.state.database)
    while (job := work.claim("w", lease_s=30)) is not None:
        work.fail(job.id, job.attempt, code="diverged", detail="\N{GRINNING FACE}" * 4000)
    seen = list(pages(client, "/v1/jobs?limit=200"))
    assert len(seen) > 1
    assert [one["id"] for page in seen for one in page] == made[::-1]


def test_a_model_has_so_many_aliases(client):
    state = client.app.state
    registered(state.database, state.blobs)
    path, body = "/v1/models/people/aliases", {"version": 1}
    for number in range(MAX_ALIASES):
        assert client.put(f"{path}/a{number}", json=body).status_code == 200
    assert_refused(client.put(f"{path}/more", json=body), 409, "limit-aliases")
    assert client.put(f"{path}/a0", json=body).status_code == 200
    assert client.delete(f"{path}/a0").status_code == 204
    assert client.put(f"{path}/more", json=body).status_code == 200
