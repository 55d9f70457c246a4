"""The audit trail: lines on the disk, each with the hash of the one before it.

A process appends to a series of numbered files that is its own for as long as it lives; whoever
starts after its end continues with the series. No process waits for another, and no file is
ever replaced.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

# A number is written in one way: another file must not stand for the one that `file_name` names.
FILE_NAME = re.compile(r"audit-(?P<series>[1-9][0-9]*)\.(?P<number>[0-9]{6}|[1-9][0-9]{6,})\.jsonl")
LOCK_NAME = re.compile(r"audit-(?P<series>[1-9][0-9]*)\.lock")
_PREVIOUS = "previous"
_MAX_FILE_BYTES = 64 * 2**20
_MAX_SERIES = 10_000
_TAIL_BYTES = 8 * 1024
_HASH = re.compile(r"[0-9a-f]{64}")


def file_name(series: int, number: int) -> str:
    """Return the name of a file of a series, counted from 1."""
    return f"audit-{series}.{number:06d}.jsonl"


def first_hash(series: int) -> "hashlib._Hash":
    """Return the hash that the first line of a series holds: that of the name of the series.

    So a series that is renamed shows. Lines of versions before hold the hash of nothing.
    """
    return hashlib.sha256(b"audit-%d" % series)


def previous_of(line: bytes) -> str | None:
    """Return the hash that a line holds; None for what is no whole line of a trail.

    Args:
        line: Bytes with the line end.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:  # cut off when a process or the machine died
        return None
    previous = record.get(_PREVIOUS) if isinstance(record, dict) else None
    return previous if isinstance(previous, str) and _HASH.fullmatch(previous) else None


class AuditTrail:
    """Appends to one series of a folder; for one thread at a time.

    Each line holds the SHA-256 of all bytes from the beginning of the line before it: of that
    line, and of what a crash may have left of another behind it.

    Args:
        folder: Place of the files; made when it is missing.
        max_file_bytes: Size at which the next file of the series is begun.
    """

    def __init__(self, folder: Path, *, max_file_bytes: int = _MAX_FILE_BYTES) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._lock: int | None = None
        self._series = 0
        self._number = 0
        self._file: int | None = None
        self._size = 0
        self._hash = hashlib.sha256()

    def open(self) -> int:
        """Take a series, find its end, and return the descriptor of its newest file.

        Raises:
            OSError: The folder or the newest file cannot be written.
        """
        if self._lock is None:
            self._lock_series()
        if self._file is None:
            self._number = max([1, self._number, *_numbers(self._folder, self._series)])
            self._file = self._open_file()
        return self._file

    def append(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add one line for each record; all are on the disk at the return, or none is.

        Args:
            records: JSON objects.

        Raises:
            OSError: They could not be made durable.
        """
        file = self.open()
        digest = self._hash
        # A file that was removed is not made again: the gap must show.
        if self._size >= self._max_file_bytes or os.fstat(file).st_nlink == 0:
            self._close_file()
            self._number += 1
            file = self.open()
        lines = []
        for record in records:
            text = json.dumps({**record, _PREVIOUS: digest.hexdigest()})
            lines.append(text.encode() + b"\n")
            digest = hashlib.sha256(lines[-1])
        try:
            self._write(file, b"".join(lines))
        except OSError:
            self._close_file()
            raise
        self._hash = digest

    def close(self) -> None:
        """Give the series back."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_series(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for series in range(1, _MAX_SERIES):
            path = self._folder / f"audit-{series}.lock"
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            except OSError:
                os.close(lock)
                raise
            else:
                self._lock, self._series, self._number = lock, series, 0
                return
        raise OSError(f"{self._folder} holds too many series")

    def _open_file(self) -> int:
        path = self._folder / file_name(self._series, self._number)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            _sync_folder(self._folder)
            self._size = os.fstat(file).st_size
            if self._size and os.pread(file, 1, self._size - 1) != b"\n":
                self._write(file, b"\n")  # ends what a crash cut off
            self._hash = self._end()
        except OSError:
            os.close(file)
            raise
        return file

    def _end(self) -> "hashlib._Hash":
        """Hash everything from the beginning of the last line of the series, or else from its name on."""
        digest, found = first_hash(self._series), list[bytes]()
        for number in count(self._number, -1):
            path = self._folder / file_name(self._series, number)
            if number < 1 or not path.exists():
                break
            tail, whole = _last_line(path)
            found.append(tail)
            if whole:
                digest = hashlib.sha256()
                break
        digest.update(b"".join(reversed(found)))
        return digest

    def _write(self, file: int, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            # After a failed fsync nobody knows what the disk holds: write it again, do not sync
            # again. Where the file cannot be cut either, its end is read anew.
            with suppress(OSError):
                os.ftruncate(file, self._size)
            raise
        self._size += len(data)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _numbers(folder: Path, series: int) -> list[int]:
    names = (FILE_NAME.fullmatch(path.name) for path in folder.iterdir())
    return [int(name["number"]) for name in names if name and int(name["series"]) == series]


def _last_line(path: Path) -> tuple[bytes, bool]:
    """Return a file from the beginning of its last whole line, and true; else all of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for exponent in count():
            start = max(0, size - _TAIL_BYTES * 2**exponent)
            file.seek(start)
            tail = file.read(size - start)
            at = len(tail)
            while at > 0:
                begin = tail.rfind(b"\n", 0, at - 1) + 1
                if (begin or not start) and previous_of(tail[begin:at]) is not None:
                    return tail[begin:], True
                at = begin
            if not start:
                return tail, False
    raise AssertionError  # the start is reached


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
