import os
import subprocess
import sys
from pathlib import Path

from workers.heartbeat import Heartbeat, heartbeat_of
from workers.settings import WorkerSettings


def test_a_heartbeat_is_young_after_a_beat_and_gone_after_the_end(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "workers" / "a.heartbeat")
    assert heartbeat.age_s() is None

    heartbeat.beat()

    age_s = heartbeat.age_s()
    assert age_s is not None
    assert age_s < 5
    heartbeat.remove()
    assert heartbeat.age_s() is None


def test_the_heartbeat_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    path = tmp_path / "a.heartbeat"
    path.write_text(dead.stdout.decode().strip())

    assert Heartbeat(path).age_s() is None


def test_a_heartbeat_grows_old(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "a.heartbeat")
    heartbeat.beat()
    os.utime(tmp_path / "a.heartbeat", (1_000_000, 1_000_000))

    age_s = heartbeat.age_s()
    assert age_s is not None
    assert age_s > 1000


def test_a_folder_that_cannot_be_written_does_not_stop_the_worker(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    Heartbeat(tmp_path / "file" / "a.heartbeat").beat()


def test_two_named_workers_on_one_host_have_two_heartbeats(tmp_path: Path) -> None:
    one = heartbeat_of(WorkerSettings(data_dir=tmp_path, worker_name="one"))
    two = heartbeat_of(WorkerSettings(data_dir=tmp_path, worker_name="two"))

    one.beat()

    assert one.age_s() is not None
    assert two.age_s() is None
