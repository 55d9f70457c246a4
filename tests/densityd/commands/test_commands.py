"""The commands that work with a service, against the real one."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import onnx
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no type information
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from densityd.cli import app
from densityd.client import Client
from densityd.client.progress import ProgressBar, describe_progress, format_duration
from densityd.client.records.jobs import Job
from densityd.terminal import options as choices
from tests.densityd.client.test_retries import JOB
from tests.densityd.conftest import Service
from tests.densityd.scripted import Reply, ScriptedServer, a_json
from tests.ports import free_port

ROWS = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))


@pytest.fixture(autouse=True)
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DENSITYD_URL", service.url)
    return service.url


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    np.savetxt(file, ROWS, delimiter=",", header="height,weight,age", comments="")
    return file


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == status, result.output
    return result


def test_a_refusal_speaks_of_the_options_of_the_command(table: Path) -> None:
    told = run("train", table, "--model", "walk", "--set", "optimisation.max_epoch=3", status=1)
    assert "`--set optimisation.max_epoch` is no field; did you mean `max_epochs`?" in told.stderr
    told = run("train", table, "--model", "Walk", status=1)
    assert "`--model`" in told.stderr
    assert "model_name" not in told.stderr
    told = run("train", table, "--model", "walk", "--flow", "maff", status=1)
    assert told.stderr.count("`--flow` must have a 'family' among") == 1
    assert "`flow`" not in told.stderr
    told = run("train", "--dataset", "x", "--model", "walk", status=1)
    assert "dataset_id" not in told.stderr


def test_a_training_is_accepted_and_its_id_printed(table: Path, url: str) -> None:
    options = ["--flow", "maf", "--set", "layers=2", "--set", "hidden=[8]", "--max-seconds", 5]
    more = ["--set", "optimisation.batch_size=10", "--context-column", "age", "--no-wait"]

    printed = run("train", table, "--model", "walk", *options, *more).stdout

    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    assert (job.request["flow"]["layers"], job.request["flow"]["hidden"]) == (2, [8])
    assert job.request["optimisation"]["max_seconds"] == 5
    assert job.request["optimisation"]["batch_size"] == 10
    assert job.request["context_columns"] == ["age"]
    dataset = job.request["dataset_id"]
    columns = ["--column", "age", "--column", "height"]
    again = run("train", "--dataset", dataset, "--model", "walk", *columns, "--no-wait", "--json")
    printed_job = json.loads(again.stdout)
    assert printed_job["request"]["columns"] == ["age", "height"]
    assert "warnings" in printed_job["dataset"]
    assert f"columns: {dataset}\n" in again.stderr


def test_a_sweep_reads_its_ranges(table: Path, url: str) -> None:
    rates = "optimisation.learning_rate=3e-4:1e-2:log"
    ranges = ["--range", "layers=2:4", "--range", "hidden=[[8], [16]]", "--range", rates]
    more = ["--range", "activation=tanh,relu", "--trials", 5, "--seed", 2, "--no-wait"]
    printed = run("sweep", table, "--model", "walk", "--flow", "maf", *ranges, *more).stdout
    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    points = job.request["points"] or []
    assert len(points) == 5
    for point in points:
        assert point["flow.layers"] in (2, 3, 4)
        assert point["flow.hidden"] in ([8], [16])
        assert point["flow.activation"] in ("tanh", "relu")
        assert 3e-4 <= point["optimisation.learning_rate"] <= 1e-2


@pytest.mark.parametrize("text", ["layers=2:many", "layers"])
def test_a_wrong_range_is_told_before_anything_is_sent(text: str) -> None:
    told = run("sweep", "--model", "m", "--dataset", "ds_1", "--range", text, status=2)
    assert "write" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--model", "m"], "either FILE or --dataset"),
        (["--model", "m", "--dataset", "ds_1", "--set", "layers"], "NAME=VALUE"),
        (["--model", "m", "--dataset", "ds_1", "--set", "layers=1"], "--flow maf"),
        (["--model", "m", "--dataset", "ds_1", "--set", "split=1"], "split.FIELD=VALUE"),
        (["--dataset", "ds_1"], "--model"),
        (["nowhere.csv", "--model", "m"], "does not exist"),
    ],
    ids=str,
)
def test_wrong_usage_is_told_before_anything_is_sent(arguments: list[str], hint: str) -> None:
    assert hint in run("train", *arguments, status=2).stderr


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (["--potential", "U2"], {"potential": "U2"}),
        (["--log-density", "-z1^2", "--dim", 1], {"log_density": "-z1^2", "dim": 1}),
    ],
    ids=["potential", "formula"],
)
def test_an_inference_is_accepted(url: str, options: list[str], target: dict[str, object]) -> None:
    more = ["--flow", "planar", "--set", "layers=4", "--set", "optimisation.iterations=100"]

    printed = run("infer", "--model", "ring", *options, *more, "--no-wait").stdout

    with Client(url) as client:
        job = client.jobs.get(printed.strip())
    assert target.items() <= job.request["target"].items()
    assert job.request["flow"]["layers"] == 4
    assert job.request["optimisation"]["iterations"] == 100
    assert job.kind == "variational"


def test_an_inference_of_a_regression_uploads_its_table(table: Path) -> None:
    options = ["--regression", "linear", "--response", "age", "--max-seconds", 5, "--no-wait"]

    told = run("infer", table, "--model", "line", *options, "--json").stdout

    request = json.loads(told)["request"]
    assert request["target"]["posterior"]["columns"] == ["height", "weight"]
    assert request["optimisation"]["max_seconds"] == 5


def test_an_inference_of_latent_variables_uploads_its_table(table: Path, tmp_path: Path) -> None:
    learnt = ["--latent", "gaussian", "--dim", 2, "--hidden", 8, "--hidden", 4, "--column", "age"]
    learnt += ["--column", "height", "--max-seconds", 5, "--no-wait", "--json"]
    refused = run("infer", table, "--model", "factors", *learnt, status=1).stderr
    assert "The option is --held-out." in refused

    told = run("infer", table, "--model", "factors", *learnt, "--held-out", 0.2).stdout

    latent = json.loads(told)["request"]["target"]["latent"]
    assert latent["columns"] == ["age", "height"]
    assert (latent["dim"], latent["hidden"]) == (2, [8, 4])

    weights = tmp_path / "weights.csv"
    weights.write_text("1,0\n0.5,0.5\n0,1\n")
    known = ["--latent", "gaussian", "--loadings", weights, "--noise-scale", 2]
    dataset = latent["dataset_id"]
    more = ["--held-out", 0, "--no-wait", "--json"]
    told = run("infer", "--dataset", dataset, "--model", "known", *known, *more).stdout
    latent = json.loads(told)["request"]["target"]["latent"]
    assert latent["loadings"] == [[1, 0], [0.5, 0.5], [0, 1]]
    assert latent["noise_scale"] == 2
    weights.write_text("z1,z2\n1,0\n")
    wrong = run("infer", "--dataset", dataset, "--model", "known", *known, status=2)
    assert "numbers alone" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "one of --potential"),
        (["--potential", "U1", "--log-density", "z1"], "one of --potential"),
        (["--log-density", "z1"], "--dim belong together"),
        (["--regression", "linear", "--dataset", "ds_1"], "--response belong together"),
        (["--regression", "linear", "--response", "y"], "FILE or --dataset belong together"),
        (["--potential", "U1", "--dataset", "ds_1"], "FILE or --dataset belong together"),
        (["--latent", "gaussian", "--dim", 1], "FILE or --dataset belong together"),
        (["--latent", "gaussian", "--dataset", "ds_1"], "--dim belong together"),
        (["--potential", "U1", "--hidden", 8], "are of --latent"),
    ],
    ids=str,
)
def test_wrong_usage_of_inference_is_told_before_anything_is_sent(
    arguments: list[str], hint: str
) -> None:
    told = " ".join(run("infer", "--model", "m", *arguments, status=2).stderr.split())
    assert hint in told


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


def test_a_refusal_names_the_field_and_where_to_read_more(table: Path, url: str) -> None:
    options = ["--model", "m", "--flow", "maf", "--set", "layers=0", "--no-wait"]

    told = run("train", table, *options, status=1)

    assert told.stdout == ""
    assert "\ndensityd: " in told.stderr
    assert "`--flow`: layers must be a whole number of at least 1" in told.stderr
    assert f"(status 422): {url}/problems/validation\n" in told.stderr
    assert "log has this request under" in told.stderr


def test_a_service_that_is_not_there_has_a_status_of_its_own() -> None:
    port = free_port()

    told = run("jobs", "list", "--url", f"http://127.0.0.1:{port}", status=3)

    assert f"http://127.0.0.1:{port}: cannot connect" in told.stderr
    assert "`densityd up`" in told.stderr
    assert "not a URL" in run("jobs", "list", "--url", "nonsense", status=2).stderr


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


@pytest.mark.long
def test_datasets_from_upload_to_deletion(table: Path) -> None:
    dataset_id = run("datasets", "upload", table, "--name", "mine").stdout.strip()

    assert dataset_id in run("datasets", "list").stdout
    shown = run("datasets", "show", dataset_id).stdout
    assert "few_rows" in shown
    assert "height" in shown
    assert json.loads(run("datasets", "show", dataset_id, "--json").stdout)["name"] == "mine"
    assert json.loads(run("datasets", "list", "--limit", 1, "--json").stdout)[0]["rows"] == 50
    assert run("datasets", "delete", dataset_id).stdout == ""
    assert "not-found" in run("datasets", "show", dataset_id, status=1).stderr
    table.write_text("a,b\n1,x\n2,3\n")
    typed = run("datasets", "upload", table, "--exclude", "a")
    assert "  ignored: a" in typed.stderr
    changed = run("datasets", "set-type", typed.stdout.strip(), "b=ignored", "a=integer").stdout
    assert [line.split()[:2] for line in changed.splitlines()[1:]] == [
        ["a", "integer"],
        ["b", "ignored"],
    ]
    refused = run("datasets", "upload", table, "--types", "b=number", status=1).stderr
    assert "'b'" in refused
    table.write_text("1;2\n3;\n2;1\n")
    told = ["--no-header", "--delimiter", ";", "--missing", "drop", "--constant", "keep", "--json"]
    assert json.loads(run("datasets", "upload", table, *told).stdout)["rows"] == 2


@pytest.mark.long
def test_jobs_from_list_to_events(table: Path) -> None:
    job_id = run("train", table, "--model", "listed", "--no-wait").stdout.strip()

    assert job_id in run("jobs", "list", "--model", "listed", "--state", "queued").stdout
    assert "batch_size" in run("jobs", "show", job_id).stdout
    waited = run("jobs", "wait", job_id, "--timeout", 0, status=1)
    assert "it continues" in waited.stderr
    assert run("jobs", "cancel", job_id).stdout == f"{job_id} cancelled\n"
    assert run("jobs", "wait", job_id, status=1).stderr == f"densityd: {job_id} cancelled\n"
    for follow in ("--follow", "--no-follow"):
        lines = run("jobs", "events", job_id, follow).stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["1", "state"],
            ["2", "state"],
            ["3", "end"],
        ]
    last = run("jobs", "events", job_id, "--after", 2, "--json").stdout
    assert json.loads(last)["data"] == {"state": "cancelled"}
    assert run("jobs", "resume", job_id).stdout == f"{job_id} queued\n"
    assert json.loads(run("jobs", "cancel", job_id, "--json").stdout)["state"] == "cancelled"
    assert json.loads(run("jobs", "show", job_id, "--json").stdout)["id"] == job_id
    assert job_id in [job["id"] for job in json.loads(run("jobs", "list", "--json").stdout)]


@pytest.mark.long
def test_a_picture_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("models", "plot", "people", "marginals").stdout == "people-1-marginals.png\n"
    assert (tmp_path / "people-1-marginals.png").read_bytes().startswith(b"\x89PNG")
    run("models", "plot", "people:1", "marginals", "-o", tmp_path / "n.SVG")
    assert (tmp_path / "n.SVG").read_bytes().startswith(b"<?xml")
    assert (
        ".png or .svg"
        in run("models", "plot", "people", "marginals", "-o", "n.gif", status=2).stderr
    )
    assert "learning-curve" in run("models", "plot", "people", "nonsense", status=2).stderr
    refused = run("models", "plot", "people", "density", "-o", "d.png", status=1)
    assert "plot-unavailable" in refused.stderr
    assert not (tmp_path / "d.png").exists()


def test_a_job_is_shown_with_the_time_left_and_then_with_its_file(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    progress = {"rows": 5, "total_rows": 20, "fraction": 0.25, "eta_seconds": 95.0}
    result = {"url": "/x", "media_type": "text/csv", "bytes": 99, "sha256": "a", "rows": 20}
    running = {**JOB, "kind": "scoring", "state": "running", "progress": progress}
    scripted.replies = [
        a_json(running),
        a_json({**running, "state": "succeeded", "result": result}),
    ]

    assert "left      about 1 min 35 s" in run("jobs", "show", "job_1").stdout
    shown = run("jobs", "show", "job_1").stdout

    assert "left" not in shown
    assert "20 rows, 99 bytes: densityd jobs download job_1" in shown


@pytest.mark.long
def test_models_from_list_to_export_and_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "people" in run("models", "list").stdout
    assert run("models", "alias", "people", "best", 1).stdout == "people:1\n"
    assert run("models", "alias", "people", "best").stdout == "people:1\n"
    run("models", "alias", "people", "best", 1, "--reason", "it is quiet")
    assert "it is quiet" in run("models", "history", "people").stdout
    assert "best -> 1" in run("models", "list").stdout
    assert "maf" in run("models", "show", "people").stdout
    assert "sha256" in run("models", "show", "people@best").stdout
    shown = json.loads(run("models", "show", "heights:1", "--json").stdout)
    assert shown["context_columns"] == ["age"]
    [version] = json.loads(run("models", "show", "people", "--json").stdout)["versions"]
    assert version["version"] == 1
    monkeypatch.chdir(tmp_path)
    assert run("models", "export", "people@best").stdout == "people-1.safetensors\n"
    assert run("models", "export", "people@best", "--format", "onnx").stdout == "people-1.onnx\n"
    onnx.checker.check_model("people-1.onnx")
    # The file has a record of the version beside its weights.
    assert (tmp_path / "people-1.safetensors").stat().st_size > version["checkpoint"]["bytes"]
    file = tmp_path / "people-1.safetensors"
    assert run("models", "import", file, "--model", "copied").stdout == "copied:1\n"
    again = json.loads(run("models", "import", file, "--model", "copied", "--json").stdout)
    assert (again["version"], again["parameters"]) == (2, version["parameters"])
    assert again["checkpoint"]["bytes"] == file.stat().st_size
    file.write_bytes(b"PK\x03\x04 and more")
    assert "media-type" in run("models", "import", file, "--model", "copied", status=1).stderr
    assert run("models", "alias", "people", "best", "--delete").stdout == ""
    assert "not-found" in run("models", "alias", "people", "best", status=1).stderr
    assert "either" in run("models", "alias", "people", "best", 1, "--delete", status=2).stderr
    assert "a number" in run("models", "show", "people:newest", status=1).stderr


def test_interrupting_a_wait_says_that_the_job_goes_on(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json({**JOB, "state": "running"})]
    # Whoever runs the tests may have had signals ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from densityd.cli import main; main()"
    )
    process = subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", program, "jobs", "wait", "job_1", "--url", scripted.url],
        stderr=subprocess.PIPE,
    )
    while not scripted.asked:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)

    _, told = process.communicate(timeout=120)

    assert process.returncode == 130
    assert told.decode().splitlines() == [
        "densityd: job_1 continues.",
        "  `densityd jobs wait job_1` waits again; `densityd jobs cancel job_1` stops it.",
    ]


def test_a_model_is_told_with_its_likelihood(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    metrics = {"test_log_likelihood": -16.5234, "test_standard_error": 0.095}
    scripted.replies = [a_json({**JOB, "metrics": metrics})]

    told = run("jobs", "wait", "job_1").stdout

    assert told == "m:1  test log-likelihood -16.523 +- 0.190 nats per row\n"


CLAIMS = {
    "id": "ds_1",
    "name": "claims",
    "rows": 6,
    "column_count": 3,
    "bytes": 96,
    "sha256": "a",
    "created_at": "2026-01-01T00:00:00Z",
    "columns": [
        {"name": "zip", "type": "category", "reason": "text", "levels": ["01", "02"]},
        {"name": "amount", "type": "number", "reason": "numbers", "mean": 1.5},
        {"name": "id", "type": "ignored", "reason": "consecutive numbers"},
    ],
    "warnings": [{"code": "missing", "column": None, "detail": "2 rows were dropped."}],
}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_training_says_off_a_terminal_what_it_did(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, table: Path, as_json: bool
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    job = {**JOB, "metrics": {"test_log_likelihood": -16.5, "test_standard_error": 0.1}}
    none = a_json({"items": [], "next_cursor": None})  # of datasets of the same table
    scripted.replies = [none, a_json(CLAIMS, 201), a_json(job, 202), a_json(job)]
    options = ["--types", "zip=category", "--exclude", "id", "--na-values", "-999", "--any-gaps"]

    done = run("train", table, "--model", "m", *options, *(["--json"] if as_json else []))

    line = "m:1  test log-likelihood -16.500 +- 0.200 nats per row"
    assert done.stderr.splitlines() == [
        "uploaded 6 rows x 3 columns: ds_1",
        "  category: zip",
        "  number: amount",
        "  ignored: id (consecutive numbers)",
        "  warning missing: 2 rows were dropped.",
        "accepted job_1",
        line,
    ]
    query = parse_qs(urlsplit(scripted.asked[1].line.split()[1]).query)
    assert json.loads(query["types"][0]) == {"zip": "category"}
    assert json.loads(query["exclude"][0]) == ["id"]
    assert json.loads(query["na_values"][0]) == ["-999"]
    assert json.loads(scripted.asked[2].body)["missing"] == "any"
    if not as_json:
        assert done.stdout == f"{line}\n"
        return
    printed = json.loads(done.stdout)
    assert printed["metrics"] == job["metrics"]
    assert printed["dataset"]["warnings"] == CLAIMS["warnings"]
    assert [one["type"] for one in printed["dataset"]["columns"]] == [
        *["category", "number", "ignored"]
    ]


def test_types_are_corrected_and_shown(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    scripted.replies = [a_json(CLAIMS)]

    shown = run("datasets", "set-type", "ds_1", "zip=category", "a=b=ignored").stdout.splitlines()

    assert scripted.asked[0].line == "PATCH /v1/datasets/ds_1"
    assert json.loads(scripted.asked[0].body) == {"types": {"zip": "category", "a=b": "ignored"}}
    assert shown[1].split()[:2] == ["zip", "category"]
    assert shown[3].endswith("consecutive numbers")
    assert "TYPE one of" in run("datasets", "set-type", "ds_1", "zip=text", status=2).stderr


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


def test_what_the_service_says_cannot_steer_the_terminal(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    error = {"code": "x", "detail": "\x1b[2Jgone\nand more"}
    scripted.replies = [a_json({**JOB, "state": "failed", "error": error})]

    assert "\x1b" not in run("jobs", "show", "job_1").stdout
    assert run("jobs", "wait", "job_1", status=1).stderr.count("\n") == 1


def test_the_bar_shows_epoch_likelihood_and_time_left_at_a_terminal_alone() -> None:
    progress = {"epoch": 12, "max_epochs": 99, "fraction": 0.25, "eta_seconds": 95.0}
    metrics = {
        "epoch": 12,
        "validation_log_likelihood": -44.0,
        "robust_validation_log_likelihood": 2.9,
    }
    job = Job.read({**JOB, "state": "running", "progress": progress, "metrics": metrics})
    words = "epoch 12, validation log-likelihood 2.900 nats, about 1 min 35 s left"
    assert describe_progress(job) == words
    for terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, width=200, color_system=None)
        with ProgressBar(console) as bar:
            bar(job)
        assert (words in shown.getvalue()) == terminal
        assert bool(shown.getvalue()) == terminal


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_settings_become_the_parts_of_a_request() -> None:
    texts = ["batch_norm.statistics=running", "flow.layers=3", "activation=tanh", "split.seed=4"]

    assert choices.build_request(texts, family="maf") == {
        "flow": {
            "family": "maf",
            "layers": 3,
            "activation": "tanh",
            "batch_norm": {"statistics": "running"},
        },
        "split": {"seed": 4},
    }
    with pytest.raises(typer.BadParameter):
        choices.build_request(["layers=1", "layers.more=2"], family="maf")


def test_the_command_line_loads_the_client_only_for_a_command() -> None:
    heavy = ["httpx", "numpy", "pyarrow", "rich", "densityd.client", "sqlalchemy"]
    code = f"import sys, densityd.cli; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout  # noqa: S603 - our own code
    assert printed == b"[]\n"


def test_the_client_needs_nothing_of_the_service() -> None:
    parts = ["app", "workers", "models_store", "flows", "torch", "typer", "pyarrow"]
    code = f"import sys, densityd.client; print([m for m in {parts} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout  # noqa: S603 - our own code
    assert printed == b"[]\n"
