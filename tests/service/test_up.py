"""The whole service as a person runs it: ``densityd up``, HTTP, and the blocks of the README."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from densityd.cli import app
from tests.service.conftest import CRASHED
from tests.service.up import EXAMPLES, TIMEOUT_S, Up, children_of, command, command_of, succeeds
from tests.support.collectors import Collector
from tests.support.servers import free_port
from tests.support.waiting import is_alive, wait_until

CONSUMER = 5
_BLOCK = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_URL = "http://127.0.0.1:8000"
_NEAR_NATS = 1.5  # processors add up in different orders, and a training amplifies it
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Up]]:
    started: list[Up] = []
    port = free_port()

    def begin() -> Up:
        started.append(Up(tmp_path / "data", port))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that services of the test send their traces to."""
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.close()


def refused(data_dir: Path, port: int, *, host: str = "127.0.0.1") -> str:
    """What a start that fails prints."""
    run = subprocess.run(  # noqa: S603 - our own command
        [*command(data_dir, port), "--host", host],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 1
    assert run.stdout in (
        "",
        "Waiting for the API. It does not respond yet.\n",
    )  # on a busy machine
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def test_the_welcome_names_the_page_and_the_demo_and_a_second_start_is_refused(up, tmp_path):
    assert f"Open in the browser    {up.url}\n" in up.text()
    assert f"Or in a terminal       densityd demo --url {up.url}\n" in up.text()
    assert httpx.get(f"{up.url}/docs", timeout=60).status_code == 200
    assert not list(up.data_dir.rglob(CRASHED)), "no other process writes there"

    assert "already running" in refused(up.data_dir, free_port())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen" in refused(tmp_path / "other", taken.getsockname()[1])


def test_the_blocks_of_the_readme_run_as_printed(up, tmp_path):
    blocks = _BLOCK.findall((EXAMPLES.parent / "README.md").read_text())
    assert "make up" in blocks[0][1]  # the service, which runs already
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    printed = ""
    compared = 0
    for kind, block in blocks[1:]:
        if kind == "text":
            near = pytest.approx(_numbers(block), abs=_NEAR_NATS, rel=0.1)
            assert _numbers(printed)[:5] == near, printed
            compared += 1
            continue
        program = [sys.executable, "-"] if kind == "python" else ["/bin/bash", "-eu"]
        done = subprocess.run(  # noqa: S603 - what we print
            program,
            input=block.replace(_URL, up.url),
            env={**os.environ, "DENSITYD_URL": up.url, "PATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        assert '"status":4' not in done.stdout.replace(" ", ""), done.stdout
        printed = done.stdout.partition("log_prob\n")[2] or done.stdout
    assert compared == 1


def _numbers(text: str) -> list[float]:
    return [float(line) for line in text.split() if re.fullmatch(r"-?\d+\.\d+", line)]


@pytest.mark.slow  # the web page goes the same way
def test_a_table_becomes_scores_and_samples_at_a_terminal(up, tmp_path):
    """From a table to a model, to scores and samples, as a person at a terminal does it."""
    rows = np.random.default_rng(0).normal(size=(400, 2)) * [1, 3]
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="a,b", comments="")
    small = ["--flow", "realnvp", "--set", "layers=2", "--set", "hidden=[8]"]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--url", up.url])
        assert result.exit_code == 0, result.output
        return result.stdout

    table, scores = str(tmp_path / "t.csv"), tmp_path / "scores.npy"
    told = run("train", table, "--model", "line", *small, "--set", "optimisation.max_epochs=2")
    assert re.fullmatch(r"line:1  test log-likelihood -\d+\.\d+ \+- \d+\.\d+ nats per row\n", told)
    run("score", "line", table, "-o", str(scores))
    assert np.isfinite(np.load(scores)).sum() == len(rows)
    assert run("sample", "line", "-n", "3", "--seed", "1").splitlines()[0] == "a,b"


@pytest.mark.slow
def test_the_welcome_says_that_the_service_wants_a_key(start, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(f"key_{32 * 'a'}.{64 * 'b'}")
    monkeypatch.setenv("DENSITYD_FIRST_KEY_FILE", str(tmp_path / "key"))
    up = start()
    up.wait_ready()
    assert "commands read it from DENSITYD_API_KEY" in up.text()


@pytest.mark.slow  # two whole services
def test_ctrl_c_ends_every_process_and_the_next_start_goes_on(start, collector):
    first = start()
    first.wait_ready()
    job_id = first.submit_endless()
    wait_until(lambda: first.epoch(job_id) >= 2)
    processes = children_of(first.process.pid)
    for part in ("redis.sock", "-m app", "-m workers", "workers.trainer"):
        assert first.children(part), [command_of(pid) for pid in processes]

    first.end()
    assert not [pid for pid in processes if is_alive(pid)]
    second = start()
    second.wait_ready()
    before = second.epoch(job_id)
    assert before >= 2
    wait_until(lambda: second.epoch(job_id) > before)
    assert second.job(job_id)["attempt"] == 2
    cancelled = httpx.post(f"{second.url}/v1/jobs/{job_id}/cancel", timeout=60)
    assert cancelled.is_success
    wait_until(lambda: second.job(job_id)["state"] == "cancelled")
    second.end()
    check_the_trace(collector)


def check_the_trace(collector: Collector) -> None:
    """The request for a job, its attempts and the work of their trainers are one trace."""
    [asked] = collector.named("POST /v1/jobs/training")
    attempts = collector.named("training attempt")
    assert [span.attributes["densityd.attempt"] for span in attempts] == [1, 2]
    for attempt in attempts:
        assert (attempt.service, attempt.kind) == ("densityd-worker", CONSUMER)
        assert (attempt.trace_id, attempt.parent_id) == (asked.trace_id, asked.span_id)
        inside = [span for span in collector.spans if span.parent_id == attempt.span_id]
        assert {"claim", "start", "epochs", "checkpoint", "end"} == {span.name for span in inside}
        assert all(span.seconds <= attempt.seconds for span in inside)


@pytest.mark.slow
def test_an_address_that_strangers_reach_is_refused_in_one_line(tmp_path):
    refusal = refused(tmp_path / "data", free_port(), host="0.0.0.0")  # noqa: S104 - it is refused

    assert "DENSITYD_ALLOW_ANONYMOUS" in refusal


@pytest.mark.slow
def test_killed_parts_come_back_and_kill_9_of_the_whole_leaves_nothing(start):
    up = start()
    up.wait_ready()
    for part in ("redis.sock", "-m workers", "-m app"):
        [pid] = up.children(part)
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: up.text().count("starts again") == 3)
    wait_until(lambda: succeeds(f"{up.url}/readyz"))
    job_id = up.submit_endless()
    wait_until(lambda: up.epoch(job_id) >= 1)
    processes = children_of(up.process.pid)

    up.process.kill()
    up.process.wait()

    wait_until(lambda: not [pid for pid in processes if is_alive(pid)])


@pytest.mark.slow
def test_the_example_of_variational_inference_finds_what_is_known_in_closed_form(up):
    run = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, str(EXAMPLES / "variational.py"), up.url, "800"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stderr + run.stdout
    evidences = [float(found) for found in re.findall(r"log evidence (-?[\d.]+) \+-", run.stdout)]
    exact = [float(found) for found in re.findall(r"closed form (-?[\d.]+)", run.stdout)]
    assert evidences[1:] == pytest.approx(exact, abs=0.3)
    assert run.stdout.count("KL(q || p)") == 2
    for mean, truth in re.findall(r": (-?[\d.]+) \+- [\d.]+, in truth (-?[\d.]+)", run.stdout):
        assert abs(float(mean) - float(truth)) < 0.15
    up.end()
