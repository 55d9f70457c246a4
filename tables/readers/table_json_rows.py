"""Rows of JSON, lists or objects keyed by column, as columns of float64."""

from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
import orjson

from tables.errors import JsonError, TableError, TableSlug
from tables.formats import ParseOptions
from tables.source import Columns, check_columns, clean_names, default_names
from tables.strict_json import MAX_NUMBER_DIGITS, check_numbers, parse_strict, without_strings

_NUMBERS: Final = frozenset({int, float})
_NUMBERS_AND_NULL: Final = _NUMBERS | {type(None)}
_JSON_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}
_SLUGS: dict[str, TableSlug] = {
    "body-empty": "dataset-empty",
    "json-depth": "json-depth",
    "json-duplicate-key": "json-duplicate-key",
    "json-encoding": "json-encoding",
    "json-nonfinite": "json-nonfinite",
    "json-number": "json-number",
    "json-syntax": "json-syntax",
    "validation": "column-name",
    "value-nonfinite": "dataset-nonfinite",
}


class JsonRows:
    """Turns parsed rows of one table into columns; the first row says what the others must be.

    Attributes:
        names: the columns' names.
        named: whether the rows are objects, or names were given.
        rows: the rows done so far.
    """

    def __init__(self, first: object, *, names: list[str] | None, options: ParseOptions) -> None:
        """Take the shape of the first row.

        Args:
            first: the row; it is not done by this.
            names: what the values of rows that are lists are called, if anything.
            options: how many columns there may be.

        Raises:
            TableError: it is no row, or the names are bad.
        """
        self.rows = 0
        self._keys: list[str] | None = None
        if isinstance(first, dict):
            self._keys = list(first)
        elif not isinstance(first, list):
            raise _misshapen(1, "is neither a list nor an object")
        check_columns(len(first), options=options)
        if names is not None and self._keys is None and len(names) != len(first):
            raise TableError(
                "dataset-shape", f"There are {len(names)} names, but row 1 has {len(first)} values."
            )
        given = names if self._keys is None else self._keys
        self.named = given is not None
        self.names = default_names(len(first)) if given is None else clean_names(given)

    def columns(self, rows: list[Any], text: bytes) -> Columns:
        """Return parsed rows as columns, nulls as not-a-number.

        Args:
            rows: at least one.
            text: what they were parsed from.

        Raises:
            TableError: naming the row, and the column where it can.
        """
        _check_numbers(text)
        lists = self._lists(rows) if self._keys is None else self._ordered(rows)
        kinds = set(map(type, chain.from_iterable(lists)))
        if not kinds <= _NUMBERS_AND_NULL:
            raise self._not_a_number(lists)
        if self._keys is not None:
            _check_keys(text, pairs=len(rows) * len(self._keys))
        try:
            flat = np.fromiter(chain.from_iterable(lists), np.float64, len(lists) * len(self.names))
        except OverflowError:
            raise _too_large() from None
        self.rows += len(rows)
        return np.ascontiguousarray(flat.reshape(len(lists), len(self.names)).T)

    def _lists(self, rows: list[Any]) -> list[list[Any]]:
        width = len(self.names)
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not list:
                raise _misshapen(index, "is not a list, as row 1 is")
            if len(row) != width:
                raise _misshapen(index, f"has {len(row)} value(s) instead of {width}")
        return rows

    def _ordered(self, rows: list[Any]) -> list[Any]:
        keys = self._keys or []
        get = itemgetter(*keys) if len(keys) > 1 else lambda row: (row[keys[0]],)
        ordered = []
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not dict:
                raise _misshapen(index, "is not an object keyed by column, as row 1 is")
            try:
                ordered.append(get(row))
            except KeyError:
                raise self._missing(row, index) from None
            if len(row) != len(keys):
                raise _misshapen(index, f"has {len(row)} members; row 1 has {len(keys)}")
        return ordered

    def _missing(self, row: dict[str, Any], index: int) -> TableError:
        name = next(
            name for key, name in zip(self._keys or [], self.names, strict=True) if key not in row
        )
        return TableError(
            "dataset-shape", f"Row {index} lacks the column {name!r}.", column=name, row=index
        )

    def _not_a_number(self, lists: list[list[Any]]) -> TableError:
        row, column, value = next(
            (row, column, value)
            for row, values in enumerate(lists, self.rows + 1)
            for column, value in enumerate(values)
            if type(value) not in _NUMBERS and value is not None
        )
        name = self.names[column]
        return TableError(
            "dataset-dtype",
            f"Column {name!r}, row {row}: the value is {_JSON_TYPES[type(value)]}, not a number.",
            column=name,
            row=row,
        )


def loads_rows(text: bytes) -> Any:  # noqa: ANN401  JSON is anything
    """Parse a part of a document, quickly when nothing is wrong with it.

    Raises:
        JsonError: the text is not strict JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return parse_strict(text)  # which says what is wrong


def table_error(error: JsonError, *, where: str, row: int | None = None) -> TableError:
    """Return the error of a table for one of JSON."""
    return TableError(_SLUGS[error.slug], f"{where}: {error.detail}", row=row)


def _check_numbers(text: bytes) -> None:
    # Numbers that are far too long are rare: a look at the text's longest run costs little.
    if len(text) > MAX_NUMBER_DIGITS:
        longest = max(map(len, text.replace(b"\n", b",").split(b",")))
        if longest > MAX_NUMBER_DIGITS:
            check_numbers(without_strings(text))


def _check_keys(text: bytes, *, pairs: int) -> None:
    # Each pair has a colon; a name may have some too. More pairs than keys: one came twice.
    if text.count(b":") != pairs and without_strings(text).count(b":") != pairs:
        raise JsonError("json-duplicate-key", "An object names the same key twice.")


def _misshapen(row: int, reason: str) -> TableError:
    return TableError("dataset-shape", f"Row {row} {reason}.", row=row)


def _too_large() -> TableError:
    return TableError("dataset-nonfinite", "A number is too large for a 64-bit float.")
