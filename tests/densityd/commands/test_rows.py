"""Commands that score rows and draw samples."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no type information
import pytest
from typer.testing import CliRunner

from densityd.cli import app
from densityd.client import Client
from tests.densityd.bodies import JOB
from tests.densityd.commands.people import ROWS
from tests.densityd.commands.running import run
from tests.densityd.scripted import Reply, ScriptedServer, a_json


def test_quantiles_are_printed_beside_the_scores(table: Path, url: str) -> None:
    printed = run("score", "ranked", table, "--quantiles").stdout.splitlines()
    assert printed[0] == "log_prob,quantile"
    with Client(url) as client:
        expected = client.score("ranked", ROWS)
    values = np.loadtxt(printed[1:], delimiter=",")
    assert np.allclose(values, np.column_stack(expected))
    assert "score-unavailable" in run("score", "people", table, "--quantiles", status=1).stderr


RESULT = {"url": "/r", "media_type": "application/x-npy", "bytes": 5, "sha256": "x", "rows": 3}


BULK = {**JOB, "kind": "sampling", "state": "succeeded", "result": RESULT}


@pytest.mark.parametrize(
    ("command", "request_body"),
    [
        (
            ["score", "m", "--dataset", "ds_1", "--include-rows"],
            {"model": "m", "dataset_id": "ds_1", "output": "npy", "include_rows": True},
        ),
        (
            ["sample", "m", "-n", 2_000_000, "--seed", 3],
            {"model": "m", "n": 2_000_000, "seed": 3, "context": None, "output": "npy"},
        ),
    ],
    ids=["score", "sample"],
)
def test_much_is_done_by_a_job_whose_file_is_downloaded(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: list[object],
    request_body: dict[str, object],
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    running = {**BULK, "state": "running", "result": None}
    scripted.replies = [a_json(running), a_json(running), a_json(BULK), Reply(body=b"bytes")]

    run(*command, "-o", tmp_path / "file.npy")

    assert (tmp_path / "file.npy").read_bytes() == b"bytes"
    assert json.loads(scripted.asked[0].body) == request_body
    assert scripted.asked[-1].line == "GET /v1/jobs/job_1/result"


def test_a_result_is_downloaded_and_deleted(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    monkeypatch.chdir(tmp_path)
    done = {**BULK, "request": {"output": "csv"}}
    scripted.replies = [a_json(done), Reply(body=b"bytes"), Reply(status=204)]

    assert run("jobs", "download", "job_1", "--delete").stdout == "job_1.csv\n"

    assert (tmp_path / "job_1.csv").read_bytes() == b"bytes"
    assert [one.line for one in scripted.asked[1:]] == [
        "GET /v1/jobs/job_1/result",
        "DELETE /v1/jobs/job_1/result",
    ]
    scripted.replies = [a_json(done)]
    assert run("jobs", "wait", "job_1").stdout == "job_1  3 rows, 5 bytes\n"


@pytest.mark.long
def test_scores_are_printed_or_written_in_the_format_that_the_name_tells(
    table: Path, tmp_path: Path, url: str
) -> None:
    with Client(url) as client:
        expected = client.log_prob("people", ROWS)

    printed = run("score", "people", table).stdout_bytes
    assert np.allclose(np.loadtxt(io.BytesIO(printed), skiprows=1), expected)
    run("score", "people", table, "-o", tmp_path / "scores.npy")
    assert np.allclose(np.load(tmp_path / "scores.npy"), expected)
    run("score", "people:1", table, "-o", tmp_path / "scores.parquet")
    assert np.allclose(pq.read_table(tmp_path / "scores.parquet")["log_prob"], expected)

    piped = CliRunner().invoke(app, ["score", "people", "-"], input=table.read_bytes())
    assert (piped.exit_code, piped.stdout_bytes) == (0, printed)

    assert "must end in one of" in run("score", "people", table, "-o", "x.txt", status=2).stderr
    missing = run("score", "people", table, "-o", tmp_path / "no" / "x.csv", status=1).stderr
    assert missing == f"densityd: {tmp_path / 'no' / 'x.csv'}: No such file or directory\n"
    unknown = run("score", "nobody", table, "-o", tmp_path / "none.csv", status=1)
    assert "not-found" in unknown.stderr
    assert not (tmp_path / "none.csv").exists()


def test_samples_are_printed_or_written(tmp_path: Path) -> None:
    lines = run("sample", "people", "-n", 3, "--seed", 1).stdout.splitlines()
    assert lines[0] == "height,weight,age"
    assert len(lines) == 4
    assert run("sample", "people", "-n", 3, "--seed", 1).stdout.splitlines() == lines
    run("sample", "heights", "--context", "age=40", "-n", 5, "-o", tmp_path / "rows.npy")
    assert np.load(tmp_path / "rows.npy").shape == (5, 2)

    assert "context-mismatch" in run("sample", "heights", "--context", "age=x", status=1).stderr
    assert "NAME=VALUE" in run("sample", "heights", "--context", "age", status=2).stderr
    told = run("sample", "heights", "--context", "size=4", status=1).stderr
    assert "context-mismatch" in told


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--parts"], "log_prob?space=data&parts=true"),
        (["--conditionals"], "log_prob?space=data&conditionals=true"),
        (["--explain", "--extra", "ignore"], "score?extra=ignore&explain=true"),
        (["--quantiles"], "score"),
        (["--evidence", "--samples", "7"], "evidence?samples=7&seed=0"),
    ],
    ids=str,
)
def test_other_columns_than_the_density_are_asked_for(
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    table: Path,
    options: list[str],
    line: str,
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    scripted.replies = [Reply(body=b"bytes")]

    assert run("score", "m", table, *options).stdout == "bytes"

    assert scripted.asked[0].line == f"POST /v1/models/m/{line}"


def test_the_evidence_of_rows_stands_alone(table: Path) -> None:
    assert (
        "--evidence of a FILE goes without other columns"
        in run("score", "m", table, "--evidence", "--quantiles", status=2).stderr
    )


def test_missing_and_unknown_columns_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("height,mass,age\n1,2,3\n")

    told = run("score", "people", file, status=1).stderr.splitlines()

    assert "  missing: weight" in told
    assert "  unknown: mass" in told
