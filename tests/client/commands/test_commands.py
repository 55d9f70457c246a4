"""The commands that use a service, against the real one or one with a script."""

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from densityd.cli import app
from densityd.client import Client, Job
from densityd.client.progress import ProgressBar, describe_progress, format_duration
from densityd.client.wire.arrays import encode_table
from tests.client.conftest import Service
from tests.client.scripted import DATASET, DROP, JOB, Reply, ScriptedServer, a_json
from tests.support.servers import free_port

ROWS = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))
RESULT = {"url": "/r", "media_type": "application/x-npy", "bytes": 5, "sha256": "x", "rows": 3}
BULK = {**JOB, "kind": "sampling", "state": "succeeded", "result": RESULT}


def run(*arguments: object, status: int = 0, says: str | None = None) -> Result:
    """Run a command that ends with a status, and says something where it asks."""
    result = CliRunner().invoke(app, [str(part) for part in arguments], input=says)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(autouse=True)
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DENSITYD_URL", service.url)
    return service.url


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    np.savetxt(file, ROWS, delimiter=",", header="height,weight,age", comments="")
    return file


@pytest.fixture
def asked(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    return scripted


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "Bad Name"], "--model 'Bad Name' is no name of a model"),
        (["--model", "m", "--flow", "mafs"], "there is no flow mafs; did you mean maf?"),
        (["--model", "m", "--set", "optimisation.max_epochs=-1"], "max_epochs: -1 is less than"),
        (["--model", "m", "-o", "excludes=a"], "no option excludes; did you mean exclude?"),
        (["--model", "m", "-o", "types.age=text"], "-o types.age: "),
        (["--model", "m", "-o", "types=5"], "-o types=5: write -o types.NAME=VALUE."),
        (["--model", "m", "-o", "max_levels=x"], "-o max_levels: "),
        (["--model", "m", "--set", "layers=2"], "layers is a field of a flow: name its family"),
        (["--model", "m", "--set", "flow=1", "--set", "layers=2"], "flow has a value of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_options_of_a_training_are_told_before_anything_is_sent(table, url, options, says):
    with Client(url) as client:
        before = len(list(client.datasets.list()))
        assert says in run("train", table, *options, status=2).stderr
        assert len(list(client.datasets.list())) == before


def test_a_table_is_uploaded_once_with_its_options(table: Path, url: str) -> None:
    options = ["-o", "types.age=ignored", "-o", 'exclude=["weight"]', "-o", "tags.team=space"]
    options += ["-o", "name=5", "-o", "max_levels=7", "-o", "types.height=category"]
    command = ["train", table, "--model", "once", "--no-wait", "--set", "tags.stage=trial"]
    first = run(*command, *options).stderr
    again = run(*command, *options).stderr

    assert "uploaded 50 rows x 3 columns" in first
    assert "uploaded before: 50 rows" in again
    with Client(url) as client:
        [dataset] = client.datasets.list(tags={"team": "space"})
        columns = {column.name: column.type for column in client.datasets.get(dataset.id).columns}
        assert columns == {"height": "category", "weight": "ignored", "age": "ignored"}
        assert dataset.name == "5"
        jobs = list(client.jobs.list(model_name="once"))
        assert [job.tags for job in jobs] == [{"stage": "trial"}] * 2
        assert {job.dataset_id for job in jobs} == {dataset.id}
        for job in jobs:
            client.jobs.cancel(job.id)
        client.datasets.delete(dataset.id)
    assert "uploaded 50 rows" in run(*command, *options).stderr
    with table.open("ab") as file:
        file.write(b"1,2,3\n")
    assert "uploaded 51 rows" in run(*command, *options).stderr
    told = run("train", "--dataset", "ds_1", "--model", "m", "-o", "exclude=a", status=2)
    assert "says how a FILE is read" in told.stderr
    assert (
        "`densityd list datasets`"
        in run("train", "--dataset", "walk", "--model", "m", status=2).stderr
    )


def test_a_training_has_the_options_of_the_command(table: Path, url: str) -> None:
    with Client(url) as client:
        known = client.datasets.upload(table)
        command = "--model chosen --flow maf --column height --context-column age --missing any"
        bounds = "--quality fast --max-seconds 99 --no-wait --json"
        told = run("train", "--dataset", known.id, *command.split(), *bounds.split())
        job = client.jobs.cancel(json.loads(told.stdout)["id"])
    assert f"dataset of 50 rows x 3 columns: {known.id}\n" in told.stderr
    asked = job.request
    assert (asked["flow"]["flow"]["family"], asked["columns"]) == ("maf", ["height"])
    assert (asked["context_columns"], asked["flow"]["missing"]) == (["age"], "any")
    limits = [asked["optimisation"][name] for name in ("max_epochs", "max_seconds")]
    assert limits == [125, 99]  # a quarter of the epochs


def test_the_demo_shows_the_most_unusual_row_by_its_number_with_what_is_usual(asked):
    reason = {"column": "mass", "value": 9, "difference": -3.0, "levels": None}
    row: dict[str, object] = {
        "row": 7,
        "held_out": None,
        "rank": 0.1,
        "log_prob": -9.0,
        "digest": "x",
        "review": None,
    }
    row |= {"cells": {"mass": 9, "sex": None}}
    row |= {"reasons": [reason | {"usual": {"low": 3, "high": 4}}]}
    found: dict[str, object] = {
        "model": "m:1",
        "dataset_id": "ds_1",
        "job_id": None,
        "columns": ["mass", "sex"],
    }
    found |= {"total_rows": 6, "kept_rows": 1, "held_out": None, "thresholds": [], "period": None}
    drawn = b"".join(encode_table(pa.table({"mass": [3.5], "sex": ["f"]})).chunks())
    reused = a_json({"type": "/problems/idempotency-key-reused", "title": "R", "status": 422}, 422)
    dataset = a_json(DATASET, 201)
    started, ended = a_json(JOB, 202), a_json(JOB)
    replies = [Reply(body=b"mass,sex\n"), reused, dataset, started, ended]
    asked.replies = [*replies, a_json(found | {"rows": [row]}), Reply(body=drawn)]

    told = run("demo", "--model", "shown").stdout

    assert "The most unusual of 6 penguins is number 8:" in told
    assert "mass    9        3 to 4\nsex     missing  as it is\n" in told
    assert "Three rows that m:1 drew:\n\nmass  sex\n 3.5  f\n" in told
    assert f"{asked.url}/#/models/shown\n" in told
    lines = [one.line for one in asked.asked]
    keys = [one.headers["idempotency-key"] for one in asked.asked[1:3]]
    assert [key.startswith("upload-") for key in keys] == [True, False]
    assert lines[0] == "GET /static/page/penguins.csv"
    assert lines[5] == "GET /v1/models/m%3A1/unusual?limit=1"
    request = json.loads(asked.asked[3].body)
    assert (request["model_name"], request["missing"]) == ("shown", "any")
    assert json.loads(asked.asked[6].body) == {"n": 3, "seed": 7}


def test_each_field_of_a_refusal_is_told_once(asked: ScriptedServer) -> None:
    wrong = [
        {"detail": "odd", "pointer": "/a/~01"},
        {"detail": "Two.", "parameter": "b"},
        {"detail": "x", "column": "c"},
    ]
    problem = {"title": "Wrong", "status": 422, "detail": "Two.", "type": "/problems/validation"}
    problem["errors"] = [*wrong, {"detail": "bare"}]
    asked.replies = [a_json(problem, 422), a_json(problem | {"detail": "`c` is x."}, 422)]
    page = f"  Wrong (status 422): {asked.url}/problems/validation"
    fields = ["  a.~1: odd", "  The field is b.", "  c: x", "  bare", page]
    assert run("show", "m", status=1).stderr.splitlines() == ["densityd: Two.", *fields]
    told = run("show", "m", status=1).stderr.splitlines()
    assert told == ["densityd: `c` is x.", "  a.~1: odd", "  b: Two.", "  bare", page]


def test_a_refusal_names_the_field_and_where_to_read_more(table: Path, url: str) -> None:
    told = run("train", table, "--model", "m", "--flow", "maf", "--set", "layers=0", status=1)

    assert told.stdout == ""
    assert "layers must be a whole number of at least 1" in told.stderr
    assert f"(status 422): {url}/problems/validation\n" in told.stderr
    assert "log has this request under" in told.stderr


def test_a_service_that_is_not_there_or_breaks_off_has_a_status_and_an_advice_of_its_own(asked):
    port = free_port()
    told = run("list", "--url", f"http://127.0.0.1:{port}", status=3).stderr
    assert f"http://127.0.0.1:{port}: cannot connect" in told
    assert "`densityd up`" in told
    assert "not a URL" in run("list", "--url", "nonsense", status=2).stderr
    asked.replies = [DROP]
    told = run("cancel", "job_1", status=3).stderr
    assert "the connection broke" in told
    assert "`densityd up`" not in told  # it is there


def test_what_there_is_is_listed_shown_and_deleted(service: Service, table: Path, url: str) -> None:
    service.add(name="gone")
    service.add(name="gone")
    with Client(url) as client:
        dataset = client.datasets.upload(table, name="mine").id
        job = client.jobs.sample("people:1", 5).id
    for text in ("people", job, dataset):
        assert text in run("list").stdout
    assert json.loads(run("list", "--json").stdout).keys() == {"models", "jobs", "datasets"}
    assert job in run("list", "jobs", "--state", "queued").stdout
    assert job not in run("list", "jobs", "--state", "failed").stdout
    assert run("list", "jobs", "--limit", 1).stdout.count("\n") == 2
    assert run("list", "models", "--prefix", "nothing").stdout.count("\n") == 1
    assert "--state" in run("list", "models", "--state", "queued", status=2).stderr
    assert "few_rows" in run("show", dataset).stdout
    assert json.loads(run("show", dataset, "--json").stdout)["name"] == "mine"
    assert "sampling" in run("show", job).stdout
    assert "maf" in run("show", "people").stdout
    [version] = json.loads(run("show", "people", "--json").stdout)["versions"]
    assert version["family"] == "maf"
    assert "sha256" in run("show", "people:1").stdout
    assert "a number" in run("show", "people:newest", status=1).stderr
    assert "it continues" in run("wait", job, "--timeout", 0, status=1).stderr
    assert run("cancel", job).stdout == f"{job} cancelled\n"
    assert run("wait", job, status=1).stderr == f"densityd: {job} cancelled\n"
    assert "Delete sampling job" in run("delete", job, status=1, says="n\n").stderr
    run("delete", job, says="y\n")
    assert "not-found" in run("show", job, status=1).stderr
    run("delete", dataset, "--yes")
    assert "Delete version gone:1?" in run("delete", "gone:1", status=1, says="").stderr
    run("delete", "gone:1", says="y\n")
    assert "its 1 versions" in run("delete", "gone", says="y\n").stderr
    assert "alias" in run("delete", "people@production", "--yes", status=2).stderr


def test_unusual_rows_are_printed_and_written(service, table, url, tmp_path):
    with Client(url) as client:
        dataset = client.datasets.upload(table).id
    kept = {"total": 50, "rows": [7, 3], "log_prob": [-40.0, -20.0], "counts": None}
    service.add(name="odd", dataset_id=dataset, unusual=kept | {"held_out": [True, False]})
    told = run("unusual", "odd", "--limit", 1).stdout.splitlines()
    assert told[0].split(",")[:5] == ["row", "held_out", "rank", "log_prob", "reasons"]
    assert len(told) == 2
    assert told[1].startswith("7,True,,-40.0,")
    run("unusual", "odd", "-o", tmp_path / "odd.xlsx")
    assert (tmp_path / "odd.xlsx").read_bytes()[:2] == b"PK"
    assert "unusual-unavailable" in run("unusual", "people", status=1).stderr


def test_options_of_a_command_are_sent(asked: ScriptedServer, table: Path) -> None:
    asked.replies = [Reply(body=b"bytes")]
    assert run("unusual", "m", "--max-rank", 0.05, "--dataset", "ds_1").stdout == "bytes"
    run("impute", "m", table, "--fill", "draw", "--level", 0.9, "--seed", 1)
    run("impute", "m", table)
    run("score", "m", table, "--extra", "ignore")
    run("sample", "m", "-n", 2_000_000, "--no-job", "-o", table)
    assert [one.line for one in asked.asked] == [
        "GET /v1/models/m/unusual?limit=20&dataset_id=ds_1&max_rank=0.05",
        "POST /v1/models/m/impute?fill=draw&seed=1&level=0.9",
        "POST /v1/models/m/impute?fill=mean&seed=0",
        "POST /v1/models/m/log_prob?extra=ignore",
        "POST /v1/models/m/sample?space=data",
    ]
    refusals: list[tuple[list[object], str]] = [
        (["--include-rows", table], "--include-rows needs --dataset."),
        (["--evidence", "--dataset", "ds_1"], "--evidence is of a FILE."),
        (["--extra", "error", "--dataset", "ds_1"], "--extra is of a FILE"),
        (["--samples", 9, table], "--samples needs --evidence."),
        (["--dataset", "ds_1", "-o", "x.json"], "a job writes .csv, .npy or .parquet."),
    ]
    for options, told in refusals:
        assert told in run("score", "m", *options, status=2).stderr


def test_a_version_is_promoted_exported_and_imported(tmp_path, monkeypatch):
    assert run("alias", "ranked", "best", 1, "--reason", "it is quiet").stdout == "ranked:1\n"
    assert run("alias", "ranked", "best").stdout == "ranked:1\n"
    assert (
        "--reason goes with VERSION."
        in run("alias", "ranked", "best", "--reason", "x", status=2).stderr
    )
    assert "it is quiet" in run("alias", "ranked").stdout
    assert json.loads(run("alias", "ranked", "best", "--json").stdout)["version"] == 1
    assert json.loads(run("alias", "ranked", "--json").stdout)[0]["reason"] == "it is quiet"
    assert "best -> 1" in run("list", "models").stdout
    monkeypatch.chdir(tmp_path)
    assert run("export", "ranked@best").stdout == "ranked-1.safetensors\n"
    assert run("export", "ranked@best", "-o", "r.ONNX").stdout == "r.ONNX\n"
    onnx.checker.check_model("r.ONNX")
    assert ".safetensors or .onnx" in run("export", "ranked", "-o", "r.bin", status=2).stderr
    assert run("import", "ranked-1.safetensors", "--model", "copied").stdout == "copied:1\n"
    with Client() as client:
        first, second = (client.score(ref, ROWS) for ref in ("ranked:1", "copied:1"))
        assert (first.quantile == second.quantile).all()
    assert run("alias", "ranked", "best", "--delete").stdout == ""
    assert "not-found" in run("alias", "ranked", "best", status=1).stderr
    assert "without VERSION" in run("alias", "ranked", "best", 1, "--delete", status=2).stderr


def test_any_request_can_be_sent(table: Path, tmp_path: Path) -> None:
    assert json.loads(run("call", "GET", "/v1/usage").stdout)["project"] == "default"
    made = json.loads(run("call", "post", "/v1/datasets", table, "-o", "name=a b").stdout)
    assert (made["name"], made["rows"]) == ("a b", 50)
    body = json.dumps({"types": {"age": "ignored"}})
    changed = json.loads(run("call", "PATCH", f"/v1/datasets/{made['id']}", body).stdout)
    assert [column["type"] for column in changed["columns"]][2] == "ignored"
    path = f"/v1/datasets/{made['id']}"
    piped = CliRunner().invoke(app, ["call", "PATCH", path, "-"], input='{"description": "d"}')
    assert json.loads(piped.stdout)["description"] == "d"
    rows = run("call", "GET", f"/v1/datasets/{made['id']}/rows", "-o", "limit=2").stdout
    assert len(json.loads(rows)["rows"]) == 2
    run("call", "GET", "/openapi.json", "--output", tmp_path / "api.json")
    assert "paths" in json.loads((tmp_path / "api.json").read_text())
    assert run("call", "DELETE", f"/v1/datasets/{made['id']}").stdout == ""
    assert "not-found" in run("call", "GET", "/v1/nothing", status=1).stderr
    assert "is not JSON" in run("call", "POST", "/v1/keys", "{a", status=2).stderr
    assert "no file" in run("call", "POST", "/v1/keys", "nothing.json", status=2).stderr
    assert "begins with /" in run("call", "GET", "v1/usage", status=2).stderr


def test_scores_are_printed_or_written_in_the_format_that_the_name_tells(table, tmp_path, url):
    with Client(url) as client:
        expected = client.log_prob("people", ROWS)
        ranks = client.score("ranked", ROWS).quantile

    printed = run("score", "people", table).stdout_bytes
    assert np.allclose(np.loadtxt(io.BytesIO(printed), skiprows=1), expected)
    run("score", "people:1", table, "-o", tmp_path / "scores.parquet")
    assert np.allclose(pq.read_table(tmp_path / "scores.parquet")["log_prob"], expected)
    ranked = run("score", "ranked", table, "--ranks").stdout.splitlines()
    assert ranked[0] == "log_prob,quantile"
    assert np.allclose(np.loadtxt(ranked[1:], delimiter=",")[:, 1], ranks)
    piped = CliRunner().invoke(app, ["score", "people", "-"], input=table.read_bytes())
    assert (piped.exit_code, piped.stdout_bytes) == (0, printed)

    assert "must end in one of" in run("score", "people", table, "-o", "x.txt", status=2).stderr
    missing = run("score", "people", table, "-o", tmp_path / "no" / "x.csv", status=1).stderr
    assert missing == f"densityd: {tmp_path / 'no' / 'x.csv'}: No such file or directory\n"
    unknown = run("score", "nobody", table, "-o", tmp_path / "none.csv", status=1)
    assert "not-found" in unknown.stderr
    assert not (tmp_path / "none.csv").exists()
    (tmp_path / "rows.csv").write_text("height,mass,age\n1,2,3\n")
    told = run("score", "people", tmp_path / "rows.csv", status=1).stderr.splitlines()
    assert "  missing: weight" in told
    assert "  unknown: mass" in told
    for given in (["score", "m"], ["train", "--model", "m"]):
        for rows in ([], [table, "--dataset", "ds_1"]):
            assert "either FILE or --dataset" in run(*given, *rows, status=2).stderr
    refused = run("score", "m", table, "--evidence", "--ranks", status=2).stderr
    assert "--ranks and --evidence exclude each other" in refused


def test_an_explanation_is_a_column_of_reasons(asked, table, tmp_path):
    difference = [{"Total ($)": -18.54, "Units": -12.0, "Zip": -0.3}, {"Total ($)": 1.0}]
    scores = {"log_prob": [-40.0, None], "quantile": [0.001, None], "usual": {}}
    asked.replies = [a_json(scores | {"explanation": difference, "difference": difference})]

    told = run("score", "m", table, "--explain")

    assert told.stdout.splitlines() == [
        "log_prob,quantile,reasons",
        "-40.0,0.001,Total ($) -18.5; Units -12.0",
        "nan,nan,",
    ]
    assert "1 row has no score." in told.stderr
    assert asked.asked[0].line == "POST /v1/models/m/score?explain=true"
    run("score", "m", table, "--explain", "-o", tmp_path / "ALERTS.CSV")
    assert (tmp_path / "ALERTS.CSV").read_text() == told.stdout
    scores["log_prob"] = [-40.0, -1.0]
    content = a_json(scores | {"explanation": difference, "difference": difference})
    warned = '[{"detail": "a line was no row"}, {"detail": "nor another"}]'
    asked.replies = [replace(content, headers={"X-Body-Warnings": warned})]
    assert (
        run("score", "m", table, "--explain").stderr
        == "warning: a line was no row\nwarning: nor another\n"
    )
    asked.replies = [replace(content, headers={"X-Body-Warnings": "a text"})]
    assert run("score", "m", table, "--explain").stderr == "warning: a text\n"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--parts"], "log_prob?parts=true"),
        (["--conditionals"], "log_prob?conditionals=true"),
        (["--evidence", "--samples", "7"], "evidence?samples=7&seed=0"),
    ],
    ids=str,
)
def test_other_columns_than_the_density_are_asked_for(asked, table, options, line):
    asked.replies = [Reply(body=b"bytes")]
    assert run("score", "m", table, *options).stdout == "bytes"
    assert asked.asked[0].line == f"POST /v1/models/m/{line}"


def test_samples_are_printed_or_written(tmp_path: Path) -> None:
    lines = run("sample", "people", "-n", 3, "--seed", 1).stdout.splitlines()
    assert lines[0] == "height,weight,age"
    assert len(lines) == 4
    assert run("sample", "people", "-n", 3, "--seed", 1).stdout.splitlines() == lines
    run("sample", "heights", "--context", "age=40", "-n", 5, "-o", tmp_path / "rows.npy")
    assert np.load(tmp_path / "rows.npy").shape == (5, 2)
    assert "context-mismatch" in run("sample", "heights", "--context", "age=x", status=1).stderr
    assert "NAME=VALUE" in run("sample", "heights", "--context", "age", status=2).stderr


@pytest.mark.parametrize(
    ("command", "request_body"),
    [
        (
            ["score", "m", "--dataset", "ds_1", "--include-rows", "--explain"],
            {"dataset_id": "ds_1", "include_rows": True, "parts": False, "explain": True},
        ),
        (
            ["sample", "m", "-n", 2_000_000, "--seed", 3],
            {"n": 2_000_000, "seed": 3, "context": None},
        ),
        (
            ["sample", "m", "-n", 5, "--context", "a=1", "--job"],
            {"n": 5, "seed": None, "context": {"a": 1}},
        ),
    ],
    ids=["score", "sample", "few"],
)
def test_much_is_done_by_a_job_whose_file_is_downloaded(asked, tmp_path, command, request_body):
    running = {**BULK, "state": "running", "result": None}
    ended = {**BULK, "metrics": {"rows": 3, "non_finite": 2}}
    asked.replies = [a_json(running), a_json(running), a_json(ended), Reply(body=b"bytes")]

    told = run(*command, "-o", tmp_path / "file.npy").stderr

    assert ("2 rows have no score" in told) == (command[0] == "score")
    assert (tmp_path / "file.npy").read_bytes() == b"bytes"
    assert json.loads(asked.asked[0].body) == {**request_body, "model": "m", "output": "npy"}
    assert asked.asked[-1].line == "GET /v1/jobs/job_1/result"


def test_a_result_is_downloaded_in_the_format_that_the_name_tells(asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked.replies = [a_json({**BULK, "request": {"output": "parquet"}}), Reply(body=b"bytes")]

    assert run("download", "job_1").stdout == "job_1.parquet\n"
    assert run("download", "job_1", "-o", "x.csv").stdout == "x.csv\n"

    assert (tmp_path / "x.csv").read_bytes() == b"bytes"
    accepted = [one.headers["accept"] for one in asked.asked[1:]]
    assert accepted == ["application/vnd.apache.parquet", "text/csv"]
    assert "must end in one of" in run("download", "job_1", "-o", "x.xls", status=2).stderr
    asked.replies = [a_json(BULK)]
    assert run("wait", "job_1").stdout == "job_1  3 rows, 5 bytes\n"
    run("sample", "m", "-n", 2_000_000, "-o", "rows.json")  # which no job writes
    assert asked.asked[-1].line.startswith("POST /v1/models/m/sample")


def test_a_job_is_shown_with_the_time_left_and_then_with_its_file(asked: ScriptedServer) -> None:
    progress = {"rows": 5, "total_rows": 20, "fraction": 0.25, "eta_seconds": 95.0}
    running = {**JOB, "kind": "scoring", "state": "running", "progress": progress}
    unknown = running | {"progress": progress | {"eta_seconds": None}}
    asked.replies = [a_json(running), a_json(unknown), a_json(BULK)]

    assert "25 %, about 1 min 35 s left" in run("show", "job_1").stdout
    assert "25 %\n" in run("show", "job_1").stdout
    shown = run("show", "job_1").stdout

    assert "left" not in shown
    assert "3 rows, 5 bytes: densityd download job_1" in shown


def test_a_model_is_told_with_its_likelihood(asked: ScriptedServer) -> None:
    metrics = {"test_log_likelihood": -16.5234, "test_standard_error": 0.095}
    job = a_json({**JOB, "metrics": metrics | {"summary": ["It is as good as others."]}})
    asked.replies = [job, job, a_json(JOB), a_json(DATASET)]
    told = run("wait", "job_1")
    assert told.stdout == "m:1  test log-likelihood -16.523 +- 0.190 nats per row\n"
    assert told.stderr == f"{told.stdout}It is as good as others.\n"
    as_json = run("wait", "job_1", "--json")
    assert json.loads(as_json.stdout)["id"] == "job_1"
    assert as_json.stderr == told.stderr
    assert run("wait", "job_1").stdout == "m:1\n"
    assert "WARNING" not in run("show", "ds_1").stdout  # it has none


def test_what_the_service_says_cannot_steer_the_terminal(asked: ScriptedServer) -> None:
    error = {"code": "x", "detail": "\x1b[2Jgone\nand more"}
    asked.replies = [a_json({**JOB, "state": "failed", "error": error})]
    assert "\x1b" not in run("show", "job_1").stdout
    assert run("wait", "job_1", status=1).stderr.count("\n") == 1


def test_interrupting_a_wait_says_that_the_job_goes_on(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json({**JOB, "state": "running"})]
    # Whoever runs the tests may have had signals ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from densityd.cli import main; main()"
    )
    process = subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", program, "wait", "job_1", "--url", scripted.url],
        stderr=subprocess.PIPE,
    )
    while not scripted.asked:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)

    _, told = process.communicate(timeout=120)

    assert process.returncode == 130
    assert told.decode().splitlines() == [
        "densityd: job_1 continues.",
        "  `densityd wait job_1` waits again; `densityd cancel job_1` stops it.",
    ]


def test_the_bar_shows_epoch_likelihood_and_time_left_at_a_terminal_alone() -> None:
    progress = {"epoch": 12, "max_epochs": 99, "fraction": 0.25, "eta_seconds": 95.0}
    metrics = {"epoch": 12, "robust_validation_log_likelihood": 2.9}
    job = Job.read({**JOB, "state": "running", "progress": progress, "metrics": metrics})
    words = "epoch 12, validation log-likelihood 2.900 nats, about 1 min 35 s left"
    assert describe_progress(job) == words
    assert "left" not in describe_progress(Job.read({**JOB, "progress": progress}))
    counts = {"iteration": 1, "max_iterations": 2, "rows": 3, "total_rows": 4}
    counts |= {"stage": 5, "stages": 6, "children_ended": 7, "children": 8}
    at: dict[str, object] = {"fraction": 0.25, "eta_seconds": None, **counts}
    told = describe_progress(Job.read({**JOB, "progress": at, "metrics": {"elbo": -1}}))
    children = "stage 5 of 6, 7 of 8 children ended"
    assert told == f"iteration 1 of 2, {children}, 3 of 4 rows, ELBO -1.000 nats"
    shown = io.StringIO()
    trial = {"stage": 1, "trial": 2, "family": "maf", "epochs": 30, "state": "succeeded"}
    reached = {"seconds": 4.25, "robust_validation_log_likelihood": -1.5}
    running = {"stage": 2, "trial": 3, "family": "nsf", "state": "running"}
    with ProgressBar(Console(file=shown, width=200)) as bar:
        for trials in ([trial | reached], [trial | reached, trial | {"trial": 9}, running]):
            bar(Job.read({**JOB, "metrics": {"trials": trials}}))
    assert shown.getvalue().splitlines() == [
        "stage 1  trial  2  maf          30 epochs     4.2 s    -1.500 nats  succeeded",
        "stage 1  trial  9  maf          30 epochs                           succeeded",
    ]
    for terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, width=200, color_system=None)
        with ProgressBar(console) as bar:
            bar(job)
        assert (words in shown.getvalue()) == terminal
        assert bool(shown.getvalue()) == terminal
    durations = {59.4: "59 s", 200: "3 min 20 s", 7500: "2 h 5 min"}
    assert {seconds: format_duration(seconds) for seconds in durations} == durations


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (
            "densityd.cli",
            ["httpx", "numpy", "pyarrow", "rich", "densityd.client", "sqlalchemy", "torch"],
        ),
        (
            "densityd.client",
            ["app", "workers", "models_store", "flows", "torch", "typer", "pyarrow"],
        ),
    ],
)
def test_what_is_not_needed_is_not_loaded(module: str, parts: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {parts} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout  # noqa: S603 - our own code
    assert printed == b"[]\n"
