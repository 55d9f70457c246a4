"""Separators of the values of a CSV file, detected from its first lines."""

import csv
import re
from collections.abc import Sequence

from tabular.formats import DELIMITERS, Delimiter
from tabular.source import look_numeric

EVEN = 0.5
"""Share of rows with as many values as the first, from which on a separator is one."""

RULE = re.compile(rb"(?m)(?:^|(?<=\r))([-=+|: ]++)(?:\r\n|\r|\n|\Z)")
"""Line that may be a rule between the rows of a printed table."""

# The first value of a line in square brackets, before any in quotes.
_BRACKETS = re.compile(rb'(?m)((?:^|(?<=\r))(?:[^"\[\r\n]* )?)(\[[^\[\]"\r\n]*+\])(?=[ \r\n]|\Z)')
_FRAME = re.compile(
    rb"(?:(?<![ \t])[ \t]*+)?\|[ \t]*+"
)  # of a table whose lines begin and end with a bar
_BLANKS = (re.compile(rb"[ \t]+"), re.compile(rb"[ \t]*(?:  |\t)[ \t]*"))
_FEWEST_ROWS = 4
_SURELY_EVEN = 0.99  # share of rows with as many values as the first
_MOST_ABOVE, _FEWEST_BELOW = 20, 4


def without_rules(lines: bytes) -> tuple[bytes, int]:
    """Return lines without those that are rules, such as `|---|---|`, and the number of these."""
    if not (b"---" in lines or b"===" in lines):
        return lines, 0
    found = 0

    def kept(line: re.Match[bytes]) -> bytes:
        nonlocal found
        if is_rule := b"---" in line[1] or b"===" in line[1]:
            found += 1
        return b"" if is_rule else line[0]

    return RULE.sub(kept, lines), found


def has_brackets(lines: Sequence[str]) -> bool:
    """Return whether all lines have a value in square brackets with a space in it, as times in logs are."""
    known = [line for line in lines if line.strip()]
    found = [_BRACKETS.match(line.encode()) for line in known]
    return bool(known) and all(match is not None and b" " in match[2] for match in found)


def quoted_brackets(lines: bytes) -> bytes:
    """Return lines with quotes around the first value in square brackets of each."""
    return _BRACKETS.sub(rb'\1"\2"', lines)


def joined_blanks(lines: bytes, separator: re.Pattern[bytes], delimiter: Delimiter) -> bytes:
    """Return lines whose values are separated by runs of blanks with one separator instead."""
    # A run is one match wherever it ends: a pattern that looks for the end of the line first would be
    # quadratic on a long one.
    mark = delimiter.encode()
    joined = separator.sub(mark, lines)
    return re.sub(rb"(?m)^%b|(?<=\r)%b|%b(?=[\r\n]|\Z)" % ((re.escape(mark),) * 3), b"", joined)


def split_line(line: str, delimiter: Delimiter, quote: str = '"') -> list[str] | None:
    """Return the values of one line, None where its quotes do not match."""
    spaces = delimiter != " "
    try:
        rows = list(
            csv.reader(
                [line], delimiter=delimiter, quotechar=quote, skipinitialspace=spaces, strict=True
            )
        )
    except csv.Error:
        return None
    return rows[0] if rows else []


def delimiter_of(lines: list[str]) -> tuple[Delimiter, re.Pattern[bytes] | None]:
    """Return the separator that splits the first rows evenly; a run of blanks if no other does."""
    known = [line.strip() for line in lines if line.strip()]
    framed = [len(line) > 1 and line.startswith("|") and line.endswith("|") for line in known]
    if sum(framed) > max(_FEWEST_ROWS, len(known) - _FEWEST_ROWS) and all(framed[:_FEWEST_ROWS]):
        return "|", _FRAME
    delimiter, (share, _) = best_delimiter(lines)
    if share >= EVEN:
        return delimiter, None
    for separator in _BLANKS:
        if _some_even([joined_blanks(line.encode(), separator, "\t").decode() for line in lines]):
            return "\t", separator
    return delimiter, None


def _some_even(lines: list[str]) -> bool:
    rows = [row for row in split_rows(lines, "\t") if row]
    widths = {len(row) for row in rows}
    return (
        len(rows) > _FEWEST_ROWS and len(widths) == 1 and widths != {1} and _some_numeric(rows[1:])
    )


def best_delimiter(lines: list[str]) -> tuple[Delimiter, tuple[float, int]]:
    """Return the separator that splits lines into equally many values, and how well it does."""
    lines = [line for line in lines if line.strip("\n")]
    found: Delimiter = ","
    best = (0.0, 1)
    for delimiter in DELIMITERS:
        score = _evenness(lines, delimiter)
        if score > best:
            found, best = delimiter, score
    return found, best


def titles_above(lines: list[str]) -> int:
    """Return the number of lines of a title and the like above a header."""
    if best_delimiter(lines)[1][0] >= EVEN or _lacks_a_name(lines):
        return 0
    found, widest = 0, 1
    for above in range(1, min(_MOST_ABOVE, len(lines) - _FEWEST_BELOW) + 1):
        if lines[above].strip():
            share, width = best_delimiter(lines[above:])[1]
            # Commas of decimals may split the last lines of a title as evenly, but into fewer values.
            if share >= _SURELY_EVEN and width > widest:
                found, widest = above, width
    return found


def _lacks_a_name(lines: list[str]) -> bool:
    """Return whether all rows have one value more than the header, by some separator.

    So have numbers with a unit behind a blank, below the name of one column.
    """
    lines = [line for line in lines if line.strip()]
    words = split_rows(lines, " ")
    if len(words) > _FEWEST_ROWS and len(words[0]) == 1 and {len(row) for row in words[1:]} == {2}:
        return not any(re.match(r"\W*\d", row[1]) for row in words[1:])
    return any(
        len(rows) > 1 and len(rows[0]) > 1 and surplus_of(len(rows[0]), rows[1:]) > 0
        for rows in (split_rows(lines, delimiter) for delimiter in DELIMITERS)
    )


def surplus_of(width: int, rows: list[list[str]]) -> int:
    """Return by how many values all rows are longer than a header: by one, or by some without a value.

    Args:
        width: Number of names in the header.
        rows: Values of the rows.

    Returns:
        The number; 0 if there is none.
    """
    widths = {len(row) for row in rows}
    more = max(widths, default=0) - width
    if len(widths) != 1 or more < 1:
        return 0
    return more if more == 1 or not any(cell.strip() for row in rows for cell in row[width:]) else 0


def split_rows(lines: list[str], delimiter: Delimiter) -> list[list[str]]:
    """Return the values of lines; nothing where they cannot be read."""
    try:
        return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != " "))
    except csv.Error:
        return []


def _evenness(lines: list[str], delimiter: Delimiter) -> tuple[float, int]:
    """Return the share of rows with as many values as the first, and this number, if it is above one.

    A header may lack one name, or those of values that no row has.
    """
    rows = split_rows(lines, delimiter)
    width = len(rows[0]) if rows else 0
    if width < 2:
        return (0.0, 0)
    if more := surplus_of(width, rows[1:]):
        rows, width = rows[1:], width + more
    share = sum(len(row) == width for row in rows) / len(rows)
    if delimiter == " " and not (share == 1.0 and _some_numeric(rows[1:])):
        return (0.0, 0)  # words have spaces, too
    if delimiter == " " and len(rows) > _FEWEST_ROWS and not all(map(any, zip(*rows, strict=True))):
        return (0.0, 0)  # equally long runs of blanks
    return (share, width)


def _some_numeric(rows: list[list[str]]) -> bool:
    """Return whether some column holds numbers alone, after the first row."""
    return bool(rows) and any(look_numeric(list(column)) for column in zip(*rows, strict=True))
