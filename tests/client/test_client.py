"""The client against the real service, and what it asks a server with a script for."""

import asyncio
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest

from densityd.client import (
    ApiError,
    AsyncClient,
    Client,
    Context,
    Job,
    JobFailedError,
    Settings,
    TrainingOptions,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from densityd.client.wire.parts import JoinedResults
from models_store.keys import Keys, Scope
from tabular.formats import TableFormat
from tests.api.wire import read, write
from tests.client.conftest import HELD_OUT, Service, serving
from tests.client.scripted import DATASET, JOB, Reply, ScriptedServer, a_json
from tests.tables.files import npy

COLUMNS = ["height", "weight", "age"]
ROWS = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(300, 3))
TABLE = pa.table({name: ROWS[:, COLUMNS.index(name)] for name in reversed(COLUMNS)})


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def test_unusual_rows_come_as_records_columns_and_files(service, client, tmp_path):
    dataset = client.datasets.upload(TABLE)
    kept = {"total": 300, "rows": [7, 3], "log_prob": [-40.0, -20.0], "counts": [1] * 24}
    for _ in range(2):
        service.add(
            name="odd",
            held_out=HELD_OUT,
            dataset_id=dataset.id,
            unusual=kept | {"held_out": [True, False]},
        )
    found = client.models.unusual("odd", limit=5)
    assert [(row.row, row.held_out) for row in found.rows] == [(7, True), (3, False)]
    assert found.rows[0].cells == {name: TABLE[name][7].as_py() for name in reversed(COLUMNS)}
    frame = client.model("odd").unusual(limit=5)
    assert list(frame) == ["row", "rank", "reasons", "review", *reversed(COLUMNS)]
    assert frame["rank"].tolist() == [row.rank for row in found.rows]
    assert [row.row for row in client.models.unusual("odd", max_rank=0.05).rows] == [7]
    client.models.review("odd", found.rows[1].digest, "not_unusual")
    assert client.models.unusual("odd:1").rows[1].review == "not_unusual"
    client.models.download_unusual("odd", tmp_path / "odd.xlsx", limit=1)
    [sheet] = pd.read_excel(tmp_path / "odd.xlsx", sheet_name=None, engine="calamine").values()
    assert sheet["height"].tolist() == pytest.approx([found.rows[0].cells["height"]])
    client.models.review("odd", found.rows[1].digest, None)
    assert client.models.unusual("odd", offset=1).rows[0].review is None
    with pytest.raises(ApiError, match="held out of both"):
        client.models.compare("odd:1", "odd:2")
    with pytest.raises(ApiError, match="not trained on a dataset"):
        client.models.unusual("people")


def test_arrays_tables_and_files_are_uploaded(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("height;weight\n1.5;2\n2.5;1\n3;\n")

    from_file = client.datasets.upload(file, delimiter=";", missing="drop")
    from_array = client.datasets.upload(ROWS.astype(np.float32), name="array")
    from_table = client.datasets.upload(TABLE)

    assert (from_file.name, from_file.rows) == ("people", 2)
    assert [column.name for column in from_array.columns] == ["x1", "x2", "x3"]
    assert [column.name for column in from_table.columns] == list(reversed(COLUMNS))
    assert [column.dtype for column in from_array.columns] == ["float32"] * 3
    assert client.datasets.get(from_table.id) == from_table
    listed = [one.id for one in client.datasets.list()]
    assert listed[:3] == [from_table.id, from_array.id, from_file.id]
    rows: Any = partial(client.datasets.rows, from_table.id)
    assert np.array_equal(rows(offset=5, limit=2)[:, ::-1], ROWS[5:7])
    assert np.array_equal(rows(limit=2, step=5)[:, ::-1], ROWS[:6:5])
    assert rows(to="table", limit=300).equals(TABLE.cast(rows(to="table", limit=1).schema))
    preview = client.datasets.preview(TABLE, types={"age": "category"})
    assert (preview.rows, preview.columns[0].type) == (300, "category")
    page = client.datasets.columns(from_table.id, offset=1, limit=1)
    assert ([one.name for one in page.items], page.total) == (["weight"], 3)
    client.datasets.delete(from_file.id)
    with pytest.raises(ApiError) as caught:
        client.datasets.get(from_file.id)
    assert (caught.value.status, caught.value.type) == (404, "/problems/not-found")


def test_what_is_no_table_of_numbers_is_told_before_it_is_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="1-D"):
        client.log_prob("people", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="3-D"):
        client.sample("heights", 1, context=np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="dtype"):
        client.datasets.upload(np.array([["a", "b"]]))


def test_log_densities_are_the_same_whole_in_pieces_from_a_file_and_by_name(client, tmp_path):
    np.save(tmp_path / "rows.npy", np.asfortranarray(ROWS))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")

    whole = client.log_prob("people", ROWS)

    assert whole.shape == (300,)
    assert np.isfinite(whole).all()
    assert np.array_equal(client.log_prob("people", mapped), whole)
    assert np.array_equal(client.log_prob("people", tmp_path / "rows.npy"), whole)
    text = io.BytesIO()
    client.log_prob("people", tmp_path / "rows.npy", to=text)
    assert np.allclose(np.loadtxt(io.BytesIO(text.getvalue()), skiprows=1), whole)
    client.log_prob("people", TABLE, to=tmp_path / "scores.parquet")
    assert np.allclose(pq.read_table(tmp_path / "scores.parquet")["log_prob"], whole)


def test_many_rows_are_scored_in_several_requests(client: Client) -> None:
    many = np.tile(ROWS, (400, 1))
    assert many.nbytes > 2 << 20
    whole = client.log_prob("people", many)
    assert np.array_equal(whole, np.tile(client.log_prob("people", ROWS), 400))


KINDS = {
    ".csv": TableFormat.CSV,
    ".ndjson": TableFormat.NDJSON,
    ".npy": TableFormat.NPY,
    ".arrows": TableFormat.ARROW,
    ".parquet": TableFormat.PARQUET,
    ".json": TableFormat.JSON,
}
TEXTS = (TableFormat.CSV, TableFormat.NDJSON, TableFormat.JSON)


def scores_in(file: Path) -> np.ndarray:
    kind, content = KINDS[file.suffix], file.read_bytes()
    if kind in TEXTS:
        content = re.sub(rb"\bnan\b|\bnull\b", b"NaN", content)
    return read(kind, content)[1]


@pytest.mark.parametrize("suffix", [suffix for suffix in KINDS if suffix != ".json"])
def test_a_file_that_is_sent_in_parts_has_the_scores_of_the_whole(
    client, service, tmp_path, suffix
):
    cutting = Client(Settings(service.url, rows_per_request=128))
    rows = ROWS.copy()
    rows[[7, 250], 1] = np.nan
    expected = client.score("ranked", rows)
    file = tmp_path / f"rows{suffix}"
    body = write(KINDS[suffix], COLUMNS, rows)
    file.write_bytes(body.replace(b"NaN", b"null").replace(b"nan", b""))

    for result in KINDS:
        target = tmp_path / f"scores{result}"
        cutting.score("ranked", file, to=target)
        values = scores_in(target)
        np.testing.assert_array_equal(values[:, 0], expected.log_prob)
        np.testing.assert_array_equal(values[:, 1], expected.quantile)
    assert np.array_equal(cutting.score("ranked", file).log_prob, expected.log_prob, equal_nan=True)
    cutting.close()
    errors = json.loads((tmp_path / "scores.json").read_bytes())["row_errors"]
    assert [error["row"] for error in errors] == [7, 250]
    lines = (tmp_path / "scores.ndjson").read_bytes().splitlines()
    assert json.loads(lines[250])["row_error"]["row"] == 250


def test_the_records_of_csv_are_not_cut_and_an_error_says_in_which_part_it_is(service, tmp_path):
    cutting = Client(Settings(service.url, rows_per_request=1))
    file = tmp_path / "rows.csv"
    record = b'170,70,40,"two\r\nlines"\r\n'
    file.write_bytes(b"height,weight,age,note\r\n" + 5 * record)
    text = io.BytesIO()
    cutting.log_prob("people", file, to=text, extra="ignore")
    assert text.getvalue().count(b"\n") == 6

    file.write_bytes(b"height,weight,age\n170,70,40\n170,tall,40\n")
    with pytest.raises(ApiError, match="after 1 rows"):
        cutting.log_prob("people", file, to=io.BytesIO())
    for suffix in (".npy", ".arrows", ".parquet"):
        (tmp_path / f"rows{suffix}").write_bytes(b"no table")
        with pytest.raises(ApiError, match=r"rows cannot be read|something else"):
            cutting.log_prob("people", tmp_path / f"rows{suffix}")
    pa.ipc.new_stream(tmp_path / "rows.arrows", TABLE.schema).close()
    with pytest.raises(ApiError, match="no rows"):
        cutting.log_prob("people", tmp_path / "rows.arrows")
    cutting.close()


def test_a_frame_gives_the_same_numbers_in_any_order_of_its_columns(client: Client) -> None:
    expected = client.log_prob("people", ROWS)
    frame = pd.DataFrame(ROWS, columns=COLUMNS)

    for order in itertools.permutations(COLUMNS):
        assert np.array_equal(client.log_prob("people", frame[list(order)]), expected)
    reverse = pl.DataFrame(frame[COLUMNS[::-1]].to_dict("list"))
    assert np.array_equal(client.log_prob("people", reverse), expected)
    assert np.array_equal(client.log_prob("people", reverse.to_dicts()), expected)
    structured = frame[COLUMNS[::-1]].to_records(index=False)
    assert np.array_equal(client.log_prob("people", structured), expected)
    assert np.array_equal(client.score("ranked", reverse).log_prob, expected)
    assert np.allclose(client.inverse("people", reverse).rows, client.inverse("people", ROWS).rows)


def test_columns_of_a_frame_that_are_missing_or_unknown_are_named(client: Client) -> None:
    frame = pd.DataFrame(ROWS, columns=["height", "mass", "age"])

    with pytest.raises(ApiError, match=r"(?s)weight.*mass|mass.*weight"):
        client.log_prob("people", frame)


def test_noise_and_data_lead_to_each_other(client: Client) -> None:
    noise = client.inverse("people", ROWS)
    data = client.forward("people", noise.rows)

    assert np.allclose(data.rows, ROWS, atol=1e-3)
    assert np.allclose(data.log_det, -noise.log_det, atol=1e-4)
    written = io.BytesIO()
    client.inverse("people", TABLE, to=written)
    assert written.getvalue().splitlines()[0] == b"height,weight,age,log_det"


def test_samples_are_the_same_in_every_form(client: Client, tmp_path: Path) -> None:
    whole = client.sample("people", 50, seed=7)
    table = client.sample("people", 50, to="table", seed=7)
    assert np.array_equal(np.column_stack([table[name] for name in COLUMNS]), whole)
    client.sample("people", 50, to=tmp_path / "drawn.npy", seed=7)
    assert np.array_equal(np.load(tmp_path / "drawn.npy"), whole)
    assert [file.name for file in tmp_path.iterdir()] == ["drawn.npy"]


@pytest.mark.parametrize(
    "context", [{"age": 40.0}, [40.0], [[40.0]], [{"age": 40.0}] * 4, np.full((4, 1), 40.0)]
)
def test_a_context_may_be_given_by_name_or_by_position(client: Client, context: Context) -> None:
    rows = client.sample("heights", 4, seed=1, context=context)

    assert np.allclose(rows, client.sample("heights", 4, seed=1, context={"age": 40.0}))
    scored = client.log_prob("heights", np.column_stack([rows, np.full(4, 40.0)]))
    assert np.isfinite(scored).all()


def test_a_refusal_names_the_field_and_the_request(client: Client) -> None:
    dataset = client.datasets.upload(ROWS)

    with pytest.raises(ApiError, match="layers must be a whole number") as caught:
        client.jobs.train("m", dataset.id, flow={"family": "maf", "layers": 0})

    assert caught.value.errors[0].field == "flow"
    assert caught.value.request_id
    with pytest.raises(ApiError, match="context"):
        client.sample("heights", 3)
    with pytest.raises(ApiError) as caught:
        client.log_prob("people", ROWS[:, :2])
    assert caught.value.members == {"expected": 3, "got": 2}
    with pytest.raises(ApiError) as caught:
        client.log_prob("people", ROWS[:0])
    assert caught.value.type == "/problems/batch-empty"


def test_a_job_is_started_followed_and_cancelled(client: Client) -> None:
    dataset = client.datasets.upload(ROWS, name="rows")
    options: TrainingOptions = {
        "columns": ["x2", "x1"],
        "optimisation": {"max_epochs": 3, "seed": 5},
    }

    job = client.jobs.train("walk", dataset.id, idempotency_key="mine", **options)

    assert client.jobs.train("walk", dataset.id, idempotency_key="mine", **options).id == job.id
    assert job.request["optimisation"]["max_epochs"] == 3
    assert job.ref is None
    named: Any = partial(client.jobs.list, model_name="walk", state="queued")
    assert [one.id for one in named()] == [job.id]
    made = job.created_at
    assert [one.id for one in named(created_from=made)] == [job.id]
    assert not list(named(created_before=made))
    with pytest.raises(WaitTimeoutError, match="still queued"):
        client.jobs.wait(job.id, timeout_s=0)
    assert client.jobs.cancel(job.id).state == "cancelled"
    seen: list[Job] = []
    with pytest.raises(JobFailedError, match="cancelled"):
        client.jobs.wait(job.id, on_progress=seen.append)
    assert [one.state for one in seen] == ["cancelled"]
    assert client.jobs.wait(job.id, check=False).final
    followed = list(client.jobs.events(job.id))
    assert [event.event for event in followed] == ["state", "state", "end"]
    page = client.jobs.event_page(job.id, after=1)
    assert [event.id for event in page.items] == [2, 3]
    assert [event.id for event in client.jobs.events(job.id, after=2)] == [3]
    assert client.jobs.resume(job.id).state == "queued"
    assert client.jobs.get(job.id).state == "queued"
    client.jobs.cancel(job.id)


def test_other_jobs_and_what_they_would_take(client: Client) -> None:
    dataset = client.datasets.upload(TABLE)
    quick: Any = {"optimisation": {"max_epochs": 1}}
    few, many = (client.jobs.estimate(dataset.id, **o) for o in (quick, {"quality": "best"}))
    assert 0 < few.seconds < many.seconds
    ranges: Any = {"flow.layers": {"low": 2, "high": 3}}
    sweep = client.jobs.sweep("swept", dataset.id, ranges, flow={"family": "maf"}, trials=2)
    assert (len(sweep.request["trials"]), sweep.request["model_name"]) == (2, "swept")
    assert client.jobs.update(sweep.id, description="wide", tags={"a": "b"}).tags == {"a": "b"}
    filled = client.jobs.impute("people", dataset.id, output="csv")
    assert (filled.kind, filled.request["output"]) == ("imputation", "csv")
    scored = client.jobs.score("people", dataset.id)
    with pytest.raises(ApiError, match="limit"):
        client.jobs.rows(scored.id, limit=0)
    with pytest.raises(ApiError, match="no result"):
        client.jobs.delete_result(scored.id)
    drawn = client.jobs.preview_target({"log_density": "-z1^2", "dim": 2})
    assert len(drawn.log_density) == len(drawn.log_density[0])


def test_keys_projects_and_webhooks(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path)
    with serving(tmp_path) as service:
        first = Keys(service.database).create("default", Scope.ADMIN)
        with Client(Settings(service.url, first.token)) as client:
            old = client.keys.create("write", label="mine", expires_days=2, rate=900)
            assert (old.scope, old.label, old.rate) == ("write", "mine", 900)
            assert old.expires_at is not None
            assert old.expires_at - old.created_at == timedelta(days=2)
            new = client.keys.rotate(old.id, grace_s=60)
            assert (new.scope, client.keys.get(old.id).state) == ("write", "usable")
            assert client.keys.revoke(new.id).state == "revoked"
            assert client.keys.create().scope == "read"
            ids = [key.id for key in client.keys.list()][:3]
            assert ids == [first.key.id, old.id, new.id]
            me = client.me()
            assert me.key is not None
            assert (me.project, me.scope, me.key.id) == ("default", "admin", first.key.id)
            made = client.projects.put("other", max_bytes=9000, max_queued_jobs=3)
            assert (made.max_bytes, made.max_queued_jobs) == (9000, 3)
            assert client.projects.get("other") == made
            assert made in client.projects.list()
            others = client.projects.create_key("other", "admin", label="theirs")
            assert client.version().version
        with Client(Settings(service.url, others.token)) as client:
            assert (others.label, client.usage().project) == ("theirs", "other")
            url = "https://example.com/ended"
            hook = client.webhooks.create(url, events=["job.failed"], description="d")
            assert (hook.url, hook.events, hook.description) == (url, ["job.failed"], "d")
            assert client.webhooks.rotate(hook.id).secret != hook.secret
            assert client.webhooks.get(hook.id) == client.webhooks.list()[0]
            sent = client.webhooks.test(hook.id)
            assert [one.id for one in client.webhooks.deliveries(hook.id)] == [sent.id]
            client.webhooks.delete(hook.id)
            assert client.webhooks.list() == []
            assert [one.action for one in client.audit()][:2] == ["DELETE", "POST"]


def test_models_their_versions_aliases_and_weights(client: Client, tmp_path: Path) -> None:
    assert {one.name for one in client.models.list()} >= {"people", "heights"}
    assert client.models.get("people").latest_version == 1
    [listed] = client.models.versions("heights")
    version = client.models.version("heights", 1)
    assert listed.metrics == version.metrics
    assert listed.checkpoint == version.checkpoint
    assert version.context_columns == ["age"]
    assert (listed.flow, listed.columns) == (None, None)
    [asked] = client.models.versions("heights", include=["flow", "columns"])
    assert (asked.flow, asked.columns) == (version.flow, version.columns)

    first = client.models.set_alias("people", "staging", 1)
    assert client.models.alias("people", "staging") == first
    assert (first.ref, first.version) == ("people@staging", 1)
    again = client.models.set_alias("people", "staging", 1, etag=first.etag)
    with pytest.raises(ApiError) as caught:
        client.models.set_alias("people", "staging", 1, etag='"999"')
    assert caught.value.status == 412
    assert again.version == 1
    assert np.array_equal(
        client.log_prob("people@staging", ROWS), client.log_prob("people:1", ROWS)
    )
    client.models.delete_alias("people", "staging")
    assert [move.version for move in client.models.alias_changes("people")] == [None, 1]
    assert client.models.update_version("people", 1, description="d").description == "d"

    target = tmp_path / "people.safetensors"
    client.models.download("people", 1, target)
    assert target.stat().st_size == client.models.version("people", 1).checkpoint.bytes
    copy = client.models.upload("people-copy", target)
    assert (copy.version, copy.lineage.job_id) == (1, None)
    assert np.array_equal(client.log_prob("people-copy", ROWS), client.log_prob("people:1", ROWS))
    client.models.delete_version("people-copy", 1)
    with pytest.raises(ApiError, match="people-copy"):
        client.models.version("people-copy", 1)


def test_what_is_asked_of_the_synchronous_client_holds_for_the_other() -> None:
    """One is generated from the other; most tests ask one of them alone."""
    generator = Path(__file__).parents[2] / "tools" / "sync_client.py"
    subprocess.run([sys.executable, generator, "--check"], check=True)  # noqa: S603 - our own code


def test_a_version_can_be_seen(service: Service) -> None:
    with Client(service.url) as client:
        png = client.models.plot("people", 1, "marginals")
        assert png.startswith(b"\x89PNG")
        assert client.models.plot("people", 1, "marginals", format="svg").startswith(b"<?xml")
        with pytest.raises(ApiError) as caught:
            client.models.plot("people", 1, "density")
        assert (caught.value.status, caught.value.type) == (422, "/problems/plot-unavailable")

    async def same() -> bytes:
        async with AsyncClient(service.url) as client:
            return await client.models.plot("people", 1, "marginals")

    assert asyncio.run(same()) == png


def test_the_asynchronous_client_gives_the_same(service: Service) -> None:
    async def walk() -> None:
        async with AsyncClient(service.url) as client:
            scores, drawn = await asyncio.gather(
                client.log_prob("people", ROWS), client.sample("people", 50, seed=7)
            )
            with Client(service.url) as plain:
                assert np.array_equal(scores, plain.log_prob("people", ROWS))
                assert np.array_equal(drawn, plain.sample("people", 50, seed=7))
            noise = await client.inverse("people", ROWS)
            assert np.allclose((await client.forward("people", noise.rows)).rows, ROWS, atol=1e-3)

    asyncio.run(walk())


def test_the_asynchronous_client_manages_the_same(service, tmp_path):
    async def walk() -> None:
        async with AsyncClient(service.url) as client:
            np.save(tmp_path / "rows.npy", ROWS)
            dataset = await client.datasets.upload(tmp_path / "rows.npy")
            assert await client.datasets.get(dataset.id) == dataset
            assert dataset.id in [one.id async for one in client.datasets.list()]
            assert (await client.datasets.rows(dataset.id, limit=3)).shape == (3, 3)
            assert (await client.datasets.rows(dataset.id, to="table", limit=3)).num_rows == 3

            job = await client.jobs.train("gentle", dataset.id)
            assert [one.id async for one in client.jobs.list(model_name="gentle")] == [job.id]
            with pytest.raises(WaitTimeoutError):
                await client.jobs.wait(job.id, timeout_s=0.05)
            assert (await client.jobs.cancel(job.id)).final
            assert [event.id async for event in client.jobs.events(job.id)] == [1, 2, 3]
            assert (await client.jobs.event_page(job.id)).ended
            assert (await client.jobs.resume(job.id)).state == "queued"
            await client.jobs.cancel(job.id)

            assert (await client.models.get("people")).latest_version == 1
            assert "people" in [one.name async for one in client.models.list()]
            [version] = [one async for one in client.models.versions("people")]
            whole = await client.models.version("people", 1)
            assert whole.checkpoint == version.checkpoint
            alias = await client.models.set_alias("people", "gentle", 1)
            assert await client.models.alias("people", "gentle") == alias
            await client.models.delete_alias("people", "gentle")
            await client.models.download("people", 1, tmp_path / "weights")
            assert (tmp_path / "weights").stat().st_size == version.checkpoint.bytes
            await client.datasets.delete(dataset.id)

    asyncio.run(walk())


FRAME = pd.DataFrame({"shop": ["north", None], "amount": [1.5, 2.0]})
ANSWER = {
    "log_prob": [-1.0, None],
    "quantile": [0.5, None],
    "explained": {"shop": "exact", "amount": "learnt"},
    "explanation": [{"shop": -0.5, "amount": -2.0}, {"shop": None, "amount": None}],
    "usual": {"shop": -0.25, "amount": None},
    "difference": [{"shop": -0.25, "amount": None}, {"shop": None, "amount": None}],
}


def test_both_parts_of_a_mixed_density_are_given(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]))]
    with Client(scripted.url) as client:
        parts = client.parts("m", FRAME, extra="ignore")

    assert np.array_equal(parts.log_prob, parts.discrete + parts.continuous)
    line = "POST /v1/models/m/log_prob?extra=ignore&parts=true"
    assert scripted.asked[0].line == line
    assert pa.ipc.open_stream(scripted.asked[0].body).read_all().to_pylist() == [
        {"shop": "north", "amount": 1.5},
        {"shop": None, "amount": 2.0},
    ]


def test_each_column_of_a_row_is_explained(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(ANSWER)]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert scripted.asked[0].line == "POST /v1/models/m/score?explain=true"
    assert np.array_equal(found.log_prob, [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.quantile, [0.5, np.nan], equal_nan=True)
    assert list(found.columns) == ["shop", "amount"]
    assert found.kinds == {"shop": "exact", "amount": "learnt"}
    assert np.array_equal(found.columns["amount"], [-2.0, np.nan], equal_nan=True)
    assert found.usual["shop"] == -0.25
    assert np.isnan(found.usual["amount"])
    assert np.array_equal(found.differences["shop"], [-0.25, np.nan], equal_nan=True)
    assert found.reasons(0) == {"shop": -0.25}


def test_the_reasons_of_a_row_begin_with_the_least_usual(scripted: ScriptedServer) -> None:
    differences = [
        {"shop": -1.0, "amount": -9.0},
        {"shop": -3.0, "amount": 0.5, "a": -2.0, "b": -4.0, "c": -1.5},
    ]
    scripted.replies = [a_json({**ANSWER, "difference": differences})]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert list(found.reasons(0)) == ["amount", "shop"]
    assert list(found.reasons(1)) == ["b", "shop", "a", "c", "amount"]
    assert found.describe(0) == "amount -9.0; shop -1.0"
    assert found.describe(1) == "b -4.0; shop -3.0; a -2.0"


def test_each_column_is_given_those_before_it(scripted: ScriptedServer) -> None:
    answer = {
        "log_prob": [-3.0, None],
        "order": ["amount", "shop"],
        "conditional": [{"shop": -1.0, "amount": -2.0}, {"shop": None, "amount": None}],
        "mean": [{"shop": None, "amount": 1.25}, {"shop": None, "amount": None}],
    }
    scripted.replies = [a_json(answer), a_json({**answer, "mean": [1]})]
    with Client(scripted.url) as client:
        found = client.conditionals("m", FRAME, extra="ignore")
        with pytest.raises(UnexpectedAnswerError, match="conditional"):
            client.conditionals("m", FRAME)

    line = "POST /v1/models/m/log_prob?extra=ignore&conditionals=true"
    assert scripted.asked[0].line == line
    assert found.order == ["amount", "shop"]
    assert np.array_equal(found.columns["shop"], [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.means["amount"], [1.25, np.nan], equal_nan=True)
    assert np.array_equal(found.log_prob, [-3.0, np.nan], equal_nan=True)


def test_the_evidence_of_rows_is_two_bounds(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -2.5], [-1.0, -0.5]]))]
    with Client(scripted.url) as client:
        found = client.evidence("m", [[1.0, 0.0], [0.0, 0.0]], samples=7, seed=3)

    assert scripted.asked[0].line == "POST /v1/models/m/evidence?samples=7&seed=3"
    assert found.elbo.tolist() == [-3.0, -1.0]
    assert found.log_evidence.tolist() == [-2.5, -0.5]


def test_unseen_levels_are_told_once_a_call_and_kept_with_the_scores(scripted):
    rows = np.zeros((300_000, 1))  # of two requests
    first = (2 << 20) // 8
    scripted.replies = [
        Reply(200, npy(np.zeros((first, 2))), {"X-Row-Warnings": '2;rows="0 7"'}),
        Reply(200, npy(np.zeros((len(rows) - first, 2))), {"X-Row-Warnings": '1;rows="3"'}),
    ]
    with Client(scripted.url) as client, pytest.warns(UserWarning, match="3 cells") as told:
        scores = client.score("m", rows)

    assert len(scripted.asked) == 2
    assert len(told) == 1
    [sentence] = scores.warnings
    assert sentence.startswith(
        "3 cells have a level that training never saw, first in rows 0, 7, 26"
    )


@pytest.mark.parametrize("explanation", [None, [{"shop": "x"}]], ids=str)
def test_a_response_without_an_explanation_is_told(scripted, explanation):
    scripted.replies = [a_json({**ANSWER, "explanation": explanation})]
    with Client(scripted.url) as client, pytest.raises(UnexpectedAnswerError, match="explanation"):
        client.explain("m", FRAME)


def test_a_fit_uploads_trains_and_waits_and_so_does_another_on_newer_rows(scripted):
    scripted.replies = [a_json(DATASET, 201), *[a_json(JOB, 202), a_json(JOB)] * 2]
    seen: list[Job] = []
    with Client(scripted.url) as client:
        model = client.fit(
            FRAME, "m", types={"a": "category"}, exclude=["b"], on_progress=seen.append
        )
        newer = model.retrain("ds_2")
    assert [job.state for job in seen] == ["succeeded"]
    assert (repr(model), newer.ref) == ("<model m:1>", "m:1")
    uploaded, trained, _, retrained, waited = scripted.asked
    query = "name=m&types=%7B%22a%22%3A%22category%22%7D&exclude=%5B%22b%22%5D"
    assert uploaded.line == f"POST /v1/datasets?{query}"
    request = {"model_name": "m", "dataset_id": "ds_1", "missing": "any"}
    assert json.loads(trained.body) == request
    assert retrained.line == "POST /v1/models/m%3A1/retrain"
    assert json.loads(retrained.body) == {"dataset_id": "ds_2"}
    assert waited.line == "GET /v1/jobs/job_1"


def test_options_of_an_upload_go_as_text_or_json(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(DATASET, 201), a_json(DATASET)]
    with Client(scripted.url) as client:
        client.datasets.upload(
            FRAME, types={"a": "category"}, exclude=["b"], header=False, max_levels=9, decimal=","
        )
        client.datasets.update("ds_1", types={"a": "ignored"})

    query = "types=%7B%22a%22%3A%22category%22%7D&exclude=%5B%22b%22%5D&header=false&max_levels=9"
    assert scripted.asked[0].line == f"POST /v1/datasets?{query}&decimal=%2C"
    assert scripted.asked[1].line == "PATCH /v1/datasets/ds_1"
    assert json.loads(scripted.asked[1].body) == {"types": {"a": "ignored"}}


def test_notes_about_rows_of_each_part_count_from_the_start_of_a_file() -> None:
    file = io.BytesIO()
    joined = JoinedResults("application/json", file)
    for _ in range(3):
        note = {"row": 1, "code": "non_finite"}
        told = {"log_prob": [0.5, None], "row_errors": [note], "order": ["b", "a"]}
        told |= {"row_warning_count": 2}
        joined.add(json.dumps(told).encode())
    joined.finish()
    whole = json.loads(file.getvalue())
    assert [note["row"] for note in whole["row_errors"]] == [1, 3, 5]
    assert (whole["log_prob"], whole["row_warning_count"]) == ([0.5, None] * 3, 6)
    assert whole["order"] == ["b", "a"], "it is no list of rows"

    file = io.BytesIO()
    joined = JoinedResults("application/x-ndjson", file)
    for _ in range(2):
        joined.add(b'{"log_prob":0.5}\n{"log_prob":0.1,"row_warnings":[{"row":1}]}\n')
    joined.finish()
    last = json.loads(file.getvalue().splitlines()[-1])
    assert last == {"log_prob": 0.1, "row_warnings": [{"row": 3}]}

    file = io.BytesIO()
    joined = JoinedResults("text/csv", file)
    for _ in range(2):
        joined.add(b'"a\nb",c\n1,2\n')
    assert file.getvalue() == b'"a\nb",c\n1,2\n1,2\n'
