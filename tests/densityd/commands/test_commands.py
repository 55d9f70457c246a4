"""The commands that work with a service, against the real one."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from densityd.client.progress import ProgressBar, describe_progress, format_duration
from densityd.client.records.jobs import Job
from tests.densityd.bodies import CLAIMS, JOB
from tests.densityd.commands.running import run
from tests.densityd.scripted import ScriptedServer, a_json
from tests.ports import free_port


def test_a_refusal_speaks_of_the_options_of_the_command(table: Path) -> None:
    told = run("train", table, "--model", "walk", "--set", "optimisation.max_epoch=3", status=1)
    assert "`--set optimisation.max_epoch` is no field; did you mean `max_epochs`?" in told.stderr
    told = run("train", table, "--model", "Walk", status=1)
    assert "`--model`" in told.stderr
    assert "model_name" not in told.stderr
    told = run("train", table, "--model", "walk", "--flow", "maff", status=1)
    assert told.stderr.count("`--flow` must have a 'family' among") == 1
    assert "`flow`" not in told.stderr
    told = run("train", "--dataset", "ds_1", "--model", "walk", status=1)
    assert "dataset_id" not in told.stderr
    for command in (("train", "--model", "walk", "--dataset"), ("datasets", "show")):
        assert "`densityd datasets list` prints the ids" in run(*command, "walk", status=2).stderr


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
    assert job_id in run("jobs", "list", "--kind", "training").stdout
    assert job_id not in run("jobs", "list", "--kind", "scoring").stdout
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


def test_what_the_service_says_cannot_steer_the_terminal(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    error = {"code": "x", "detail": "\x1b[2Jgone\nand more"}
    scripted.replies = [a_json({**JOB, "state": "failed", "error": error})]

    assert "\x1b" not in run("jobs", "show", "job_1").stdout
    assert run("jobs", "wait", "job_1", status=1).stderr.count("\n") == 1


def test_events_of_a_job_end_with_the_reason_of_its_failure(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    data = ("state", {"state": "running", "attempt": 1}), ("end", {"state": "failed"})
    events = [
        {"id": number, "event": name, "data": told, "created_at": JOB["created_at"]}
        for number, (name, told) in enumerate(data, start=1)
    ]
    page = {"items": events, "next_after": 2, "ended": True}
    error = {"code": "oom", "detail": "The data do not fit."}
    scripted.replies = [a_json(page), a_json({**JOB, "state": "failed", "error": error})]

    lines = run("jobs", "events", "job_1", "--no-follow").stdout.splitlines()

    assert lines[1].split() == ["2", "end", "state=failed"]
    assert lines[2].split(maxsplit=1) == ["error", "oom: The data do not fit."]
    scripted.replies = [a_json(page)]
    assert len(run("jobs", "events", "job_1", "--no-follow", "--json").stdout.splitlines()) == 2


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
