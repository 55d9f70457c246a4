"""The audit trail survives crashes and full disks, and shows whatever else was done to it."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from models_store.audit.check import AuditReport, check_trail
from models_store.audit.trail import AuditTrail

FIRST = "audit-1.000001.jsonl"
# Acknowledges each line that it made durable, then continues until it is killed.
WRITER = """
import itertools, sys
from pathlib import Path
from models_store.audit.trail import AuditTrail
trail = AuditTrail(Path(sys.argv[1]), max_file_bytes=int(sys.argv[3]))
for number in itertools.count(int(sys.argv[2])):
    trail.append([{"n": number}, {"n": -number}])
    print(number, flush=True)
"""


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[AuditTrail]:
    trail = AuditTrail(tmp_path)
    yield trail
    trail.close()


def filled(folder: Path, lines: int = 6, *, max_file_bytes: int = 2**20) -> Path:
    trail = AuditTrail(folder, max_file_bytes=max_file_bytes)
    for number in range(lines):
        trail.append([{"n": number}])
    trail.close()
    return folder


def numbers(folder: Path) -> list[int]:
    texts = [path.read_bytes() for path in sorted(folder.glob("*.jsonl"))]
    found = []
    for line in b"".join(texts).splitlines():
        try:
            found.append(json.loads(line)["n"])
        except ValueError:
            continue
    return found


def test_each_line_holds_the_hash_of_the_one_before_it(trail: AuditTrail, tmp_path: Path) -> None:
    trail.append([{"n": 0}, {"n": 1}])
    trail.append([{"n": 2}])
    report = check_trail(tmp_path)
    assert (report.whole, report.lines, report.files, report.unfinished) == (True, 3, 1, 0)
    assert numbers(tmp_path) == [0, 1, 2]
    assert (tmp_path / FIRST).stat().st_mode & 0o777 == 0o600


def test_processes_have_series_of_their_own_and_go_on_with_those_of_the_dead(
    trail: AuditTrail, tmp_path: Path
) -> None:
    trail.append([{"n": 0}])
    other = AuditTrail(tmp_path)
    other.append([{"n": 1}])
    other.close()
    third = AuditTrail(tmp_path)
    third.append([{"n": 2}])
    third.close()
    report = check_trail(tmp_path)
    assert (report.whole, sorted(report.heads), report.lines) == (True, [1, 2], 3)
    assert len((tmp_path / "audit-2.000001.jsonl").read_bytes().splitlines()) == 2


def test_files_are_kept_and_the_chain_goes_over_from_one_to_the_next(tmp_path: Path) -> None:
    filled(tmp_path, 40, max_file_bytes=500)
    filled(tmp_path, 40, max_file_bytes=500)
    report = check_trail(tmp_path)
    assert (report.whole, report.lines) == (True, 80)
    assert report.files > 10
    assert numbers(tmp_path) == [*range(40), *range(40)]


@pytest.mark.parametrize("size", [10**9, 700])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, size: int) -> None:
    acknowledged = 0
    for begin in (0, 1_000, 2_000):
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", WRITER, str(tmp_path), str(begin), str(size)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(20):
            last = int(process.stdout.readline())
        process.kill()
        rest = process.communicate()[0].split(b"\n")[:-1]
        last = int(rest[-1]) if rest else last
        acknowledged += 2 * (last - begin + 1)
        report = check_trail(tmp_path)
        assert report.whole, report.broken
        assert report.lines >= acknowledged
        assert {*range(begin, last + 1)} <= set(numbers(tmp_path))
        acknowledged = report.lines


def test_a_last_line_cut_anywhere_is_ended_and_the_chain_goes_on(tmp_path: Path) -> None:
    whole = (filled(tmp_path / "whole", 2) / FIRST).read_bytes()
    second = whole.index(b"\n") + 1
    for cut in sorted({*range(0, len(whole), 7), *range(second - 2, second + 2), len(whole)}):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / FIRST).write_bytes(whole[:cut])
        before = check_trail(folder)
        assert before.whole
        assert before.lines == (cut >= second) + (cut == len(whole))
        filled(folder, 2)
        after = check_trail(folder)
        assert after.whole, cut
        assert (folder / FIRST).read_bytes().startswith(whole[:cut])
        kept = (cut >= second - 1) + (cut >= len(whole) - 1)
        assert (after.lines, after.unfinished) == (
            kept + 2,
            int(cut not in {0, second - 1, second, len(whole) - 1, len(whole)}),
        )


@pytest.mark.parametrize("size", [1, 5_000, 200_000])
def test_bytes_that_the_machine_lost_are_passed_over(tmp_path: Path, size: int) -> None:
    file = filled(tmp_path) / FIRST
    for _ in range(3):
        with file.open("ab") as end:
            end.write(b"\0" * size)
        filled(tmp_path, 1)
    report = check_trail(tmp_path)
    assert (report.whole, report.lines) == (True, 9)
    assert report.unfinished >= 3


LINES = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = filled(tmp_path_factory.mktemp("trail"), LINES)
    return (folder / FIRST).read_bytes().splitlines(keepends=True)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_change_anywhere_before_the_last_line_is_found(
    data: st.DataObject, whole: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, lines = tmp_path_factory.getbasetemp(), list(whole)
    kind = data.draw(st.sampled_from(["byte", "remove", "insert", "swap", "copy"]))
    at = data.draw(st.integers(0, LINES - 2))
    if kind == "byte":
        # The end of the line before the last one is left: without it both are one line that a
        # crash could have cut off, as if the last lines had been removed.
        index = data.draw(st.integers(0, len(lines[at]) - 1 - (at == LINES - 2)))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != lines[at][index]))
        lines[at] = lines[at][:index] + bytes([byte]) + lines[at][index + 1 :]
    elif kind == "remove":
        del lines[at]
    elif kind == "insert":
        lines.insert(at, json.dumps({"n": -1, "previous": "0" * 64}).encode() + b"\n")
    elif kind == "copy":
        lines.insert(at, lines[at])
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    (folder / FIRST).write_bytes(b"".join(lines))
    report = check_trail(folder)
    assert not report.whole
    assert len(report.broken) == 1


def test_the_first_broken_line_is_named(tmp_path: Path) -> None:
    file = filled(tmp_path) / FIRST
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], lines[2].replace(b"2", b"7", 1), *lines[3:]]))
    [sentence] = check_trail(tmp_path).broken
    assert sentence.startswith(f"{FIRST}, line 4 does not follow the line before it")


def test_a_removed_file_is_missed_and_an_archived_beginning_is_told(tmp_path: Path) -> None:
    filled(tmp_path, 40, max_file_bytes=500)
    (tmp_path / FIRST).unlink()
    report = check_trail(tmp_path)
    assert report.whole
    assert report.notes == ["series 1 begins with file 2; those before are not here"]
    (tmp_path / "audit-1.000004.jsonl").unlink()
    assert check_trail(tmp_path).broken == ["file 4 of series 1 is missing"]


def test_a_copied_file_is_told_whatever_its_series_is(tmp_path: Path) -> None:
    filled(tmp_path, 40, max_file_bytes=500)
    copies = {FIRST: "audit-7.000001.jsonl", "audit-1.000003.jsonl": "audit-8.000002.jsonl"}
    for name, copy in copies.items():
        (tmp_path / copy).write_bytes((tmp_path / name).read_bytes())
    told = [f"{copy} is a copy of {name}" for name, copy in copies.items()]
    assert [text for text in check_trail(tmp_path).broken if "copy" in text] == told


def test_a_changed_file_has_no_other_that_stands_for_it(tmp_path: Path) -> None:
    file = filled(tmp_path) / FIRST
    for zeros in range(1, 8):
        (tmp_path / f"audit-1.{'0' * zeros}000001.jsonl").write_bytes(file.read_bytes())
    assert check_trail(tmp_path).files == 1
    file.write_bytes(file.read_bytes().replace(b'"n": 2', b'"n": 9'))
    assert not check_trail(tmp_path).whole


def test_a_series_without_files_is_told(trail: AuditTrail, tmp_path: Path) -> None:
    trail.append([{"n": 0}])
    other = AuditTrail(tmp_path)
    other.append([{"n": 1}])
    other.close()
    assert check_trail(tmp_path).notes == []
    (tmp_path / "audit-2.000001.jsonl").unlink()
    report = check_trail(tmp_path)
    assert report.whole
    assert report.notes == ["series 2 has been written, and none of its files is here"]


def test_lines_removed_from_the_end_are_missed_by_who_kept_their_hash(tmp_path: Path) -> None:
    file = filled(tmp_path) / FIRST
    head = check_trail(tmp_path).heads[1]
    lines = file.read_bytes().splitlines(keepends=True)
    filled(tmp_path, 1)
    assert check_trail(tmp_path, held=frozenset({head})).whole
    file.write_bytes(b"".join(lines[:-1]))
    assert check_trail(tmp_path).whole
    report = check_trail(tmp_path, held=frozenset({head}))
    assert (report.whole, report.missing) == (False, {head})


def test_a_file_removed_while_it_is_written_leaves_a_gap(trail: AuditTrail, tmp_path: Path) -> None:
    trail.append([{"n": 0}])
    (tmp_path / FIRST).unlink()
    trail.append([{"n": 1}])
    report = check_trail(tmp_path)
    assert numbers(tmp_path) == [1]
    assert report.notes == ["series 1 begins with file 2; those before are not here"]


@pytest.mark.parametrize("truncates", [True, False])
def test_a_failed_write_leaves_a_chain_that_goes_on(
    trail: AuditTrail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truncates: bool
) -> None:
    trail.append([{"n": 0}])
    write, fail = os.write, OSError(errno.ENOSPC, "full")

    def short(handle: int, data: bytes) -> int:
        if len(data) < 30:
            raise fail
        return write(handle, data[:20])

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "append only")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        if not truncates:
            patch.setattr(os, "ftruncate", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                trail.append([{"n": 1}])
    trail.append([{"n": 1}])
    report: AuditReport = check_trail(tmp_path)
    assert report.whole, report.broken
    assert (report.lines, report.unfinished > 0) == (2, not truncates)


def test_a_folder_that_cannot_be_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        AuditTrail(tmp_path / "file" / "audit").open()
    with pytest.raises(FileNotFoundError):
        check_trail(tmp_path / "nothing")


def test_series_that_are_renamed_to_each_other_are_found(tmp_path: Path) -> None:
    trails = [AuditTrail(tmp_path), AuditTrail(tmp_path)]
    for number, trail in enumerate(trails):
        trail.append([{"n": number}, {"n": -number}])
    for trail in trails:
        trail.close()
    assert check_trail(tmp_path).whole
    second = tmp_path / "audit-2.000001.jsonl"
    (tmp_path / FIRST).rename(tmp_path / "aside")
    second.rename(tmp_path / FIRST)
    (tmp_path / "aside").rename(second)
    broken = check_trail(tmp_path).broken
    assert [sentence.partition(" does")[0] for sentence in broken] == [
        f"{FIRST}, line 1",
        f"{second.name}, line 1",
    ]


def test_a_series_of_a_version_whose_first_line_held_no_name_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("models_store.audit.trail.first_hash", lambda _: hashlib.sha256())
        filled(tmp_path, 2)
    filled(tmp_path, 2)
    assert (check_trail(tmp_path).whole, check_trail(tmp_path).lines) == (True, 4)
