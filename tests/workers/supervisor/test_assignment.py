"""Memory that a worker has for its trainers: of the machine, or what its control groups leave of it."""

import os
from pathlib import Path

import pytest

from workers.supervisor.assignment import group_limits


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


def test_a_group_may_have_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xfcro\x0b1")
    (tmp_path / "own").write_bytes(os.fsencode(f"0::/{name}\n"))
    make(tmp_path / "groups" / name / "memory.max", "3")
    assert list(group_limits(tmp_path / "own", tmp_path / "groups")) == [3]


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert not list(group_limits(tmp_path / "none", tmp_path))
    make(tmp_path / "empty", "")
    assert not list(group_limits(tmp_path / "empty", tmp_path))
