"""Listings: summaries, in pages that are bounded in bytes, and HEAD without the work."""

import pytest

from models_store.aliases import MAX_ALIASES
from models_store.jobs.leases import JobWork
from models_store.records import DatasetSummary
from tests.app.conftest import CSV, TABLE, assert_refused
from tests.app.serving import registered
from tests.models_store.makers import added, submitted

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


@pytest.mark.long
def test_wide_datasets_are_listed_without_their_columns(client, registry):
    made = [added(registry, columns=WIDE).id for _ in range(5)]
    [listed] = pages(client, "/v1/datasets?limit=200")
    assert [one["id"] for one in listed] == made[::-1]
    for one in listed:
        whole = client.get(f"/v1/datasets/{one['id']}").json()
        assert one == {name: whole[name] for name in one}
        assert one["column_count"] == len(whole["columns"]) == 4096
        assert set(whole) - set(one) == {"columns", "warnings"}


@pytest.mark.long
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


@pytest.mark.long
def test_a_page_ends_before_it_has_too_many_bytes_and_the_next_goes_on(client, jobs):
    made = [submitted(jobs).id for _ in range(40)]
    work = JobWork(client.app.state.database)
    while (job := work.claim("w", lease_s=30)) is not None:
        work.fail(job.id, job.attempt, code="diverged", detail="\N{GRINNING FACE}" * 4000)
    seen = list(pages(client, "/v1/jobs?limit=200"))
    assert len(seen) > 1
    assert [one["id"] for page in seen for one in page] == made[::-1]


@pytest.mark.long
def test_pages_of_events_are_bounded_in_bytes(client, jobs):
    work = JobWork(client.app.state.database)
    submitted(jobs)
    job = work.claim("w", lease_s=30)
    assert job is not None
    for _ in range(100):
        work.add_message(job.id, job.attempt, "\N{GRINNING FACE}" * 4000)
    work.fail(job.id, job.attempt, code="oom", detail="")
    after, read, sizes = 0, [], []
    while True:
        answer = client.get(f"/v1/jobs/{job.id}/events?format=json&after={after}")
        sizes.append(len(answer.content))
        page = answer.json()
        read += [event["id"] for event in page["items"]]
        after = page["next_after"]
        if page["ended"]:
            break
    assert read == list(range(1, 105))
    assert len(sizes) > 2
    assert max(sizes) < PAGE_BYTES
    stream = client.get(f"/v1/jobs/{job.id}/events")
    assert stream.text.count("id: ") == 104


@pytest.mark.long
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


class Worked(Exception):  # noqa: N818 - it is no error
    """What must not be called was."""


def working(*_args, **_kwargs):
    raise Worked


@pytest.mark.parametrize(
    ("path", "worker"),
    [
        ("/v1/datasets/{dataset}", "models_store.registry.Dataset.of_row"),
        ("/v1/datasets/{dataset}/rows", "app.datasets.rows.np.load"),
        ("/v1/datasets/{dataset}/rows?limit=4", "app.datasets.rows.np.load"),
        ("/v1/jobs/{job}", "models_store.jobs.jobs.to_job"),
        ("/v1/jobs/{job}/events", "models_store.jobs.events._to_event"),
        ("/v1/jobs/{job}/events?format=json", "models_store.jobs.events._to_event"),
        ("/v1/models/people/versions/1", "models_store.registry.to_versions"),
        (
            "/v1/models/people/versions/1/checkpoint",
            "models_store.files.blobs.hashlib.file_digest",
        ),
        ("/v1/models/people/versions/1/plots/marginals", "app.plots.plots.Plots._draw"),
    ],
)
def test_head_does_not_do_the_work_of_get(client, jobs, monkeypatch, path, worker):
    dataset = client.post("/v1/datasets", content=TABLE, headers=CSV).json()["id"]
    job = submitted(jobs).id
    jobs.cancel("default", job)  # the maker of the model takes the next job that waits
    registered(client.app.state.database, client.app.state.blobs)
    path = path.format(dataset=dataset, job=job)
    # A stream continues; a picture that was asked for is kept.
    got = None if path.endswith(("/events", "/marginals")) else client.get(path)
    monkeypatch.setattr(worker, working)
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    if got is not None:
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers.get("vary") == got.headers.get("vary")


def test_head_of_a_listing_reads_one_item_at_most(client, registry, monkeypatch):
    for _ in range(5):
        added(registry)
    read, of_row = [], DatasetSummary.of_row

    def counted(row):
        read.append(row)
        return of_row(row)

    monkeypatch.setattr(DatasetSummary, "of_row", counted)
    assert len(client.get("/v1/datasets?limit=200").json()["items"]) == len(read) == 5
    read.clear()
    head = client.head("/v1/datasets?limit=200")
    assert (head.status_code, head.content, len(read)) == (200, b"", 1)
    assert not {"content-length", "link"} & head.headers.keys()
    assert_refused(client.get("/v1/datasets?cursor=x"), 400, "cursor")
    assert client.head("/v1/datasets?cursor=x").status_code == 400
