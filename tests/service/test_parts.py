"""Parts of `densityd up`: its children, data directory, ports, private Redis, and the signals that end it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import redis

from app.engine import kernels
from app.settings import ApiSettings
from densityd.errors import StartError
from densityd.service import private_redis
from densityd.service.children import Child, Signals, end_all
from densityd.service.data_dir import lock_data_dir
from densityd.service.ports import build_url, free_port, wants_key, why_unready
from densityd.service.up import Service
from tests.support.waiting import Clock, is_alive, wait_until


def python(code: str, tmp_path: Path, *, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-u", "-c", code], log_path=tmp_path / f"{name}.log")


def pid_in(child: Child) -> int:
    wait_until(lambda: child.read_last_message() != "")
    return int(child.read_last_message().split()[-1])


SLEEPS = "import os, time; print(os.getpid()); time.sleep(100)"
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(os.getpid()); time.sleep(100)"
)


def test_a_child_that_is_killed_is_noticed_and_planned_again_with_growing_pauses(
    tmp_path, monkeypatch
):
    child = python(SLEEPS, tmp_path)
    for pause_s in (0.5, 1.0, 2.0):
        child.start()
        wait_until(lambda: child.running)
        child.send(signal.SIGKILL)
        wait_until(lambda: not child.running)
        before = time.monotonic()
        how = child.check_end()
        after = time.monotonic()
        assert how is not None
        assert "signal 9" in how
        assert child.restart_at is not None
        assert before + pause_s <= child.restart_at <= after + pause_s
    assert child.failures == 3
    assert child.check_end() is None, "the same end was noticed twice"
    clock = Clock()
    monkeypatch.setattr("densityd.service.children.time", clock)
    child.start()
    clock.now += 31  # what ran for so long was well
    child.send(signal.SIGKILL)
    wait_until(lambda: not child.running)
    assert "starts again in 0.5 s" in str(child.check_end())


def test_children_end_in_order_and_the_stubborn_are_killed(tmp_path):
    first = python(STUBBORN, tmp_path, name="first")
    last = python(SLEEPS, tmp_path, name="last")
    for child in (first, last):
        child.start()
        pid_in(child)
    seen_last: list[bool] = []

    def pause(seconds: float) -> None:
        seen_last.append(last.running)
        time.sleep(seconds)

    began = time.monotonic()
    end_all([[first], [last]], grace_s=[0.5, 5.0], pause=pause, hurry=lambda: False)

    assert not first.running
    assert not last.running
    assert seen_last[0], "the last group was ended before the first was gone"
    assert time.monotonic() - began < 60


def test_whoever_is_in_a_hurry_does_not_wait_for_the_grace(tmp_path):
    child = python(STUBBORN, tmp_path)
    child.start()
    pid_in(child)

    began = time.monotonic()
    end_all([[child]], grace_s=[60.0], pause=time.sleep, hurry=lambda: True)

    assert not child.running
    assert time.monotonic() - began < 60


def test_an_api_that_drains_has_the_time_for_it(tmp_path, monkeypatch):
    grace: list[float] = []

    def end_soon(order, *, grace_s, **how):
        grace.extend(grace_s)
        end_all(order, grace_s=[5.0, 5.0], **how)

    monkeypatch.setattr("densityd.service.up.end_all", end_soon)
    (tmp_path / "logs").mkdir()
    settings = ApiSettings(data_dir=tmp_path, drain_delay_s=20, drain_s=10)
    with Signals() as signals:
        signals.asked_to_end = 1  # before anything is there
        Service(settings, say=lambda _: None).run(signals)
    assert grace[0] > 30


def test_kill_9_of_the_parent_leaves_no_child(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from densityd.service.children import Child
child = Child("c", [sys.executable, "-u", "-c", {SLEEPS!r}], log_path=Path(sys.argv[1]))
child.start()
time.sleep(100)
"""
    log = tmp_path / "child.log"
    parent = subprocess.Popen([sys.executable, "-c", code, str(log)])  # noqa: S603 - our own code
    wait_until(lambda: log.exists() and log.read_text().strip() != "")
    child_pid = int(log.read_text())
    os.kill(child_pid, 0)

    parent.kill()
    parent.wait()

    wait_until(lambda: not is_alive(child_pid))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"level": "ERROR", "message": "no database"}', "no database"),
        (
            '{"message": "it failed", "exception": "Traceback\\n  x\\nOSError: why"}',
            "it failed: OSError: why",
        ),
        ("[1]", "[1]"),
    ],
)
def test_the_last_words_of_a_child_are_for_people(tmp_path, line, words):
    child = python("", tmp_path)
    assert child.read_last_message() == ""
    (tmp_path / "child.log").write_text(f"before\n{line}\n")

    assert child.read_last_message() == words


def test_a_long_log_is_put_aside_at_the_next_start(tmp_path):
    log = tmp_path / "child.log"
    with log.open("wb") as file:
        file.truncate(17 * 2**20)
    child = python(SLEEPS, tmp_path)
    child.start()
    try:
        pid_in(child)
        assert log.stat().st_size < 100
        assert (tmp_path / "child.log.1").stat().st_size == 17 * 2**20
    finally:
        end_all([[child]], grace_s=[5.0], pause=time.sleep, hurry=lambda: False)


def test_a_child_that_cannot_be_started_is_planned_again(tmp_path):
    folder = tmp_path / "logs"
    child = python(SLEEPS, folder)
    for failures in (1, 2):
        told = child.start()
        assert told is not None
        assert "cannot be started: No such file or directory; it starts again in" in told
        assert (child.failures, child.running) == (failures, False)
        assert child.restart_at is not None
    folder.mkdir()
    try:
        assert child.start() is None
        assert child.restart_at is None
        pid_in(child)
    finally:
        end_all([[child]], grace_s=[5.0], pause=time.sleep, hurry=lambda: False)


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    folder = tmp_path / "a" / "b"

    with lock_data_dir(folder, address="http://127.0.0.1:1"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_service_is_refused_and_told_who_is_first(tmp_path):
    with (
        lock_data_dir(tmp_path, address="http://127.0.0.1:1234"),
        pytest.raises(StartError, match="1234") as refusal,
        lock_data_dir(tmp_path, address="http://127.0.0.1:5"),
    ):
        pass
    assert "\n" not in str(refusal.value)
    with lock_data_dir(tmp_path, address="http://127.0.0.1:5"):
        pass


def test_a_killed_service_leaves_the_folder_free(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from densityd.service.data_dir import lock_data_dir;"
        "context = lock_data_dir(Path(sys.argv[1]), address='x'); context.__enter__(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)  # noqa: S603 - our own code
    assert killed.returncode == -9

    with lock_data_dir(tmp_path, address="http://127.0.0.1:5"):
        pass


def test_a_folder_that_cannot_be_written_is_refused_in_one_line():
    folder = "/dev/null/densityd"
    with (
        pytest.raises(StartError, match="cannot be used") as refusal,
        lock_data_dir(Path(folder), address="x"),
    ):
        pass
    assert folder in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_free_port_is_found_and_stays_free():
    port = free_port("127.0.0.1", 0)

    assert port > 0
    assert free_port("127.0.0.1", port) == port


def test_a_taken_port_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port}") as refusal:
            free_port("127.0.0.1", port)
    assert "\n" not in str(refusal.value)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        free_port("192.0.2.1", 0)


def test_the_url_is_one_that_a_browser_on_this_machine_opens():
    assert build_url("0.0.0.0", 8000) == "http://127.0.0.1:8000"  # noqa: S104 - nothing listens
    assert build_url("::", 8000) == "http://[::1]:8000"
    assert build_url("example.org", 8000) == "http://example.org:8000"


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        checks: list[dict[str, object]] = json.loads(self.server.checks)  # type: ignore[attr-defined]
        if self.path == "/v1/me":
            self.send_response(401 if checks else 200)
        else:
            self.send_response(200 if self.path == "/readyz" and not checks else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"checks": dict(enumerate(checks))}).encode())

    def log_message(self, *_: object) -> None:
        pass


def _told(
    checks: str, ask: Callable[[str], str | bool | None] = why_unready
) -> tuple[str | bool | None, str]:
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        server.checks = checks  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        told = ask(url)
        thread.join()
    return told, url


def test_why_the_api_is_not_ready_is_what_it_says():
    told, url = _told("[]")
    assert told is None
    assert why_unready(url) == "It does not respond yet."
    told, _ = _told('[{"ok": true, "detail": null}, {"ok": false, "detail": "Kernels compile."}]')
    assert told == "Kernels compile."
    assert [_told(checks, wants_key)[0] for checks in ("[]", "[1]")] == [False, True]
    told, _ = _told("[1]")
    assert told == "It does not respond yet."


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = started(tmp_path)
    yield process
    process.kill()
    process.wait()


def started(folder: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(  # noqa: S603 - our own command
        private_redis.build_command(folder / "redis" / "redis.sock"), stdout=subprocess.DEVNULL
    )
    wait_until(lambda: private_redis.is_up(folder / "redis" / "redis.sock"))
    return process


@pytest.mark.usefixtures("server")
def test_it_listens_on_a_private_socket_alone_and_keeps_nothing(tmp_path):
    assert not private_redis.is_up(tmp_path / "no.sock")
    socket = tmp_path / "redis" / "redis.sock"
    client = redis.Redis(unix_socket_path=str(socket))

    assert socket.stat().st_mode & 0o777 == 0o700
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    settings = client.config_get("*")
    assert settings["port"] == "0"
    assert (settings["appendonly"], settings["save"]) == ("no", "")


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "redis").write_text("no folder")
    with pytest.raises(StartError, match="redis cannot be used: File exists"):
        private_redis.build_command(tmp_path / "redis" / "redis.sock")


def test_a_socket_path_that_the_kernel_cannot_take_is_refused():
    with pytest.raises(StartError, match="107"):
        private_redis.build_command(Path("/" + "a" * 107))


def test_a_server_of_the_path_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "valkey-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert private_redis.find_server() == str(own)


def test_without_any_server_the_reason_is_clear(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(StartError, match="DENSITYD_BROKER_URL"):
        private_redis.find_server()


@pytest.fixture
def hang_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Return what the process was started with for SIGHUP."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("hang_up", "endings"), [(signal.SIG_IGN, 1), (signal.SIG_DFL, 2)], indirect=["hang_up"]
)
@pytest.mark.usefixtures("hang_up")
def test_a_closed_terminal_ends_it_unless_nohup_has_it_ignored(endings):
    with Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        signals.wait(60)
        assert signals.asked_to_end == endings


def test_where_the_cache_is_read_only_the_data_directory_knows_what_is_compiled(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "none"))
    assert not kernels.are_compiled(tmp_path)
    kernels.mark_compiled(tmp_path)
    assert kernels.are_compiled(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "other"))
    assert not kernels.are_compiled(tmp_path)
