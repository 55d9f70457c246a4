import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from densityd.errors import StartError
from densityd.service import private_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = start(tmp_path)
    yield process
    process.kill()
    process.wait()


def start(folder: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(  # noqa: S603 - our own command
        private_redis.build_command(folder / "redis" / "redis.sock"), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not private_redis.is_up(f"unix://{folder}/redis/redis.sock"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.usefixtures("server")
def test_it_listens_on_a_private_socket_alone_and_keeps_a_log(tmp_path: Path) -> None:
    socket = tmp_path / "redis" / "redis.sock"
    client = redis.Redis(unix_socket_path=str(socket))

    assert socket.stat().st_mode & 0o777 == 0o700
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    settings = client.config_get("*")
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"


def test_what_it_held_survives_kill_9(tmp_path: Path, server: "subprocess.Popen[bytes]") -> None:
    client = redis.Redis(unix_socket_path=str(tmp_path / "redis" / "redis.sock"))
    client.lpush("queue", "hint")
    client.execute_command("BGREWRITEAOF")
    deadline = time.monotonic() + 120
    while client.info("persistence")["aof_pending_bio_fsync"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.kill()
    server.wait()

    again = start(tmp_path)

    assert client.llen("queue") == 1
    again.kill()
    again.wait()


def test_a_log_that_cannot_be_read_is_set_aside_and_the_server_starts(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"\0garbage\0" * 100)
    (folder / "appendonlydir").mkdir()

    moved = private_redis.set_aside_log(folder / "redis.sock")

    assert [path.name for path in moved] == [
        "appendonly.aof.unreadable",
        "appendonlydir.unreadable",
    ]
    process = start(tmp_path)
    process.kill()
    process.wait()
    assert (folder / "appendonly.aof.unreadable").exists()
    private_redis.set_aside_log(folder / "redis.sock")


def test_a_log_is_set_aside_whatever_it_is_and_whatever_was_set_aside_before(
    tmp_path: Path,
) -> None:
    path, aside = tmp_path / "appendonlydir", tmp_path / "appendonlydir.unreadable"

    def a_file() -> None:
        path.write_text("garbage")

    for make in (
        a_file,
        path.mkdir,
        a_file,
        path.mkdir,
        lambda: path.symlink_to("nowhere"),
        a_file,
    ):
        make()
        assert private_redis.set_aside_log(tmp_path / "redis.sock") == [aside]
        assert os.path.lexists(aside)
        assert not os.path.lexists(path)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("no folder")
    with pytest.raises(StartError, match="redis cannot be used: File exists"):
        private_redis.build_command(tmp_path / "redis" / "redis.sock")
    (tmp_path / "redis").unlink()
    with pytest.raises(StartError, match="appendonlydir cannot be moved aside"):
        set_aside_in_vain(tmp_path / "redis")


def set_aside_in_vain(folder: Path) -> None:
    """Set a log aside where the place that it goes to cannot be emptied."""
    folder.mkdir()
    (folder / "appendonlydir").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        private_redis.set_aside_log(folder / "redis.sock")


def refused(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_the_queue_of_an_older_server_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    # Written by Redis 6.2 and before: one file of commands.
    (folder / "appendonly.aof").write_bytes(b"*3\r\n$5\r\nLPUSH\r\n$5\r\nqueue\r\n$3\r\nold\r\n")

    process = start(tmp_path)

    client = redis.Redis(unix_socket_path=str(folder / "redis.sock"))
    assert client.lrange("queue", 0, -1) == [b"old"]
    process.kill()
    process.wait()


def test_a_server_of_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "valkey-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert private_redis.find_server() == str(own)


def test_without_any_server_the_reason_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(StartError, match="DENSITYD_BROKER_URL"):
        private_redis.find_server()


def test_nobody_answers_where_nobody_listens(tmp_path: Path) -> None:
    assert not private_redis.is_up(f"unix://{tmp_path}/no.sock")
