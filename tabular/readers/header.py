"""Header of a CSV file, detected from its first records: the names of the columns, and what is around them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise, takewhile

from tabular.formats import Delimiter, ParseOptions, TableWarning
from tabular.notations.words import MISSING_SPELLINGS
from tabular.readers.delimiters import split_line, surplus_of
from tabular.readers.text import TextFile
from tabular.source import look_numeric

BEGINS_WITH_DIGIT = re.compile(r"[^\w]*\d")
"""Texts of numbers, amounts, dates and the like."""

READ_ALL = "upload the file again and state delimiter=: every line is then read as a row."
"""Remedy for lines that were taken for something else, as the end of a sentence."""

_MOST_ABOVE, _FEWEST_BELOW = 20, 4
_MOST_BLANK = 50  # lines that may stand before another table
_MOST_TITLES = 5  # lines of less than two values between a blank line and the names of a table
_LOOKED_AT = 64 << 10
_BLOCK_BYTES = 1 << 20
_MOST_NAME_ROWS = 3
_NUMERIC_SHARE = 0.95
_RELATION = re.compile(rb"(?i)(?:[ \t]*(?:%[^\r\n]*)?[\r\n]+)*+[ \t]*@relation\b")
_ATTRIBUTE = re.compile(rb"(?im)^[ \t]*@attribute[ \t]+('[^'\r\n]*'|\"[^\"\r\n]*\"|[^\s]+)")
_DATA = re.compile(rb"(?im)^[ \t]*@data[ \t]*\r?\n")
_DIGIT_RUN = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DATED = re.compile(r"\d{1,4}([-/.:])\d{1,2}\1\d{1,4}")  # also a time, at its beginning
_FIELD_WIDTHS = re.compile(r"\d{1,4}[sdn]")  # of text, dates and numbers, as of RDB files
_STEP_RATIO = 1.5  # of the largest distance of two names that are evenly spaced to the smallest


@dataclass(frozen=True)
class FirstRecords:
    """First lines of a file, as records.

    Attributes:
        records: Values of each record; a blank line has none.
        ends: Position after each record, in bytes from the first line.
    """

    records: list[list[str]]
    ends: list[int]

    def filled(self, number: int) -> int:
        """Return the number of values of a record that are not empty."""
        return sum(bool(cell.strip()) for cell in self.records[number])


@dataclass(frozen=True, kw_only=True)
class Header:
    """Rows above the data.

    Attributes:
        first: Number of rows above the header.
        names: Number of rows that name the columns.
        fields: Names of the columns, or the values of the first row.
        warnings: Warnings about what was found.
    """

    first: int = 0
    names: int
    fields: list[str]
    warnings: list[TableWarning] = field(default_factory=list)


def find_header(start: FirstRecords, options: ParseOptions, *, above: int) -> Header:
    """Return what lies above the data."""
    fields = start.records[0]
    if not options.header or options.delimiter is not None:
        return Header(names=int(options.header), fields=fields)
    first = _titles(start)
    if first == 0 and (above == 0 or look_numeric(fields)) and _is_data(start.records):
        return Header(names=0, fields=fields, warnings=[*_about_above(above), _headerless()])
    if _are_groups(start, first - 1):
        first -= 1
    names = _name_rows(start.records[first:])
    fields = _names(start.records[first : first + names])
    return Header(
        first=first,
        names=names,
        fields=_with_nameless(fields, start.records[first + names :]),
        warnings=[*_about_above(above + first), *_about_below(names - 1)],
    )


@dataclass(frozen=True)
class Attributes:
    """Lines above the rows that name a column each, as of an ARFF file.

    Attributes:
        names: Names of the columns.
        end: Position after these lines, in bytes.
        lines: Number of these lines.
    """

    names: list[str]
    end: int
    lines: int

    def warning(self) -> TableWarning:
        """Return the warning about these lines."""
        return skipped_warning(
            f"The first {self.lines} lines describe the columns, as in an ARFF file, and are skipped."
        )


def find_attributes(start: bytes) -> Attributes | None:
    """Return the lines of a file that name its columns one by one, None if there are none.

    Args:
        start: First bytes of the file.
    """
    data = _DATA.search(start) if _RELATION.match(start) else None
    names = (
        [match[1].decode().strip("'\"") for match in _ATTRIBUTE.finditer(start, 0, data.start())]
        if data
        else []
    )
    return (
        Attributes(names, data.end(), start.count(b"\n", 0, data.end())) if data and names else None
    )


@dataclass(frozen=True)
class OtherTable:
    """Table below the one that is read, after a blank line.

    Attributes:
        line: Number of the line of its names, from 1.
        stop: Position after the last row above it, in bytes.
    """

    line: int
    stop: int

    def warning(self) -> TableWarning:
        """Return the warning about it."""
        text = f"Another table begins in line {self.line} and is skipped. Upload it as a file of its own."
        return skipped_warning(text, unless="these lines are rows of this table")


def find_other_table(
    text: TextFile, begin: int, names: list[str], rows: list[list[str]], delimiter: Delimiter
) -> OtherTable | None:
    """Return the table that begins below a blank line: with names in columns that hold numbers, or in fewer or more.

    Args:
        text: Text of the file.
        begin: Position of the first row.
        names: Names in the header of the first table.
        rows: First rows.
        delimiter: Separator of the values.
    """
    numeric = _numeric_columns(list(takewhile(lambda row: any(map(str.strip, row)), rows)))
    if len(names) < 2 or not numeric:
        return None
    for stop in islice(
        _blank_lines(text, begin, delimiter.encode() * (len(names) - 1)), _MOST_BLANK
    ):
        with text.open() as file:
            file.seek(stop)
            lines = file.read(_LOOKED_AT).decode(errors="replace").splitlines()
            cells = [split_line(line, delimiter) or [] for line in lines]
        filled = [sum(bool(cell.strip()) for cell in row) for row in cells]
        at = next((n for n, count in enumerate(filled[:_MOST_TITLES]) if count > 1), None)
        if at is None or not _begins_table(cells[at:], names, numeric):
            continue
        ends, quotes = _counts(text, stop)
        if quotes % 2 == 0:  # else the blank line is within a cell
            return OtherTable(ends + at + 1, stop)
    return None


def _counts(text: TextFile, stop: int) -> tuple[int, int]:
    """Return the number of ends of lines, and of quotation marks, before a position."""
    feeds = returns = quotes = 0
    with text.open() as file:
        while block := file.read(min(_BLOCK_BYTES, stop - file.tell())):
            feeds += block.count(b"\n")
            returns += block.count(b"\r")
            quotes += block.count(b'"')
    return feeds or returns, quotes


def _begins_table(lines: list[list[str]], names: list[str], numeric: list[int]) -> bool:
    """Return whether the first of some lines has names, which are not those of the rows above it."""
    first, below = [cell.strip() for cell in lines[0]], [row for row in lines[1:] if row]
    known = [at for at, cell in enumerate(first) if cell]
    if first == [name.strip() for name in names] or any(map(BEGINS_WITH_DIGIT.match, first)):
        return False
    numbers = [at for at in _numeric_columns(below) if at < len(first)]
    is_other = len(first) != len(names) or any(at in known for at in numeric)
    return is_other and any(at in known for at in numbers)


def _blank_lines(text: TextFile, begin: int, empty: bytes) -> Iterator[int]:
    """Yield the positions of lines without values, `empty` among them."""
    needles = [
        end + line + more
        for end, more in ((b"\n", b"\n"), (b"\n", b"\r\n"), (b"\r", b"\r"))
        for line in {b"", empty}
    ]
    position, rest = begin, b""
    with text.open() as file:
        file.seek(begin)
        while block := file.read(_BLOCK_BYTES):
            block = rest + block
            found = {
                position + match.start() + 1
                for needle in needles
                if needle in block
                for match in re.finditer(re.escape(needle), block)
            }
            yield from sorted(found)
            rest = block[-len(empty) - 3 :]
            position += len(block) - len(rest)


def _titles(start: FirstRecords) -> int:
    """Return the number of rows above the header that have a title and otherwise empty cells."""
    filled = [start.filled(number) for number in range(len(start.records))]
    below = sorted(filled[1:])
    typical = below[len(below) // 2] if len(below) >= _FEWEST_BELOW else 0
    if typical < 3 or 2 * filled[0] >= typical:
        return 0
    for number in range(1, min(_MOST_ABOVE, len(filled) - _FEWEST_BELOW) + 1):
        if 2 * filled[number] >= typical:
            break
    else:
        return 0
    rows = start.records[number + 1 :]
    numeric = _numeric_columns(rows)
    cells = start.records[number]
    is_data = any(BEGINS_WITH_DIGIT.match(cells[at]) for at in numeric if at < len(cells))
    return 0 if is_data else number


def _are_groups(start: FirstRecords, number: int) -> bool:
    """Return whether a row names groups of columns, whose names come again in the row below it."""
    if number < 0 or start.filled(number) < 2:
        return False
    names = [cell.strip() for cell in start.records[number + 1] if cell.strip()]
    return len(set(names)) < len(names) and _name_rows(start.records[number:]) > 1


def _name_rows(records: list[list[str]]) -> int:
    """Return the number of rows that name the columns: the header, and below it more names or units."""
    found = 1
    while found < min(_MOST_NAME_ROWS, len(records) - _FEWEST_BELOW):
        below = records[found + 1 :]
        fills = found == 1 and _fills_gaps(records[0], records[1], below)
        row = records[found]
        is_one = fills or _names_columns(row, below, surely=found == 1)
        is_one |= found == 1 and _are_widths(row) and not any(map(_are_widths, below))
        if not (is_one or _names_index(records[:found], row, below)):
            break
        found += 1
    return found


def _names_index(header: list[list[str]], row: list[str], below: list[list[str]]) -> bool:
    """Return whether a row has the name of the first column alone, below several rows of the names of others."""
    if len(header) < 2 or any(cells[0].strip() for cells in header) or not any(map(str.strip, row)):
        return False
    rest = any(cell.strip() for cell in row[1:])
    return not (rest or BEGINS_WITH_DIGIT.match(row[0])) and all(any(cells[1:]) for cells in below)


def _are_widths(row: list[str]) -> bool:
    """Return whether a row has the widths of the fields, each with a letter for what it holds."""
    return len(row) > 1 and all(_FIELD_WIDTHS.fullmatch(cell.strip()) for cell in row)


def _fills_gaps(header: list[str], row: list[str], below: list[list[str]]) -> bool:
    """Return whether a row has words where the header lacks names, and no number where all rows have one."""
    gaps = [at for at, name in enumerate(header) if at and not name.strip()]
    named = [at < len(row) and any(map(str.isalpha, row[at])) for at in gaps]
    numeric = [at for at in _numeric_columns(below) if at < len(row)]
    return (
        bool(named and numeric)
        and all(named)
        and not any(BEGINS_WITH_DIGIT.match(row[at]) for at in {*gaps, *numeric})
    )


def _names_columns(row: list[str], below: list[list[str]], *, surely: bool) -> bool:
    """Return whether a row holds names or units: words in columns of nothing but numbers below."""
    numeric = [at for at in _numeric_columns(below) if at < len(row)]
    words = [at for at in numeric if any(c.isalpha() or c in "%-" for c in row[at])]
    words = [at for at in words if row[at].strip() not in MISSING_SPELLINGS]
    if not words or any(BEGINS_WITH_DIGIT.match(row[at]) for at in numeric):
        return False
    if surely and 2 * len(words) < len(numeric):
        return False
    return not any(
        cell.strip() and any(at < len(r) and r[at].strip() == cell.strip() for r in below)
        for at, cell in enumerate(row)
    )


def _numeric_columns(rows: list[list[str]]) -> list[int]:
    """Return the columns whose values all begin with a digit, such as numbers, amounts and dates."""
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < _FEWEST_BELOW - 1:
        return []
    found = []
    for at in range(max(map(len, rows))):
        cells = [row[at].strip() for row in rows if at < len(row)]
        known = [cell for cell in cells if cell not in MISSING_SPELLINGS]
        numbers = sum(BEGINS_WITH_DIGIT.match(cell) is not None for cell in known)
        if known and numbers >= _NUMERIC_SHARE * len(known):
            found.append(at)
    return found


def _names(rows: list[list[str]]) -> list[str]:
    """Return the names of columns that one row gives, or several rows together."""
    header = [cell.strip() for cell in rows[0]]
    if len(rows) == 1 or (len(set(header)) == len(header) and all(header[1:])):
        return rows[0]
    filled = header[:1]
    for name in header[1:]:
        filled.append(name or filled[-1])
    parts = [filled, *rows[1:]]
    width = len(header)
    columns = [[row[at].strip() if at < len(row) else "" for row in parts] for at in range(width)]
    return [" ".join(dict.fromkeys(part for part in column if part)) for column in columns]


def _is_data(records: list[list[str]]) -> bool:
    """Return whether the first row is one of data, so that the file has no header."""
    first, rows = records[0], [row for row in records[1:] if row and row != records[0]]
    if len(rows) < _FEWEST_BELOW or len(first) < 2:
        return False
    numeric = [at for at in _numeric_columns(rows) if at < len(first)]
    recurs = [
        at not in numeric and any(at < len(row) and row[at] == cell for row in rows)
        for at, cell in enumerate(first)
    ]
    if not numeric:
        return all(recurs)
    cells = [first[at].strip() for at in numeric]
    if len(numeric) < len(first):
        known = any(found and cell.strip() for found, cell in zip(recurs, first, strict=True))
        return known and all(map(BEGINS_WITH_DIGIT.match, cells))
    if not look_numeric(cells):
        return not _are_marked_steps(cells) and all(
            look_numeric([cell]) or _has_shape(cell, rows, at) for at, cell in enumerate(cells)
        )
    return not _are_steps([float(cell) for cell in cells])


def _has_shape(cell: str, rows: list[list[str]], at: int) -> bool:
    """Return whether a cell with digits is written like one of those below it, as a date is."""
    shape = _shape(cell)
    below = (at < len(row) and _shape(row[at].strip()) == shape for row in rows)
    return _DIGIT_RUN.search(cell) is not None and any(below)


def _shape(cell: str) -> str:
    return _DIGIT_RUN.sub("0", cell)


def _are_marked_steps(cells: list[str]) -> bool:
    """Return whether the first numbers of cells go up or down, as of a header such as 25 %, 50 %, 75 %.

    Those of a row that begins with a date, and goes on with other values, may do so, too.
    """
    if len(set(map(_shape, cells))) > 1 and any(map(_DATED.match, cells)):
        return False
    found = [float(match[0]) for match in map(_NUMBER.search, cells) if match]
    return _go_one_way(found)


def _are_steps(numbers: Sequence[float]) -> bool:
    """Return whether numbers go up or down, as those of a header do, such as years or wavelengths."""
    sizes = [abs(after - before) for before, after in pairwise(numbers)]
    whole = all(number.is_integer() for number in numbers)
    return _go_one_way(numbers) and (whole or max(sizes) <= _STEP_RATIO * min(sizes))


def _go_one_way(numbers: Sequence[float]) -> bool:
    steps = [after - before for before, after in pairwise(numbers)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def _with_nameless(fields: list[str], rows: list[list[str]]) -> list[str]:
    """Return the names of a header, with an empty one where all rows have one value more.

    It is that of the first column, of row names as R writes them; or of the last ones without a value,
    where rows end with separators.
    """
    below = [row for row in rows if row]
    more = surplus_of(len(fields), below) if len(fields) > 1 else 0
    if more == 1 and any(row[-1].strip() for row in below):
        return ["", *fields]
    return [*fields, *[""] * more]


def _about_above(lines: int) -> Iterator[TableWarning]:
    """Yield the warning about lines above the header."""
    if lines:
        text = "The first line is" if lines == 1 else f"The first {lines} lines are"
        text = f"{text} above the header and skipped."
        yield skipped_warning(text, unless="the table begins there")


def _about_below(lines: int) -> Iterator[TableWarning]:
    """Yield the warning about lines of names or units below the header."""
    if lines > 0:
        text = (
            "The line below the header holds names or units and is skipped."
            if lines == 1
            else f"{lines} lines below the header hold names or units and are skipped."
        )
        yield skipped_warning(text, unless="the rows begin there")


def skipped_warning(text: str, *, unless: str = "") -> TableWarning:
    """Return the warning about lines that are no rows.

    Args:
        text: Sentence that names them.
        unless: Clause in which they would be rows; empty where no option makes them so.
    """
    remedy = f" If {unless}, {READ_ALL}" if unless else ""
    return {"code": "skipped", "column": None, "detail": f"{text}{remedy}"}


def _headerless() -> TableWarning:
    return {
        "code": "numeric_header",
        "column": None,
        "detail": "The first line looks like the rows below it, and was taken for one: the columns have"
        f" no names. If it names the columns, {READ_ALL}",
    }
