"""Ways to read the cells of a column of text: as numbers with their marks, or as dates in a format."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.calendar.formats import (
    EITHER,
    has_date,
    has_some_digits,
    is_duration,
    language_of,
    languages_of,
    look_like_dates,
)
from tabular.calendar.spellings import likely_formats, swapped, with_zones
from tabular.cells import numbers_of
from tabular.columns import Column
from tabular.dates import parse_dates
from tabular.formats import ParseOptions
from tabular.notations.units import has_one_number, may_have_number, sides_of, units_of
from tabular.numerals import (
    ABBREVIATED,
    CURRENCIES,
    DEGREES,
    FOOTNOTE,
    FRACTIONS,
    MARKED,
    plain_digits,
)

UNREADABLE = 0.05
"""The largest share of the cells of a column of numbers or dates that may be anything else."""

MAX_WORDS = 5
"""The most distinct texts that a larger share of such a column may consist of."""

_EARLIEST_S, _LATEST_S = -14_831_769_600.0, 7_258_118_400.0  # of the years 1500 to 2200
_KEPT_WORDS = 64  # which mean a missing cell in rows that are scored, too
_WORD_SHARE = 0.5
_FEW_CELLS = 10
_MAX_NAMED = 3
_MAX_WORD_LENGTH = 128
_SAMPLE = 64
_FIRST = 8
_MAX_UNITS = 4
_MOST_FORMATS = 4
_SEPARATORS = ((".", ""), (",", ""), (".", ","), (",", "."), (".", "'"), (",", " "), (".", " "))
_MAY_BE_NUMBER = re.compile(r"[(']?[+\-\u2212\u2013]?\s*[.,]?\d|[+-]?inf", re.IGNORECASE)
_MAY_BE_DATE = re.compile(r"\d\d|^[+-]?P[T\d]")
_ABBREVIATION = re.compile(r"\d[.,]?\)?\s?[KMBT]$")
_BARE = re.compile(r"[+-]?[\d.,'\s]+")
_FORMS = {  # of numbers in several parts
    DEGREES: re.compile(
        r"[NSEWO+-]? ?\d{1,3}° ?\d{1,2}(\.\d+)?['\u2019\u2032].*"
        r"|[SW] ?\d{1,3}\.\d+°|\d{1,3}\.\d+° ?[SW]"
    ),
    FRACTIONS: re.compile("[+-]?\\d+([ -]\\d+/\\d+| ?[\u00bc-\u00be\u2153\u2154\u215b-\u215e])"),
}
_SIDED = re.compile(r"\d{1,3}\.\d+ ?[NSEW]")  # degrees, if both sides occur: else N may be newtons
_PLACEHOLDER = re.compile(
    r"[\W_]*|n\.? ?[adv]\.?|nil|none|unknown|unk|missing|not (available|known|recorded)|\(null\)"
    r"|#[¡¿]?[a-z/0À-ÿ]{1,12}[!?]|#n/?[vd]|err:\d{3}|\.[a-z_]",  # of spreadsheets, SAS and Stata
    re.IGNORECASE,
)


@dataclass
class Reading:
    """One way to read the cells of a column, and how many it fits.

    Attributes:
        column: Type of the cells.
        bad: Number of cells that it does not fit.
        words: Distinct texts of these cells, as long as there are at most `_KEPT_WORDS`.
        knows_words: True if `words` are all.
        examples: Rows of the first of these cells, with their texts.
        first: Values of the first texts of the column, while they are not counted yet.
    """

    column: Column
    bad: int = 0
    words: dict[str, None] = field(default_factory=dict)
    knows_words: bool = True
    examples: list[tuple[int, str]] = field(default_factory=list)
    first: NDArray[np.float64] | None = None

    def values(self, text: pa.Array) -> NDArray[np.float64]:
        """Return the values of texts; those of the first ones are known."""
        known, self.first = self.first, None
        return (
            known
            if known is not None and known.size == len(text)
            else reading_values(text, self.column)
        )

    @property
    def few_words(self) -> bool:
        """True if these cells consist of at most `MAX_WORDS` texts."""
        return self.knows_words and len(self.words) <= MAX_WORDS

    @property
    def only_placeholders(self) -> bool:
        """True if all cells that it does not fit stand for no value, such as a dash."""
        return self.knows_words and all(_PLACEHOLDER.fullmatch(word) for word in self.words)

    def note(self, values: pa.Array, bad: NDArray[np.bool_], counts: NDArray[np.int64]) -> pa.Array:
        """Count the distinct cells that it does not fit, and return them.

        Args:
            values: Distinct texts.
            bad: Mask of these that it does not fit.
            counts: Number of cells of each.
        """
        self.bad += int(counts[bad].sum())
        found = values.filter(pa.array(bad))
        for word in found[: _KEPT_WORDS + 1].to_pylist() if self.knows_words else ():
            self.words[word[: _MAX_WORD_LENGTH + 1]] = None
            self.knows_words = len(self.words) <= _KEPT_WORDS and len(word) <= _MAX_WORD_LENGTH
        self.knows_words &= len(found) <= _KEPT_WORDS
        return found

    def name_bad(self, text: pa.Array, bad: pa.Array, *, before: int) -> None:
        """Remember the rows of the first cells that it does not fit.

        Args:
            text: Texts of some rows.
            bad: Distinct ones that it does not fit.
            before: Number of rows before these.
        """
        for value in bad[: _MAX_NAMED - len(self.examples)].to_pylist():
            self.examples.append((before + pc.index(text, value).as_py() + 1, value))

    def fits(self, rows: int) -> bool:
        """Return whether it may still be the one, after this many rows."""
        if self.only_placeholders:
            return True
        share = _WORD_SHARE if self.few_words else UNREADABLE
        return self.bad <= _FEW_CELLS + share * rows

    def tolerates(self, known: int, distinct: int) -> bool:
        """Return whether so few cells are something else that these are gaps, or slips.

        Args:
            known: Number of cells that are not missing.
            distinct: Number of distinct texts.
        """
        if known - self.bad < _FEW_CELLS:
            return False
        if self.only_placeholders or self.bad <= UNREADABLE * known:
            return True
        others = distinct - len(self.words)
        named = others >= max(_FEW_CELLS, 2 * len(self.words))
        return self.few_words and self.bad <= _WORD_SHARE * known and named


def readings(base: Column, options: ParseOptions, values: pa.Array) -> Iterator[Reading]:
    """Yield the ways to read cells that fit the first texts of a column."""
    sample = values[:_SAMPLE]
    numbers = ((c, numbers_of(sample, c)) for c in _number_columns(base, options, sample))
    for column, found in (*numbers, *_date_columns(base, options, sample)):
        bad = np.isnan(found).mean()
        if bad <= max(UNREADABLE * 4, (MAX_WORDS + 0.5) / len(sample)) and bad < 1:
            if options.datetime_format is None and _is_far(found, column):
                continue  # account 4000-10 is no month
            yield Reading(column, first=found if len(sample) == len(values) else None)


def _is_far(found: NDArray[np.float64], column: Column) -> bool:
    """Return whether most dates are of centuries that few tables know."""
    form = column.datetime_format
    if column.type != "datetime" or is_duration(form) or not has_date(form):
        return False
    return not _EARLIEST_S <= float(np.nanmedian(found)) <= _LATEST_S


def reading_values(text: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the values of texts, those of dates in the format of the column alone."""
    if column.type == "datetime":
        return parse_dates(text, column.datetime_format)
    return numbers_of(text, column)


def _number_columns(base: Column, options: ParseOptions, sample: pa.Array) -> Iterator[Column]:
    texts = plain_digits(sample).to_pylist()
    if not any(_MAY_BE_NUMBER.match(text) or may_have_number(text) for text in texts):
        return  # of most columns of text, at little cost
    yield from (replace(base, unit=unit) for unit in _FORMS if _are_some(_FORMS[unit], texts))
    if {text[-1] for text in texts if _SIDED.fullmatch(text)} in ({"N", "S"}, {"E", "W"}):
        yield replace(base, unit=DEGREES)
    if not any(map(has_one_number, texts)):
        return  # of most columns of dates
    units = ["", *units_of(texts[:_FIRST])[:_MAX_UNITS]]
    units += [*sides_of(texts), *[ABBREVIATED] * _are_abbreviated(texts)]
    pairs: Sequence[tuple[str, str]] = _SEPARATORS
    if options.decimal is not None or options.thousands is not None:
        pairs = [(options.decimal or ".", options.thousands or "")]
    bare = sum(_BARE.fullmatch(text) is not None for text in texts)
    are_marked = 2 * bare >= len(texts) and any(map(FOOTNOTE.search, texts))
    for unit in (*sorted(units), *[MARKED] * are_marked):
        for decimal, thousands in pairs:
            yield Column(
                name=base.name,
                na_values=base.na_values,
                decimal=decimal,
                thousands=thousands,
                unit=unit,
            )


def _are_abbreviated(texts: Sequence[str]) -> bool:
    """Return whether numbers end with several signs for powers of a thousand, or only some of them with one."""
    signs = {text[-1:] for text in texts if _ABBREVIATION.search(text)}
    currencies = {text.lstrip("+-")[:1] for text in texts} & set(CURRENCIES)
    some = len(signs) > 1 or (bool(signs) and any(text[-1:].isdigit() for text in texts))
    return some and len(currencies) < 2


def _are_some(pattern: re.Pattern[str], texts: Sequence[str]) -> bool:
    return any(map(pattern.fullmatch, texts))


def _date_columns(
    base: Column, options: ParseOptions, sample: pa.Array
) -> Iterator[tuple[Column, NDArray[np.float64]]]:
    texts = plain_digits(sample).to_pylist()
    if not any(map(_MAY_BE_DATE.search, texts)):
        return  # of most columns of text, at little cost
    stated = options.datetime_format
    # A format fits all texts of a shape, or none, but for the few whose digits are not any.
    shapes = list({re.sub(r"\d", "0", text): text for text in texts}.values())
    found: list[str | None] = [
        named
        for form in (likely_formats(texts) if stated is None else [stated])
        if look_like_dates(texts if has_some_digits(form) else shapes, form)
        for named in _in_languages(texts, form)
    ]
    values = {form: parse_dates(sample, form) for form in found}
    either = _either(values)
    if either is not None:
        values[either] = parse_dates(sample, either)
    if stated is None and all(np.isnan(seconds).all() for seconds in values.values()):
        values |= {form: parse_dates(sample, form) for form in with_zones(texts)}
    for form, seconds in values.items():
        yield (
            Column(name=base.name, type="datetime", na_values=base.na_values, datetime_format=form),
            seconds,
        )


def _in_languages(texts: Sequence[str], form: str | None) -> list[str | None]:
    """Return a format in the languages that the names of its months may be of."""
    if form is None or not ("%b" in form or "%B" in form) or language_of(form)[1] != form:
        return [form]
    return [f"{language}:{form}" for language in languages_of(texts, form)] or [form]


def _either(values: Mapping[str | None, NDArray[np.float64]]) -> str | None:
    """Return some formats that together fit all of some texts, each text one, where none alone does."""
    fits = {form: ~np.isnan(found) for form, found in values.items() if form is not None}
    chosen: list[str] = []
    left = np.ones(len(next(iter(fits.values()), ())), np.bool_)
    while left.any() and len(chosen) < _MOST_FORMATS:
        # A text that two of them fit may be either.
        apart = [form for form in fits if not (fits[form] & ~left).any()]
        best = max(apart, key=lambda form: fits[form].sum(), default=None)
        if best is None or not fits[best].any():
            return None
        chosen.append(best)
        left &= ~fits[best]
    if left.any() or len(chosen) < 2 or _may_be_swapped(chosen, fits):
        return None
    return EITHER.join(chosen)


def _may_be_swapped(chosen: Sequence[str], fits: Mapping[str, NDArray[np.bool_]]) -> bool:
    """Return whether days and months of one of some formats could be each other."""
    for form in chosen:
        turned = fits.get(swapped(form))
        if turned is None or swapped(form) == form:
            continue
        if all(turned[fits[form]]):
            return True
    return False
