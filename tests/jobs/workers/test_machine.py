"""Devices of a worker, without any GPU, and the memory that it has for its trainers."""

from pathlib import Path

import pytest

from workers.devices import count_gpus, devices_of, has_accelerator
from workers.settings import WorkerSettings
from workers.supervisor.assignment import group_limits


def test_gpus_are_counted_by_their_files_or_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 3
    assert count_gpus(tmp_path / "none") == 0
    for visible, count in (("", 0), ("-1", 0), ("0", 1), ("0,2", 2), ("GPU-1, GPU-2 ", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert count_gpus(tmp_path) == count, visible


def test_each_gpu_is_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    every = WorkerSettings(device="cuda:all", worker_concurrency=7)
    assert devices_of(every) == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of(WorkerSettings(device="cpu", worker_concurrency=2)) == ["cpu", "cpu"]
    assert [has_accelerator(WorkerSettings(device=d)) for d in ("cpu", "cuda:1", "auto")] == [
        False,
        True,
        True,
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices_of(every) == ["cuda:0"]  # whose self-test says that it is missing
    assert not has_accelerator(WorkerSettings(device="auto"))


def make(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        pytest.param(
            "0::/system.slice/densityd.service",
            {
                "memory.max": "9",
                "system.slice/memory.max": "max",
                "system.slice/densityd.service/memory.max": "4",
                "other.slice/memory.max": "1",
            },
            [4, 9],
            id="a unit of systemd",
        ),
        pytest.param("0::/", {"memory.max": "5"}, [5], id="a container"),
        pytest.param(
            "5:cpu:/\n4:memory:/slurm/job\n0::/",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/slurm/memory.limit_in_bytes": "7",
                "memory/slurm/job/memory.limit_in_bytes": "6",
            },
            [6, 7, 9223372036854771712],
            id="the first version",
        ),
        pytest.param(
            "4:memory:/docker/0123",
            {"memory/memory.limit_in_bytes": "8"},
            [8],
            id="a container that sees its group elsewhere",
        ),
    ],
)
def test_the_limits_of_all_groups_of_a_process_are_found(
    tmp_path: Path, own: str, files: dict[str, str], limits: list[int]
) -> None:
    make(tmp_path / "own", own)
    for name, text in files.items():
        make(tmp_path / "groups" / name, text)
    assert list(group_limits(tmp_path / "own", tmp_path / "groups")) == limits


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert not list(group_limits(tmp_path / "none", tmp_path))
    make(tmp_path / "empty", "")
    assert not list(group_limits(tmp_path / "empty", tmp_path))
