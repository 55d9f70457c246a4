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
def test_it_listens_on_a_private_socket_alone_and_keeps_nothing(tmp_path: Path) -> None:
    socket = tmp_path / "redis" / "redis.sock"
    client = redis.Redis(unix_socket_path=str(socket))

    assert socket.stat().st_mode & 0o777 == 0o700
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    settings = client.config_get("*")
    assert settings["port"] == "0"
    assert (settings["appendonly"], settings["save"]) == ("no", "")


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("no folder")
    with pytest.raises(StartError, match="redis cannot be used: File exists"):
        private_redis.build_command(tmp_path / "redis" / "redis.sock")


def test_a_socket_path_that_the_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(StartError, match="107"):
        private_redis.build_command(Path("/" + "a" * 107))


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
