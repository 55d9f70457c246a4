"""Results in CSV, whose columns of text are given back as text in other formats."""

import json

import pytest

from models_store.job_states import JobKind, JobResult
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.app.serving import registered
from tests.models_store.makers import LEASE_S, submitted

ROWS = 200_000


@pytest.fixture(autouse=True)
def _model(client):
    registered(client.app.state.database, client.app.state.blobs)


def a_result(client, lines, **fields):
    """Return the address of a result of these lines."""
    state = client.app.state
    jobs, work = Jobs(state.database), JobWork(state.database)
    drawn = submitted(jobs, kind=JobKind.SAMPLING, model_name="people", model_version=1)
    claimed = work.claim("tester", lease_s=LEASE_S)
    assert claimed is not None
    with state.blobs.staged(".csv") as file:
        file.write_text("code,x\n" + "".join(lines))
        blob = state.blobs.commit(file, f"results/{drawn.id}/result.csv")
    result = JobResult(
        key=blob.key,
        sha256=blob.sha256,
        bytes=blob.bytes,
        rows=len(lines),
        media_type="text/csv",
        columns=["code", "x"],
        **fields,  # type: ignore[typeddict-item]  # `texts`, or nothing
    )
    work.finish_bulk(claimed.id, claimed.attempt, metrics={}, result=result)
    return f"/v1/jobs/{drawn.id}/result"


def rows_of(client, url):
    answer = client.get(url, headers={"Accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("last", ["a", "01", "1e3", ""])
def test_a_column_whose_first_rows_look_like_numbers_is_text(client, last):
    url = a_result(client, ["12,0.5\n"] * ROWS + [f"{last},1.5\n"], texts=[0])
    rows = rows_of(client, url)
    assert len(rows) == ROWS + 1
    assert (rows[0], rows[-1]) == ({"code": "12", "x": 0.5}, {"code": last or None, "x": 1.5})


def test_numbers_that_look_like_dates_are_numbers(client):
    rows = rows_of(client, a_result(client, ["20240101,0.5\n"] * 9, texts=[]))
    assert rows == [{"code": 20240101.0, "x": 0.5}] * 9


def test_columns_of_older_results_are_what_their_first_rows_look_like(client):
    assert rows_of(client, a_result(client, ["12,1\n"] * 9)) == [{"code": 12.0, "x": 1.0}] * 9
    assert rows_of(client, a_result(client, ["a,1\n"] * 9)) == [{"code": "a", "x": 1.0}] * 9
