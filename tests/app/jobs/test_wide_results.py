"""Results of many columns in another format than that of their file."""

import json
import threading

import pytest

from app.http.body_memory import BodyMemory
from app.jobs import results
from models_store.job_states import JobKind, JobResult
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tabular.open import open_cells
from tabular.readers import text
from tests.app.serving import registered
from tests.models_store.makers import LEASE_S, submitted

ROWS = 8
TEXT = "x" * 4000


@pytest.fixture(autouse=True)
def _model(client):
    registered(client.app.state.database, client.app.state.blobs)


def a_result(client, width, **fields):
    """Return the address of a CSV result of texts."""
    state = client.app.state
    jobs, work = Jobs(state.database), JobWork(state.database)
    drawn = submitted(jobs, kind=JobKind.SAMPLING, model_name="people", model_version=1)
    claimed = work.claim("tester", lease_s=LEASE_S)
    assert claimed is not None
    lines = [",".join(f"{row}{TEXT}" for _ in range(width)) for row in range(ROWS)]
    with state.blobs.staged(".csv") as file:
        file.write_text("\n".join([",".join(names(width)), *lines, ""]))
        blob = state.blobs.commit(file, f"results/{drawn.id}/result.csv")
    result = JobResult(
        key=blob.key,
        sha256=blob.sha256,
        bytes=blob.bytes,
        rows=ROWS,
        media_type="text/csv",
        **fields,  # type: ignore[typeddict-item]  # `columns` and `texts`, or nothing
    )
    work.finish_bulk(claimed.id, claimed.attempt, metrics={}, result=result)
    return f"/v1/jobs/{drawn.id}/result"


def names(width):
    return [f"c{place}" for place in range(width)]


@pytest.mark.parametrize("known", [True, False])
def test_results_of_many_columns_are_opened_one_at_a_time_and_count(client, monkeypatch, known):
    width = 90
    told = {"columns": names(width), "texts": list(range(width))} if known else {}
    url = a_result(client, width, **told)
    threads: list[str] = []
    counted: list[int] = []
    change = BodyMemory.change

    def noted(*given, **options):
        threads.append(threading.current_thread().name.partition("_")[0])
        return open_cells(*given, **options)

    def noted_change(memory, project, size):
        counted.append(size)
        change(memory, project, size)

    monkeypatch.setattr(results, "open_cells", noted)
    monkeypatch.setattr(BodyMemory, "change", noted_change)
    answer = client.get(url, headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [dict.fromkeys(names(width), f"{row}{TEXT}") for row in range(ROWS)]
    assert answer.headers["content-disposition"].endswith('.ndjson"')
    assert threads == ["documents"]
    assert max(counted) > 2 * width * ROWS * len(TEXT)
    assert sum(counted) == 0


def test_files_of_wide_results_are_fetched_in_threads_that_documents_do_not_wait_for(
    client, monkeypatch
):
    url = a_result(client, 90, columns=names(90), texts=list(range(90)))
    threads: list[str] = []
    blobs = type(client.app.state.blobs)
    opened = blobs.open

    def noted(*given):
        threads.append(threading.current_thread().name.partition("_")[0])
        return opened(*given)

    monkeypatch.setattr(blobs, "open", noted)
    assert client.get(url, headers={"Accept": "application/x-ndjson"}).status_code == 200
    assert threads[-1] == "documents"
    assert threads[0] != "documents", "from object storage, this takes as long as the file"


def test_csv_files_of_wide_results_are_looked_through_once_and_not_in_the_thread_of_documents(
    client, monkeypatch
):
    url = a_result(client, 90, columns=names(90), texts=list(range(90)))
    threads: list[str] = []

    def noted(*given):
        threads.append(threading.current_thread().name.partition("_")[0])
        return checked(*given)

    checked = text._checked
    monkeypatch.setattr(text, "_checked", noted)
    assert client.get(url, headers={"Accept": "application/x-ndjson"}).status_code == 200
    assert len(threads) == 1
    assert threads != ["documents"], "this takes as long as the file"


def test_results_of_a_few_columns_are_opened_beside_others(client, monkeypatch):
    url = a_result(client, 2, columns=names(2), texts=[0, 1])
    threads: list[str] = []

    def noted(*given, **options):
        threads.append(threading.current_thread().name)
        return open_cells(*given, **options)

    monkeypatch.setattr(results, "open_cells", noted)
    assert client.get(url, headers={"Accept": "application/x-ndjson"}).status_code == 200
    assert not threads[0].startswith("documents")


def test_npy_of_many_columns_of_text_is_refused(client):
    width = 90
    url = a_result(client, width, columns=names(width), texts=list(range(width)))
    refused = client.get(url, headers={"Accept": "application/x-npy"})
    assert refused.status_code == 406
