"""Devices of a worker, without any GPU: what it would do follows from names alone."""

from pathlib import Path

import pytest

from workers.devices import count_gpus, devices_of, has_accelerator
from workers.settings import WorkerSettings


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
