"""Counts of the texts of a column, and of those that are numbers, dates and truth values."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.calendar.formats import DAY_S, ISO_DATE
from tabular.calendar.spellings import swapped
from tabular.cells import as_text, missing_cells, timestamps
from tabular.columns import Column, ColumnType
from tabular.formats import ParseOptions
from tabular.ingest.readings import Reading, reading_values, readings
from tabular.notations.units import grouping_mark

MAX_COUNTED = 10_000
"""The most distinct texts of a column that are counted."""

MAX_LEVEL_LENGTH = 128
"""The most characters of a level; a longer text is free text."""

_ORDERED_DATES = 10

_CODE = re.compile(r"'?[+-]?0\d")

_TOTAL = (
    r"^(.* )?(grand |sub-?|sub )?totals?:?$|^(sub|grand )total .*$"
    r"|^(sous-total|zwischensumme|gesamtsumme|subtotale?)( .*)?$"
)


class TextProfile:
    """Counts of the texts of one column, and of those that are numbers, dates and truth values."""

    def __init__(self, name: str, *, options: ParseOptions) -> None:
        self.name = name
        self.options = options
        self.rows = 0
        self.missing = 0
        self.counts: dict[str, int] = {}
        self.overflow = False
        self.long = False
        self.codes = False
        self.native: ColumnType | None = None
        self._base = Column(name=name, na_values=tuple(options.na_values))
        self._readings: list[Reading] | None = None
        self._differing: set[str] = set()
        self._orders: dict[str, DateOrder] = {}
        self._settled: str | None = None
        self._midnight = True
        self._fraction = False
        self._zone = False
        self._is_clock = False
        self.totals = 0
        self.first_total = 0

    @property
    def known(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    def update(self, cells: pa.Array) -> None:
        """Add the cells of some rows."""
        gaps = missing_cells(cells, self._base)
        self.missing += int(gaps.sum())
        if pa.types.is_temporal(cells.type):
            self._update_temporal(cells)
        else:
            if pa.types.is_boolean(cells.type):
                self.native = "boolean"
            text = as_text(cells)
            known = text.filter(pa.array(~gaps))
            if len(known):
                self._update_text(text, known)
        self.rows += len(cells)

    def number_readings(self, *, comma: bool = False) -> list[Reading]:
        """Return the ways to read its cells as numbers, the best first.

        Args:
            comma: True if a comma that may be one of thousands is before decimals.
        """
        found = [r for r in self._readings or () if r.column.type == "number"]
        mark = grouping_mark(self.counts) if len(found) > 1 else ""
        return sorted(
            found,
            key=lambda r: (
                r.bad,
                bool(mark) and r.column.thousands != mark,
                (r.column.decimal == ",") != comma,
            ),
        )

    @property
    def has_decimal_commas(self) -> bool:
        """True if its cells are numbers with decimal commas, and nothing else."""
        found = self.number_readings()
        return bool(found) and not found[0].bad and found[0].column.decimal == ","

    def date_readings(self) -> list[Reading]:
        """Return the ways to read its cells as dates, the best first."""
        found = [r for r in self._readings or () if r.column.type == "datetime"]
        chosen = self._settled
        return sorted(found, key=lambda r: (r.bad, chosen not in (None, r.column.datetime_format)))

    @property
    def ambiguous(self) -> bool:
        """True if its dates may begin with the day or with the month."""
        return self._settled is None and bool(self._either_first())

    @property
    def begins_with_day(self) -> bool | None:
        """True if its dates begin with the day, False if with the month; None if it is not known."""
        found = self.date_readings()
        form = found[0].column.datetime_format if found else None
        if form is None or swapped(form) == form or self.ambiguous:
            return None
        return {"%d": True, "%m": False}.get(form[:2])

    def settle(self, *, day_first: bool | None) -> str | None:
        """Choose one of two formats of dates that may begin with the day or with the month.

        Args:
            day_first: True if all other dates of the table begin with the day, False if with the month;
                None if it is not known.

        Returns:
            The reason of the choice; None where there is none to make, or nothing that tells.
        """
        for form in self._either_first():
            month_first = swapped(form)
            ordered = [self._orders[one].is_certain for one in (form, month_first)]
            if ordered[0] != ordered[1]:
                self._settled, why = (
                    form if ordered[0] else month_first,
                    "in which they are in order",
                )
            elif day_first is not None:
                self._settled, why = (
                    form if day_first else month_first,
                    "as other dates of the table",
                )
            elif "%p" in form:
                self._settled, why = month_first, "as is usual beside AM and PM"
            else:
                continue
            return why
        return None

    def _either_first(self) -> list[str]:
        """Return the formats that begin with the day and fit as well as with the month in front."""
        found = self.date_readings()
        forms = {r.column.datetime_format for r in found if r.bad == found[0].bad}
        return [form for form in self._differing if form in forms and swapped(form) in forms]

    def temporal(self) -> Column:
        """Return the type of a column of dates or times, as its file has them."""
        if self.native != "datetime":
            return Column(name=self.name, missing=self.missing > 0)
        time = "%H:%M:%S" + (".%f" if self._fraction else "") + ("Z" if self._zone else "")
        form = time if self._is_clock else ISO_DATE if self._midnight else f"{ISO_DATE}T{time}"
        return Column(
            name=self.name,
            type="datetime",
            datetime_format=form,
            date_only=self._midnight,
            decimals=None if self._midnight else 6 * self._fraction,
            missing=self.missing > 0,
        )

    def _update_temporal(self, cells: pa.Array) -> None:
        self._is_clock = pa.types.is_time(cells.type)
        dated = pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type)
        self.native = "datetime" if dated or self._is_clock else "number"
        if self.native == "datetime":
            self._zone |= pa.types.is_timestamp(cells.type) and cells.type.tz is not None
            seconds = timestamps(cells)
            seconds = seconds[~np.isnan(seconds)]
            self._midnight &= not self._is_clock and bool((seconds % DAY_S == 0).all())
            self._fraction |= bool((seconds != np.floor(seconds)).any())

    def _update_text(self, text: pa.Array, known: pa.Array) -> None:
        counted = known.value_counts()
        values, counts = counted.field(0), counted.field(1).to_numpy(zero_copy_only=False)
        self._count(values, counts)
        self._count_totals(text, values, counts)
        if self._readings is None:
            self._readings = list(readings(self._base, self.options, values))
        kept = []
        for reading in self._readings:
            bad = np.isnan(reading.values(values))
            reading.name_bad(text, reading.note(values, bad, counts), before=self.rows)
            if reading.fits(self.rows + len(text)):
                kept.append(reading)
        self._readings = kept
        self._compare_dates(known, values)

    def _count(self, values: pa.Array, counts: NDArray[np.int64]) -> None:
        short = pc.less_equal(pc.utf8_length(values), MAX_LEVEL_LENGTH)
        self.long |= not pc.all(short).as_py()
        for value, count in zip(
            values.filter(short).to_pylist(),
            counts[short.to_numpy(zero_copy_only=False)],
            strict=True,
        ):
            if value in self.counts:
                self.counts[value] += int(count)
            elif len(self.counts) < MAX_COUNTED:
                self.counts[value] = int(count)
                self.codes |= _CODE.match(value) is not None and value.lstrip("'+-").isdigit()
            else:
                self.overflow = True

    def _count_totals(self, text: pa.Array, values: pa.Array, counts: NDArray[np.int64]) -> None:
        """Count the cells that name totals of other rows, and note the row of the first."""
        matched = pc.match_substring_regex(values, _TOTAL, ignore_case=True)
        if pc.any(matched).as_py():
            if not self.totals:
                among = pc.is_in(text, value_set=values.filter(matched))
                self.first_total = self.rows + pc.index(among, value=True).as_py() + 1
            self.totals += int(counts[matched.to_numpy(zero_copy_only=False)].sum())

    def _compare_dates(self, text: pa.Array, values: pa.Array) -> None:
        """Find whether days and months could be each other, and whether either way is in order.

        Args:
            text: Texts of some rows.
            values: Distinct ones of these.
        """
        dates = [r.column for r in self._readings or () if r.column.type == "datetime"]
        forms = {column.datetime_format: column for column in dates}
        for form, column in forms.items():
            if form is None or not form.startswith("%d"):
                continue
            if (other := forms.get(swapped(form))) is not None:
                one, two = reading_values(values, column), reading_values(values, other)
                both = ~(np.isnan(one) | np.isnan(two))
                if (one[both] != two[both]).any():
                    self._differing.add(form)
                rows = pc.index_in(text, value_set=values).to_numpy(zero_copy_only=False)
                rows = rows[both[rows]]
                for name, found in ((form, one), (swapped(form), two)):
                    self._orders.setdefault(name, DateOrder()).update(found[rows])


@dataclass
class DateOrder:
    """Order of the dates of a column, as far as they have come: whether they only go up, or only down."""

    steps: int = 0
    last: float = np.nan
    up: bool = True
    down: bool = True

    def update(self, seconds: NDArray[np.float64]) -> None:
        """Add the dates of some rows."""
        steps = np.diff(seconds, prepend=self.last)
        self.up &= not (steps < 0).any()
        self.down &= not (steps > 0).any()
        self.steps += int((steps != 0).sum())
        self.last = seconds[-1] if seconds.size else self.last

    @property
    def is_certain(self) -> bool:
        """True if they are in an order that is hardly one by chance."""
        return (self.up or self.down) and self.steps >= _ORDERED_DATES
