"""Layout of a CSV file: where its rows begin and end, its separator, and the names of its columns.

A file that a program wrote for people has more than a header and rows: a title or comments above, a
second line of names or one of units below the header, totals and remarks at the end. All of these are
found from the first and the last lines alone.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tabular.errors import TableError
from tabular.formats import DELIMITERS, Delimiter, ParseOptions, TableWarning
from tabular.readers.delimiters import (
    best_delimiter,
    delimiter_of,
    has_brackets,
    joined_blanks,
    quoted_brackets,
    split_line,
    split_rows,
    titles_above,
    without_rules,
)
from tabular.readers.header import (
    BEGINS_WITH_DIGIT,
    Attributes,
    FirstRecords,
    find_attributes,
    find_header,
    find_other_table,
    skipped_warning,
)
from tabular.readers.text import TextFile

BLOCK_BYTES = 512 << 10
"""Bytes of a file that its layout is detected from, at its start and at its end."""

_SNIFFED_BYTES = 64 << 10
_SNIFFED_ROWS = 200
_FEWEST_SNIFFED = 6
_SEPARATOR_LINE = re.compile(rb'(?i)"?sep=([,;\t| ])"?(\r\n|\r|\n)')
_LINES = re.compile(rb"[^\r\n]++(?:\r\n|\r|\n)?|\r\n|\r|\n")
_FIELDS_LINE = re.compile(rb"#[ ]*Fields:[ ]*", re.IGNORECASE)
_COMMENT = re.compile(r"(#|%|//)[ \t]*")
_MOST_FOOTERS = 20
_NEAR_END = 100  # lines
_EMPTY_ROWS = 3  # at the end: fewer are rows without values
_TOTAL = re.compile(
    r"(grand |sub)?totals?|sum|summe|gesamt(summe)?|total g[eé]n[eé]ral|totaux|totale|suma|итого"
    r"|totals?: .{1,40}|((opening|closing|ending) balance|(anfangs|end|schluss)?saldo( final| finale)?|solde( final)?"
    r"|kontostand)( ([ap][mu]|[ad]?al|vom|per|as (of|at)|on|em) \d[\d./-]+)?",
    re.IGNORECASE,
)
_NOTE = re.compile(r"[(\[]?\d{1,2}[)\]] \D")
_COUNT = re.compile(  # as a database writes it below a result
    r"\(?\d[\d,.]* (rows?|records?|zeilen?|datensätze|lignes?|enregistrements?|filas?|righe)\b.*",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Place of the rows in a file, and how they are written.

    Attributes:
        fields: Names in the header, or the values of the first row where there is no header.
        header: True if the file has a header.
        delimiter: Separator of the values.
        quote: Character around values.
        blanks: Separator in the file where it is a run of blanks (any, or two or more), or a bar of a table
            in a frame; it is made one character.
        start: Position of the first row, in bytes.
        stop: Position after the last row; None for the end of the file.
        repeated: Line that is left out wherever it comes again; none where it is empty.
        comments: Start of lines that are left out; none where it is empty.
        rules: True if lines of dashes are left out.
        brackets: True if square brackets quote values.
        warnings: Warnings about what was found.
    """

    fields: list[str]
    header: bool
    delimiter: Delimiter
    quote: str = '"'
    blanks: re.Pattern[bytes] | None = None
    start: int = 0
    stop: int | None = None
    repeated: bytes = b""
    comments: bytes = b""
    rules: bool = False
    brackets: bool = False
    warnings: list[TableWarning] = field(default_factory=list)

    @property
    def is_aligned(self) -> bool:
        """True if a run of blanks separates the values, so that a missing one cannot be told."""
        return self.blanks is not None and self.delimiter != "|"


@dataclass(frozen=True, kw_only=True)
class _Marks:
    """Separator of the values, the character around them, and the position of the first line."""

    delimiter: Delimiter
    quote: str
    blanks: re.Pattern[bytes] | None
    offset: int
    rules: bool
    brackets: bool


@dataclass(frozen=True)
class _End:
    """Position after the last row, None at the end of the file, and the number of lines after it."""

    stop: int | None
    footers: int


def find_layout(text: TextFile, options: ParseOptions) -> Layout:
    """Return the layout of a file.

    Raises:
        TableError: The file is empty, its first line is too long, or its quotes do not match.
    """
    start, whole = text.start(BLOCK_BYTES)
    offset = text.mark
    delimiter = options.delimiter
    if delimiter is None and (said := _SEPARATOR_LINE.match(start)):
        delimiter = DELIMITERS[[mark.encode() for mark in DELIMITERS].index(said[1])]
        offset += said.end()
        start = start[said.end() :]
    # In quotes a line of dashes may be part of a cell.
    rules = delimiter is None and options.header and not text.quotes
    if delimiter is None and options.header and (found := find_attributes(start)):
        return _attributed(text, found, start, offset)
    content = _from_a_row(start, rules=rules)
    offset += len(start) - len(content)
    if not content.strip():
        raise TableError("dataset-empty", "The file is empty.")
    above = 0
    if delimiter is None and options.header:
        skipped, above = _above(content, rules=rules)
        offset += skipped
        content = content[skipped:]
    lines = _first_lines(content, whole=whole)
    if not lines:
        return _one_line(content, delimiter or ",", options)
    blanks = None
    if delimiter is None:
        delimiter, blanks = delimiter_of(_decoded(lines, rules=rules))
    quote = _quote_of(lines[0], delimiter)
    marks = _Marks(
        delimiter=delimiter,
        quote=quote,
        blanks=blanks,
        offset=offset,
        rules=rules,
        brackets=delimiter == " " and has_brackets(_decoded(lines, rules=rules)),
    )
    return _found(text, options, lines, marks, above)


def _attributed(text: TextFile, found: Attributes, start: bytes, offset: int) -> Layout:
    """Return the layout of a file whose names are in lines of their own."""
    begin, rows = offset + found.end, start[found.end :]
    holds_comments = text.holds(b"\n%", after=begin - 1)
    return Layout(
        fields=found.names,
        header=True,
        delimiter=best_delimiter(_decoded(_first_lines(rows, whole=True), rules=False))[0],
        quote="'" if b"'" in rows and b'"' not in rows else '"',
        start=begin,
        comments=b"%" if holds_comments else b"",
        warnings=[found.warning()],
    )


def _one_line(content: bytes, delimiter: Delimiter, options: ParseOptions) -> Layout:
    """Refuse a first line that is longer than what is looked at."""
    columns = content.count(delimiter.encode()) + 1
    if columns > options.max_columns:
        raise TableError(
            "limit-columns",
            f"The table has {columns} columns; at most {options.max_columns} are allowed.",
        )
    raise TableError("dataset-parse", f"A line is longer than {BLOCK_BYTES >> 10} KiB.")


def _found(
    text: TextFile, options: ParseOptions, lines: list[bytes], marks: _Marks, above: int
) -> Layout:
    if options.header and lines[0].count(0) * 3 > len(lines[0]):
        raise TableError(
            "dataset-encoding", "The header holds NUL bytes; CSV must be UTF-8, not UTF-16."
        )
    start = _records(lines, marks)
    head = find_header(start, options, above=above)
    rows = head.first + head.names
    begin = marks.offset + (start.ends[rows - 1] if rows else 0)
    repeated = b""
    words = sum(not BEGINS_WITH_DIGIT.match(name) for name in head.fields)
    if head.names == 1 and len(head.fields) > 1 and 2 * words > len(head.fields):
        before = start.ends[head.first - 1] if head.first else 0
        header = b"".join(lines)[before : begin - marks.offset].strip(b"\r\n")
        repeated = header if text.holds(header, after=begin) else b""
    end = _End(stop=None, footers=0)
    other = None
    if options.header and options.delimiter is None:
        other = find_other_table(text, begin, head.fields, start.records[rows:], marks.delimiter)
    if other is not None:
        end = _End(stop=other.stop, footers=0)
    elif options.header and options.delimiter is None:
        below = start.records[rows:-_MOST_FOOTERS]
        end = _end(text, below, width=len(head.fields), marks=marks)
    if end.stop is not None and end.stop <= begin:
        end = _End(stop=None, footers=0)
    return Layout(
        fields=head.fields,
        header=head.names > 0,
        delimiter=marks.delimiter,
        quote=marks.quote,
        blanks=marks.blanks,
        start=begin,
        stop=end.stop,
        repeated=repeated,
        comments=_comments(text, begin) if above > 0 and not text.quotes else b"",
        brackets=marks.brackets,
        rules=marks.rules
        and len(head.fields) > 1
        and any(without_rules(line)[1] for line in lines),
        warnings=[
            *head.warnings,
            *_about_footers(end.footers),
            *([] if other is None else [other.warning()]),
        ],
    )


def _comments(text: TextFile, begin: int) -> bytes:
    """Return the start of comments, if a file begins with one and has more of them between its rows."""
    mark = _COMMENT.match(text.start(2)[0].decode(errors="replace"))
    if mark is None:
        return b""
    start = mark[1].encode()
    return start if any(text.holds(end + start, after=begin - 1) for end in (b"\n", b"\r")) else b""


def _records(lines: list[bytes], marks: _Marks) -> FirstRecords:
    ends = list(accumulate(map(len, lines)))
    shown = lines
    if marks.blanks is not None:
        shown = [joined_blanks(line, marks.blanks, marks.delimiter) for line in lines]
    elif marks.brackets:
        shown = list(map(quoted_brackets, lines))
    reader = csv.reader(
        _decoded(shown, rules=marks.rules),
        delimiter=marks.delimiter,
        quotechar=marks.quote,
        skipinitialspace=marks.delimiter != " ",
    )
    records, positions = [], []
    try:
        for record in reader:
            records.append(record)
            positions.append(ends[reader.line_num - 1])
    except csv.Error:
        pass
    unclosed = len(records) == 1 < len(lines) and positions[0] > ends[0]
    if unclosed or not records or not records[0]:
        raise TableError("dataset-parse", "The quotes of the first line do not match.")
    return FirstRecords(records, positions)


def _from_a_row(content: bytes, *, rules: bool) -> bytes:
    """Return content from its first line that is not blank, nor a rule where these are no rows."""
    content = content.lstrip(b"\r\n")
    while rules and (line := _LINES.match(content)) and without_rules(line[0])[1]:
        content = content[line.end() :].lstrip(b"\r\n")
    return content


def _above(content: bytes, *, rules: bool) -> tuple[int, int]:
    """Return the bytes and the lines above a header: comments, or a title and the like."""
    lines = _first_lines(content, whole=True)
    above, mark = _lines_above(_decoded(lines, rules=rules))
    position = sum(map(len, lines[:above]))
    position = len(content) - len(_from_a_row(content[position:], rules=rules))
    return position + mark, above


def _lines_above(lines: list[str]) -> tuple[int, int]:
    """Return the number of lines above a header, and the bytes in it before the names."""
    mark = _COMMENT.match(lines[0])
    if mark is None:
        return titles_above(lines), 0
    comments = next((n for n, line in enumerate(lines) if not line.startswith(mark[1])), 0)
    if comments == 0:
        return titles_above(lines), 0
    delimiter, (_, width) = best_delimiter(lines[comments:])
    last = lines[comments - 1].encode()
    before = [found.end() if (found := _FIELDS_LINE.match(last)) else 0]
    if before == [0] and (names := _COMMENT.match(last.decode())):
        before.append(names.end())
    for start in before:
        row = split_rows([last[start:].decode()], delimiter)
        if width > 1 and len(row[0]) == width:
            return comments - 1, start
    return comments, 0


def _end(text: TextFile, rows: list[list[str]], *, width: int, marks: _Marks) -> _End:
    """Return where the rows end, of which some are given: before totals and remarks."""
    found = _End(stop=None, footers=0)
    if width < 2:
        return found
    end = text.end(_SNIFFED_BYTES)
    short = any(row and not any(map(str.strip, row[1:])) for row in rows)
    position, named, empty = text.size, 0, 0
    lines = _LINES.findall(end)[1:][::-1]
    blank = [not line.strip() for line in lines]
    apart = sum(blank[1:_NEAR_END]) == 1  # a single blank line parts the rows from what is below
    for number, line in enumerate(lines):
        row = line
        if marks.blanks is not None:
            row = joined_blanks(line, marks.blanks, marks.delimiter)
        shown = row.decode(errors="replace").rstrip("\r\n")
        cells = split_line(shown, marks.delimiter, marks.quote)
        kind = None if cells is None else _footer(cells, width=width, short=short)
        if (
            kind is None
            and cells
            and not cells[0].strip()
            and apart
            and blank[number + 1 :][:1] == [True]
        ):
            kind = "named"  # totals without a word
        named += kind == "named"
        empty += kind == "empty" and bool(cells)
        if named > _MOST_FOOTERS:
            return _End(stop=None, footers=0)  # so many are rows
        if kind is None:
            break
        position -= len(line)
        if named or empty >= _EMPTY_ROWS:  # what is empty above totals parts them from the rows
            found = _End(position, named + empty)
    return found


def _footer(cells: list[str], *, width: int, short: bool) -> str | None:
    """Return the kind of a line at the end that is no row: without values, or a rule, total or remark."""
    known = [cell.strip() for cell in cells if cell.strip()]
    if not known:
        return "empty"
    if not any(cell.strip("-=+|: ") for cell in known):
        return "rule"  # no row by itself, but there may be totals above it
    marked = [cell for cell in known if cell.strip("*")]  # totals of SAP have stars in front
    if marked and _TOTAL.fullmatch(marked[0].rstrip(": ")) and len(known) > 1:
        return "named"
    if len(known) == 1 and _COUNT.fullmatch(known[0]):
        return "named"
    remark = known == [cells[0].strip()] and width > 2 and not short
    begins = BEGINS_WITH_DIGIT.match(known[0]) and not _NOTE.match(known[0])
    return "named" if remark and not begins and len(known[0].split()) > 1 else None


def _quote_of(line: bytes, delimiter: Delimiter) -> str:
    """Return the character around values: an apostrophe if all names are in such."""
    cells = line.strip().split(delimiter.encode())
    single = all(len(c) > 2 and c.startswith(b"'") and c.endswith(b"'") for c in cells)
    return "'" if single and b'"' not in line else '"'


def _first_lines(content: bytes, *, whole: bool) -> list[bytes]:
    """Return the first lines of a file, with their ends; blank ones included."""
    lines: list[bytes] = []
    size = 0
    for match in _LINES.finditer(content):
        if size >= _SNIFFED_BYTES and len(lines) >= _FEWEST_SNIFFED:
            break
        if len(lines) > _SNIFFED_ROWS or (match.end() == len(content) and not whole):
            break
        lines.append(match[0])
        size += len(match[0])
    return lines


def _decoded(lines: Sequence[bytes], *, rules: bool) -> list[str]:
    """Return lines as text, with a blank one for each rule that is no row."""
    if rules:
        lines = [b"\n" if without_rules(line)[1] else line for line in lines]
    texts = (line.decode(errors="replace") for line in lines)
    return [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]


def _about_footers(lines: int) -> Iterator[TableWarning]:
    """Yield the warning about lines below the rows."""
    if lines:
        text = "The last line is" if lines == 1 else f"The last {lines} lines are"
        text = f"{text} skipped: a total, a remark or a line without values."
        yield skipped_warning(text, unless="it is one" if lines == 1 else "they are rows")
