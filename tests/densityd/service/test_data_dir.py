import subprocess
import sys
from pathlib import Path

import pytest

from densityd.errors import StartError
from densityd.service.data_dir import lock_data_dir


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"

    with lock_data_dir(folder, address="http://127.0.0.1:1"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_service_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with (
        lock_data_dir(tmp_path, address="http://127.0.0.1:1234"),
        pytest.raises(StartError, match="1234") as refusal,
        lock_data_dir(tmp_path, address="http://127.0.0.1:5"),
    ):
        pass
    assert "\n" not in str(refusal.value)
    with lock_data_dir(tmp_path, address="http://127.0.0.1:5"):
        pass


def test_a_killed_service_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from densityd.service.data_dir import lock_data_dir;"
        "context = lock_data_dir(Path(sys.argv[1]), address='x'); context.__enter__(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)  # noqa: S603 - our own code
    assert killed.returncode == -9

    with lock_data_dir(tmp_path, address="http://127.0.0.1:5"):
        pass


@pytest.mark.parametrize("folder", ["/proc/densityd", "/dev/null/densityd"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(folder: str) -> None:
    with (
        pytest.raises(StartError, match="cannot be used") as refusal,
        lock_data_dir(Path(folder), address="x"),
    ):
        pass
    assert folder in str(refusal.value)
    assert "\n" not in str(refusal.value)
