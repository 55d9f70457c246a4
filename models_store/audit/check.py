"""Walks an audit trail and says where its chain is broken."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from models_store.audit.trail import FILE_NAME, LOCK_NAME, first_hash, previous_of

# Longer than any line; what has no line end before is read in pieces.
_MAX_LINE_BYTES = 64 * 1024


@dataclass
class AuditReport:
    """Findings of one walk.

    Attributes:
        files: Files that were read.
        lines: Whole lines among them.
        unfinished: Pieces of lines that a crash left, each held by the hash of the line after it.
        heads: SHA-256 of the last line of each series.
        broken: First broken line of each series, as a sentence; empty for a trail that is whole.
        notes: Sentences about what cannot be checked.
        missing: Hashes among those that were asked for of which the trail holds no line.
    """

    files: int = 0
    lines: int = 0
    unfinished: int = 0
    heads: dict[int, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    @property
    def whole(self) -> bool:
        """Return true if nothing was changed or removed, as far as the trail can tell."""
        return not self.broken and not self.missing


def check_trail(folder: Path, *, held: frozenset[str] = frozenset()) -> AuditReport:
    """Walk every series of a folder; the service may append meanwhile.

    Args:
        folder: Place of the files.
        held: Hashes of lines that the trail must hold, written down at earlier walks.

    Raises:
        OSError: The folder or a file cannot be read.
    """
    report = AuditReport(missing=set(held))
    found = _files(folder)
    begun: dict[bytes, str] = {}
    for series, files in sorted(found.items()):
        _check_series(series, files, report)
        report.broken += _copies(files, begun)
    for series in sorted(_locked_series(folder) - found.keys()):
        report.notes.append(f"series {series} has been written, and none of its files is here")
    return report


def _locked_series(folder: Path) -> set[int]:
    names = (LOCK_NAME.fullmatch(path.name) for path in folder.iterdir())
    return {int(name["series"]) for name in names if name}


def _files(folder: Path) -> dict[int, dict[int, Path]]:
    found: dict[int, dict[int, Path]] = {}
    for path in folder.iterdir():
        name = FILE_NAME.fullmatch(path.name)
        if name:
            found.setdefault(int(name["series"]), {})[int(name["number"])] = path
    return found


def _check_series(series: int, files: dict[int, Path], report: AuditReport) -> None:
    first, last = min(files), max(files)
    # Of a series whose beginning was put elsewhere, the first line is taken as it is.
    digests = [first_hash(series), hashlib.sha256()] if first == 1 else []
    if first > 1:
        report.notes.append(f"series {series} begins with file {first}; those before are not here")
    for number in range(first, last + 1):
        if number not in files:
            report.broken.append(f"file {number} of series {series} is missing")
            return
        path = files[number]
        report.files += 1
        for count, line in enumerate(_lines(path), start=1):
            previous = previous_of(line)
            if previous is None:
                report.unfinished += 1
                for digest in digests:
                    digest.update(line)
                continue
            if digests and previous not in [digest.hexdigest() for digest in digests]:
                report.broken.append(
                    f"{path.name}, line {count} does not follow the line before it: one of the two"
                    " was changed, or lines between them were removed, or the series was renamed"
                )
                return
            digests = [hashlib.sha256(line)]
            report.lines += 1
            report.heads[series] = digests[0].hexdigest()
            report.missing.discard(report.heads[series])


def _copies(files: dict[int, Path], begun: dict[bytes, str]) -> Iterator[str]:
    """Yield a sentence for each file that begins as another one does: two lines are never equal.

    Args:
        files: Files of a series by their numbers.
        begun: Names of the files so far by their first lines; those of the series are added.
    """
    for _, path in sorted(files.items()):
        line = next(_lines(path), b"")
        if line and (other := begun.setdefault(line, path.name)) != path.name:
            yield f"{path.name} is a copy of {other}"


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            yield line
