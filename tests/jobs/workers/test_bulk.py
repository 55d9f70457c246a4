"""The work of bulk jobs as plain calls, on real files."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no type information
import pytest

from flows import CompiledFlow, compile_flow, quantiles_of, rank_among
from models_store.consistency import compare
from models_store.errors import StorageFullError
from models_store.files.blobs import Blobs, model_key
from models_store.files.checkpoints import save_model
from models_store.files.store_address import StoreAddress
from models_store.job_states import Job, JobRole, JobState
from models_store.records import Dataset
from models_store.requests.accept_bulk import accept_sampling, in_parts
from models_store.requests.bulk import AcceptedSampling, AcceptedScoring, SamplingRequest
from tests.api.serving import SPEC, a_flow
from tests.jobs.workers.place import PROJECT, Place, attempt_fields, epochs, ref, run
from tests.store.makers import claimed
from workers.errors import TrainingError
from workers.leftovers import sweep
from workers.protocol import (
    BulkTask,
    Interrupted,
    Message,
    ModelRef,
    Note,
    Produced,
    SamplingTask,
    ScoringTask,
)

ROWS = 1_000
NAMES = ["x3", "x1", "x2"]


@functools.cache
def compiled() -> CompiledFlow:
    return compile_flow(a_flow())


@functools.cache
def held_out() -> Any:
    return quantiles_of(compiled().log_prob(compiled().sample(500, seed=9)))


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 256 rows, and blocks of 300, so that a thousand rows are many of either."""
    monkeypatch.setattr("workers.trainer.products.CPU_STEP_ROWS", 256)
    monkeypatch.setattr("tabular.writers.GROUP_ROWS", 300)


@pytest.fixture
def dataset(place: Place) -> Dataset:
    """More columns than the model has, in another order."""
    table = np.random.default_rng(0).normal([70, 40, 170, 5], 10, size=(ROWS, 4))
    return place.add_table(table.astype(np.float32))


def common(place: Place, quantiles: Any = (), **changes: Any) -> dict[str, Any]:
    quantiles = held_out() if isinstance(quantiles, tuple) else quantiles
    flow = a_flow()
    key = model_key("job_" + "2" * 32, 1)
    stored = save_model(
        place.blobs, key, flow, spec=SPEC, columns=NAMES, preprocessing={"standardise": True}
    )
    model = ModelRef(
        key=stored.key,
        sha256=stored.sha256,
        flow={"family": "maf", "layers": 2, "hidden": [16]},
        columns=NAMES,
        quantiles=None if quantiles is None else quantiles.tolist(),
        held_out_rows=None if quantiles is None else 500,
    )
    return attempt_fields(place) | {"model": model} | changes


def scoring(place: Place, dataset: Dataset, **changes: Any) -> ScoringTask:
    request = AcceptedScoring(
        model="m:1",
        dataset_id=dataset.id,
        columns=NAMES,
        output=changes.pop("output", "parquet"),
        include_rows=changes.pop("include_rows", False),
    )
    return ScoringTask(
        request=request.model_dump(), dataset=ref(dataset), **common(place, **changes)
    )


def sampling(place: Place, **changes: Any) -> SamplingTask:
    request = AcceptedSampling(
        model="m:1", n=ROWS, seed=7, output=changes.pop("output", "parquet"), context=None
    )
    return SamplingTask(request=request.model_dump(), **common(place, **changes))


def produced(messages: list[Message]) -> Produced:
    last = messages[-1]
    assert isinstance(last, Produced), last
    return last


def file_of(place: Place, messages: list[Message]) -> Path:
    return place.blobs.path(produced(messages).result["key"])


def exact(place: Place, dataset: Dataset) -> np.ndarray:
    table = np.load(place.blobs.path(dataset.key))
    log_prob = compiled().log_prob(table[:, [2, 0, 1]])
    return np.column_stack([log_prob, rank_among(log_prob, held_out(), rows=500)])


def test_a_dataset_is_scored_by_the_names_of_its_columns(place: Place, dataset: Dataset) -> None:
    messages = run(scoring(place, dataset))

    table = pq.read_table(file_of(place, messages))
    assert table.column_names == ["log_prob", "quantile"]
    values = np.column_stack([column.to_numpy() for column in table.columns])
    assert values == pytest.approx(exact(place, dataset), abs=1e-5)
    metadata = pq.ParquetFile(file_of(place, messages)).metadata
    assert [metadata.row_group(i).num_rows for i in range(4)] == [300, 300, 300, 100]
    result = produced(messages).result
    assert result["rows"] == ROWS
    assert result["media_type"] == "application/vnd.apache.parquet"
    assert result["bytes"] == file_of(place, messages).stat().st_size
    metrics = produced(messages).metrics
    assert metrics["rows"] == ROWS
    assert metrics["non_finite"] == 0
    assert metrics["mean_log_prob"] == pytest.approx(values[:, 0].mean())
    assert [message.metrics["part"] for message in epochs(messages)] == [1, 2, 3, 4]
    counts = produced(messages).counts
    assert counts is not None
    assert counts["ranks"] == np.bincount((values[:, 1] * 10).astype(int).clip(0, 9)).tolist()
    computed = epochs(messages)[-1].progress
    assert (computed["rows"], computed["total_rows"]) == (ROWS, ROWS)
    assert 0 < computed["fraction"] < 1  # the file is not there yet


def test_a_version_without_ranks_gives_densities_alone(place: Place, dataset: Dataset) -> None:
    messages = run(scoring(place, dataset, quantiles=None, output="npy"))
    values = np.load(file_of(place, messages), allow_pickle=False)
    assert values == pytest.approx(exact(place, dataset)[:, 0], abs=1e-5)


def test_rows_keep_their_precision_beside_the_scores(place: Place, dataset: Dataset) -> None:
    messages = run(scoring(place, dataset, include_rows=True))
    table = pq.read_table(file_of(place, messages))
    assert table.column_names == ["x1", "x2", "x3", "x4", "log_prob", "quantile"]
    assert [str(field.type) for field in table.schema] == ["float"] * 4 + ["double"] * 2
    rows = np.column_stack([table[f"x{i}"].to_numpy() for i in (1, 2, 3, 4)])
    assert np.array_equal(rows, np.load(place.blobs.path(dataset.key)))


def test_rows_without_a_density_are_written_as_they_are(place: Place) -> None:
    table = np.ones((300, 3))
    table[7] = 1e300
    messages = run(scoring(place, place.add_table(table), output="csv"))
    line = file_of(place, messages).read_text().splitlines()[8]
    assert line.split(",")[0] in ("nan", "-inf")
    metrics = produced(messages).metrics
    assert metrics["non_finite"] == 1
    one = compiled().log_prob(np.ones((1, 3)))
    assert metrics["mean_log_prob"] == pytest.approx(one.item(), abs=1e-4)


@pytest.mark.parametrize("rows", [1, ROWS])
def test_a_conditional_model_is_given_its_context(place: Place, rows: int) -> None:
    flow = a_flow(context_dim=2)
    stored = save_model(
        place.blobs,
        model_key("job_" + "3" * 32, 1),
        flow,
        spec=SPEC,
        columns=NAMES,
        context_columns=["a", "b"],
        preprocessing={"standardise": True},
    )
    context = np.random.default_rng(1).normal(size=(rows, 2))
    task = sampling(place, output="npy")
    model = task.model.model_copy(update={"key": stored.key, "sha256": stored.sha256})
    request = task.request | {"context": context.tolist()}

    messages = run(task.model_copy(update={"model": model, "request": request}))

    values = np.load(file_of(place, messages), allow_pickle=False)
    expected = compile_flow(flow).sample(ROWS, seed=7, context=context)
    assert np.array_equal(values, expected)


@pytest.mark.parametrize(
    ("at", "kind", "output"),
    [
        (1, "scoring", "parquet"),
        (4, "sampling", "csv"),
        (6, "scoring", "csv"),
        (8, "sampling", "parquet"),
    ],
)
def test_interrupted_anywhere_it_makes_the_same_file(place, dataset, at, kind, output):
    def task(**changes: Any) -> BulkTask:
        if kind == "scoring":
            return scoring(place, dataset, output=output, include_rows=True, **changes)
        return sampling(place, output=output, **changes)

    undisturbed = produced(run(task())).result
    asked = iter(range(1, 10_000))

    first = run(task(attempt=2), lambda: next(asked) >= at)

    assert isinstance(first[-1], Interrupted)
    known = [message.checkpoint for message in reversed(epochs(first))][:2]
    second = run(task(attempt=3, checkpoints=known))
    result = produced(second).result
    assert result["key"] != undisturbed["key"]
    assert (result["sha256"], result["bytes"]) == (undisturbed["sha256"], undisturbed["bytes"])
    fresh = sum(message.metrics["rows"] > 0 for message in epochs(second))
    assert fresh + len(epochs(first)) == 4, "no row is computed twice"


def test_a_damaged_part_is_computed_again_and_those_after_it(place, dataset):
    undisturbed = run(scoring(place, dataset))
    [second] = [key for key in place.blobs.keys("jobs") if key.endswith("1-2.part")]
    place.blobs.path(second).write_bytes(b"\0")

    newest = epochs(undisturbed)[-1].checkpoint
    messages = run(scoring(place, dataset, attempt=2, checkpoints=[newest]))

    [note] = [message for message in messages if isinstance(message, Note)]
    assert note.text.startswith("Part 2 is unusable")
    assert [message.metrics["rows"] for message in epochs(messages)] == [512, 768, ROWS]
    assert produced(messages).result["sha256"] == produced(undisturbed).result["sha256"]


def test_without_a_list_it_starts_again(place: Place, dataset: Dataset) -> None:
    undisturbed = run(scoring(place, dataset))
    known = [message.checkpoint for message in epochs(undisturbed)][-2:]
    for lost in known:
        assert lost is not None
        place.blobs.delete(lost.key)
    messages = run(scoring(place, dataset, attempt=2, checkpoints=known))
    notes = [message.text for message in messages if isinstance(message, Note)]
    assert len(notes) == 3
    assert notes[-1].startswith("No list of parts is usable")
    assert produced(messages).result["sha256"] == produced(undisturbed).result["sha256"]


def test_a_file_is_written_while_as_much_of_the_disk_stays_free(place, monkeypatch):
    first = run(sampling(place))
    checkpoint = epochs(first)[-1].checkpoint
    store = StoreAddress(url=str(place.blobs.root), leave_bytes=10**18)
    task = sampling(place, store=store, attempt=2, checkpoints=[checkpoint])
    committed: list[str] = []
    monkeypatch.setattr(Blobs, "commit", lambda _self, _path, key: committed.append(key))
    with pytest.raises(StorageFullError):
        run(task)
    assert committed == [], "it ended before the file was whole"
    assert list(place.blobs.staging.iterdir()) == []


def test_parts_are_not_made_before_they_are_due(place: Place, dataset: Dataset) -> None:
    messages = run(scoring(place, dataset, checkpoint_interval_s=60.0))
    assert len(epochs(messages)) == 1


def test_a_model_that_was_changed_is_not_used(place: Place, dataset: Dataset) -> None:
    task = scoring(place, dataset)
    place.blobs.path(task.model.key).write_bytes(b"other")
    with pytest.raises(TrainingError, match="model") as error:
        run(task)
    assert error.value.code == "model_unusable"


SPLIT_ROWS, PART_ROWS = 1_000, 300
SPLIT_NAMES = ["x1", "x2", "x3"]


def result_of(place: Place, job_id: str) -> tuple[bytes, Job]:
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None
    return place.blobs.verify(job.result["key"], job.result["sha256"]).read_bytes(), job


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("scores", "npy"),
        ("rows and scores", "csv"),
        ("rows and scores", "parquet"),
        ("samples", "csv"),
    ],
)
def test_the_file_is_that_of_a_job_alone(place: Place, output: str, what: str) -> None:
    version, dataset = place.add_model(columns=SPLIT_NAMES), place.add_dataset(SPLIT_ROWS)

    def start(part_rows: int) -> str:
        if what == "samples":
            return place.submit_sampling(version, SPLIT_ROWS, part_rows, output=output)
        rows = what == "rows and scores"
        fields = {"output": output, "include_rows": rows}
        return place.submit_scoring(version, dataset, part_rows, **fields)

    alone, split = start(10**6), start(PART_ROWS)
    done = place.carry_out(order=-1)
    assert sum(job.role is JobRole.CHILD for job in done) == 5
    expected, one = result_of(place, alone)
    found, other = result_of(place, split)
    assert found == expected
    assert one.metrics is not None
    assert other.metrics == {**one.metrics, "rows": SPLIT_ROWS}
    assert other.progress is not None
    assert (other.progress["rows"], other.progress["fraction"]) == (SPLIT_ROWS, 1.0)


def test_parts_are_deleted_once_the_file_is_there(place: Place) -> None:
    version = place.add_model(columns=SPLIT_NAMES)
    job_id = place.submit_sampling(version, SPLIT_ROWS, PART_ROWS, output="npy")
    place.carry_out()
    sweep(place.database, place.blobs, keep_s=600)
    content, job = result_of(place, job_id)
    children = place.jobs.list(PROJECT, limit=50, parent_id=job_id).items
    assert len(children) == 5
    files = [file.key for file in place.blobs.files() if file.key.startswith(("results", "jobs"))]
    assert job.result is not None
    assert files == [job.result["key"]]
    comparison = compare(place.database, place.blobs, deep=True, grace_s=0.0)
    assert (comparison.unusable, comparison.orphans) == ([], [])
    assert np.isfinite(np.frombuffer(content[-8 * SPLIT_ROWS :], np.float64)).all()


def test_a_part_that_fails_ends_the_job_for_its_reason_and_is_resumed(place: Place) -> None:
    version = place.add_model(columns=SPLIT_NAMES)
    job_id = place.submit_sampling(version, SPLIT_ROWS, PART_ROWS, output="npy")
    child = claimed(place.work)
    place.work.fail(child.id, child.attempt, code="model_unusable", detail="It is gone.")
    place.carry_out()
    failed = place.job(job_id)
    assert failed.state is JobState.FAILED
    assert failed.error == {"code": "model_unusable", "detail": "It is gone."}
    place.jobs.resume(PROJECT, job_id)
    done = place.carry_out()
    assert [job.request.get("span") for job in done] == [[0, PART_ROWS], None]
    result_of(place, job_id)


def test_a_changed_part_is_told(place: Place) -> None:
    version = place.add_model(columns=SPLIT_NAMES)
    place.submit_sampling(version, SPLIT_ROWS, 600, output="npy")
    for _ in range(2):
        product = place.finish(claimed(place.work, lease_s=600))
        place.blobs.path(product["checkpoint_key"]).write_bytes(b"")
    task = place.assigned(claimed(place.work, lease_s=600))
    with pytest.raises(Exception, match="Part 1 cannot be read"):
        run(task)


def test_few_rows_have_no_parts_and_many_rows_or_a_long_request_few(place: Place) -> None:
    version = place.add_model(columns=SPLIT_NAMES)
    request = SamplingRequest(model=version.ref, n=2**40, seed=1)
    for length, rows, part_rows, most in (
        (1, 1000, None, 0),
        (1, 2**40, None, 64),
        (1000, 2**24, 2**16, 64),
        (4_000_000, 2**24, 2**16, 4),
        (9_000_000, 2**24, 2**16, 0),
        (1, 2**16, 2**16, 0),
    ):
        accepted = accept_sampling(request, version, [["x" * length]], max_bytes=2**60)
        split = in_parts(accepted, version, rows=rows, part_rows=part_rows)
        parts = 0.0 if split is None or split.part_rows is None else rows / split.part_rows
        assert parts <= most
        assert (parts == 0) == (most == 0)
