"""Counts of the texts of a column, and of those that are numbers and dates in one style or another."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.cells import as_text, folded, missing_cells, timestamps
from tabular.columns import Column
from tabular.dates import DAY_S, FORMATS, ISO_DATE, has_date, has_short_year, has_time, parse_dates
from tabular.formats import ParseOptions
from tabular.numbers import is_code, likely_styles, parse_numbers
from tabular.words import PLACEHOLDER

MAX_COUNTED = 10_000
"""The most distinct texts of a column that are counted."""

MAX_LEVEL_LENGTH = 128
"""The most characters of a level; a longer text is free text."""

_SAMPLE = 64
_MOST_TEXTS = 5_000  # that are looked through for marks of numbers
_MAX_WORDS = 64  # distinct texts without a value that are named
_MAX_WORD_LENGTH = 128
_ZONE = re.compile(r" ?(?:[+-]\d\d:?\d\d|Z|UTC|GMT)$")
_MOMENT = datetime(2001, 5, 25, 13, 45, 59, tzinfo=UTC)  # has two digits in each part but the month
_EARLIEST_S, _LATEST_S = -14_831_769_600.0, 7_258_118_400.0  # of the years 1500 to 2200


@dataclass
class Reading:
    """One way to read the texts of a column as values, and how many it fits.

    Attributes:
        column: Type of the column, with the style of its numbers or the format of its dates.
        bad: Number of cells that it does not fit.
        words: Distinct texts of these cells, as long as all stand for no value, such as a dash.
        others: Number of these cells that may mean more.
        example: Text of the first of these cells that may mean more, or else of the first of all.
        row: Its row, where it may mean more and is known.
        latest: Largest value.
        total: Sum of the dates, by which two readings differ.
    """

    column: Column
    bad: int = 0
    words: dict[str, None] = field(default_factory=dict)
    others: int = 0
    example: str | None = None
    row: int | None = None
    latest: float = -np.inf
    total: float = 0.0

    @property
    def is_number(self) -> bool:
        """True if the values are numbers, False if they are dates."""
        return self.column.type == "number"

    def values(self, texts: pa.Array) -> NDArray[np.float64]:
        """Return the value of each text, not-a-number where it has none."""
        column = self.column
        if self.is_number:
            return parse_numbers(texts, column)
        return parse_dates(texts, column.datetime_format, first_year=column.first_year)

    def update(
        self, texts: pa.Array | None, distinct: pa.Array, counts: NDArray[np.int64], before: int
    ) -> None:
        """Add the cells of some rows.

        Args:
            texts: Texts of the rows; None where their order is not known.
            distinct: Distinct ones of the known cells.
            counts: Number of cells of each of these.
        """
        values = self.values(distinct)
        bad = np.isnan(values)
        self.latest = max(self.latest, np.nanmax(values, initial=-np.inf))
        if not self.is_number:
            self.total += float(np.nansum(values * counts))
        if not bad.any():
            return
        self.bad += int(counts[bad].sum())
        found = zip(distinct.filter(pa.array(bad)).to_pylist(), counts[bad].tolist(), strict=True)
        for place, (word, count) in enumerate(found):
            if place < _MAX_WORDS and len(word) <= _MAX_WORD_LENGTH and PLACEHOLDER.fullmatch(word):
                self.words[word] = None
                self.example = self.example or word
                continue
            if not self.others:
                self.example = word[:_MAX_WORD_LENGTH]
                self.row = None if texts is None else before + pc.index(texts, word).as_py() + 1
            self.others += count


class TextProfile:
    """Counts of the texts of one column, and of those that are numbers, dates and truth values.

    Attributes:
        native: Type that the file states: truth values, or dates, times and durations; None for text.
        counts: Number of cells of each text, of `MAX_COUNTED` at most.
        overflow: True if there are more texts.
        long: True if some are too long for a level.
        codes: True if some are digits that begin with a zero.
        merged: True if texts that differ in case or blanks alone are counted as one.
        last: Text of the last row.
    """

    def __init__(self, name: str, *, options: ParseOptions) -> None:
        self.name = name
        self.options = options
        self.rows = 0
        self.missing = 0
        self.counts: dict[str, int] = {}
        self.overflow = self.long = self.codes = self.merged = False
        self.last = ""
        self.native: Column | None = None
        self._readings: list[Reading] = []

    @property
    def column(self) -> Column:
        """What is known of the column but its type."""
        gaps = tuple(self.options.na_values)
        return Column(name=self.name, na_values=gaps, missing=self.missing > 0, merged=self.merged)

    @property
    def known(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    @property
    def is_free(self) -> bool:
        """True if some texts are no levels: there are too many, or they are too long."""
        return self.overflow or self.long

    @property
    def readings(self) -> list[Reading]:
        """The ways to read at least half of its cells, the best first."""
        return sorted(self._readings, key=lambda reading: (reading.others, reading.bad))

    def by_count(self) -> list[str]:
        """Return the texts, the most frequent first."""
        return sorted(self.counts, key=lambda text: (-self.counts[text], text))

    def spellings(self) -> list[list[str]]:
        """Return the texts in groups that differ in case or blanks alone, the most frequent first."""
        texts = self.by_count()
        groups: dict[str, list[str]] = {}
        for key, text in zip(folded(pa.array(texts, pa.string())).to_pylist(), texts, strict=True):
            groups.setdefault(key, []).append(text)
        return list(groups.values())

    def merge(self) -> None:
        """Count texts that differ in case or blanks alone as the most frequent of them."""
        self.merged = True
        self.counts = {
            texts[0]: sum(self.counts[text] for text in texts) for texts in self.spellings()
        }

    def update(self, cells: pa.Array) -> None:
        """Add the cells of some rows."""
        before = self.rows
        gaps = missing_cells(cells, self.column)
        self.missing += int(gaps.sum())
        self.rows += len(cells)
        if pa.types.is_temporal(cells.type):
            self.native = _temporal(cells, self.native or Column(name=self.name, date_only=True))
            self.native = replace(self.native, missing=self.missing > 0)
            return
        if pa.types.is_boolean(cells.type):
            self.native = Column(name=self.name, type="boolean")
        text = as_text(cells)
        self.last = text[-1].as_py() or "" if len(text) else self.last
        known = text.filter(pa.array(~gaps))
        if len(known):
            self._update_text(text, known, before)

    def _update_text(self, text: pa.Array, known: pa.Array, before: int) -> None:
        counted = known.value_counts()
        distinct, counts = counted.field(0), counted.field(1).to_numpy(zero_copy_only=False)
        some_fitted = any(not reading.others for reading in self._readings)
        is_first = not self.counts
        self._count(distinct, counts)
        if is_first:
            columns = _likely_columns(self.column, self.options, distinct)
            self._readings = [Reading(column) for column in columns]
        for reading in self._readings:
            reading.update(text, distinct, counts, before)
        none_fits = all(reading.others for reading in self._readings)
        if none_fits and (some_fitted or not self._readings) and not is_first and not self.is_free:
            self._read_again(distinct)
        self._readings = [r for r in self._readings if 2 * r.others <= self.known]

    def _read_again(self, distinct: pa.Array) -> None:
        """Add ways to read that the first texts did not show, such as commas in the first large numbers."""
        texts = pa.array(self.counts.keys(), pa.string())
        counts = np.array(list(self.counts.values()), np.int64)
        for column in _likely_columns(self.column, self.options, distinct):
            if all(reading.column != column for reading in self._readings):
                self._readings.append(Reading(column))
                self._readings[-1].update(None, texts, counts, 0)

    def _count(self, distinct: pa.Array, counts: NDArray[np.int64]) -> None:
        if self.overflow:
            return
        short = pc.less_equal(pc.utf8_length(distinct), MAX_LEVEL_LENGTH)
        self.long |= not pc.all(short).as_py()
        known = counts[short.to_numpy(zero_copy_only=False)].tolist()
        for value, count in zip(distinct.filter(short).to_pylist(), known, strict=True):
            if value in self.counts:
                self.counts[value] += count
            elif len(self.counts) < MAX_COUNTED:
                self.counts[value] = count
                self.codes |= is_code(value)
            else:
                self.overflow = True


def _temporal(cells: pa.Array, before: Column) -> Column:
    """Return the type of a column of dates, times or durations, from the type of the rows before and some more."""
    is_clock = pa.types.is_time(cells.type)
    if not (is_clock or pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type)):
        return Column(name=before.name)
    seconds = timestamps(cells)
    seconds = seconds[~np.isnan(seconds)]
    date_only = before.date_only and not is_clock and bool((seconds % DAY_S == 0).all())
    decimals = 6 if before.decimals or bool((seconds != np.floor(seconds)).any()) else 0
    is_zoned = pa.types.is_timestamp(cells.type) and cells.type.tz is not None
    time = f"%H:%M:%S{'.%f' if decimals else ''}{'Z' if is_zoned else ''}"
    return Column(
        name=before.name,
        type="datetime",
        datetime_format=time if is_clock else ISO_DATE if date_only else f"{ISO_DATE}T{time}",
        date_only=date_only,
        decimals=None if date_only else decimals,
    )


def _likely_columns(base: Column, options: ParseOptions, distinct: pa.Array) -> Iterator[Column]:
    """Yield the types, as numbers and as dates, that half of some texts fit."""
    base = replace(base, missing=False)
    every = distinct[:_MOST_TEXTS].to_pylist()
    sample = [text for text in every[: 2 * _SAMPLE] if not PLACEHOLDER.fullmatch(text)][:_SAMPLE]
    texts = pa.array(sample, pa.string())
    if not any(map(re.compile(r"\d|inf", re.IGNORECASE).search, sample)):
        return  # of most columns of text, at little cost
    for decimal, thousands, affix in _styles(options, every):
        column = replace(base, decimal=decimal, thousands=thousands, unit=affix)
        if 2 * np.isnan(parse_numbers(texts, column)).sum() <= len(texts):
            yield column
    year = datetime.now(UTC).year - 99
    for form in _formats(options, sample):
        short = year if has_short_year(form) else None
        seconds = parse_dates(texts, form, first_year=short)
        if 2 * np.isnan(seconds).sum() > len(texts):
            continue
        is_found = options.datetime_format is None and has_date(form)
        if is_found and not _EARLIEST_S <= float(np.nanmedian(seconds)) <= _LATEST_S:
            continue  # account 4000-10 is no month
        only = form is not None and not has_time(form)
        yield replace(base, type="datetime", datetime_format=form, date_only=only, first_year=short)


def _styles(options: ParseOptions, texts: Sequence[str]) -> dict[tuple[str, str, str], None]:
    """Return the styles that numbers may have, with the marks that the caller states."""
    found = list(likely_styles(texts))
    if options.decimal is not None or options.thousands is not None:
        found = [(options.decimal or ".", options.thousands or "", affix) for *_, affix in found]
    return dict.fromkeys(found)


def _formats(options: ParseOptions, texts: Sequence[str]) -> Sequence[str | None]:
    """Return the formats in which some texts may be dates, by their digits, letters and signs."""
    if options.datetime_format is not None:
        return [options.datetime_format]
    shapes = {_shape(text) for text in texts}
    return [form for form in FORMATS if _FORMAT_SHAPES[form] & shapes]


def _shape(text: str) -> str:
    """Return a text with one digit and one letter for each run of them, and no zone."""
    return re.sub(r"[A-Za-z]+", "a", re.sub(r"\d+", "0", _ZONE.sub("", text)))


_ISO_SHAPES = {_shape("2001-05-25")} | {
    _shape(f"2001-05-25{between}13:45{seconds}")
    for between in "T "
    for seconds in ("", ":59", ":59.5", ":59,5")
}
_FORMAT_SHAPES = {
    form: _ISO_SHAPES if form is None else {_shape(_MOMENT.strftime(form))} for form in FORMATS
}
