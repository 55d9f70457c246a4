"""Columns of numbers: their marks and units, spikes and scales."""

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tabular.cells import encode_cells
from tabular.ingest.numbers import MAX_SPIKES, choose_transform, find_spikes
from tabular.numerals import format_numbers
from tests.tables.columns import column_of, read

RANDOM = np.random.default_rng(0)


def test_numbers_of_different_units_are_not_compared():
    found = column_of([f"{'$€£'[i % 3]}{i * 7.5:.2f}" for i in range(40)])
    assert found.column.type == "ignored"
    assert "different units ($, €, £)" in found.reason


def test_amounts_of_several_currencies_in_millions_are_not_compared():
    cells = [f"{'$€'[i % 2]}{i}.50{'BM'[i % 3 == 0]}" for i in range(40)]
    assert column_of(cells).column.type == "ignored"


def test_commas_are_of_thousands_unless_another_column_has_decimal_commas():
    header = b"a;b\n"
    rows = b"".join(b"%d,%03d;%d,5\n" % (i % 9 + 1, i, i) for i in range(30))
    assert read(header + rows)[1][1, 0] == 2.001
    rows = b"".join(b"%d,%03d;%d.5\n" % (i % 9 + 1, i, i) for i in range(30))
    assert read(header + rows)[1][1, 0] == 2001.0
    assert read(header + rows, thousands=",")[1][1, 0] == 2001.0


def test_spikes_stand_out_of_what_is_beside_them():
    values = RANDOM.normal(size=20_000)
    assert find_spikes(values) == []
    assert find_spikes(RANDOM.poisson(30, 20_000).astype(float)) == []
    zeros = np.where(RANDOM.random(20_000) < 0.1, 0.0, np.exp(values))
    sentinels = np.where(RANDOM.random(20_000) < 0.02, -999.0, zeros)
    assert find_spikes(sentinels) == [-999.0, 0.0]
    round_ones = np.where(RANDOM.random(20_000) < 0.9, np.round(values, 1), values)
    assert len(find_spikes(round_ones)) <= MAX_SPIKES


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RANDOM.normal(size=5000), "none"),
        (RANDOM.random(5000), "none"),
        (RANDOM.normal(100, 3, size=5000), "none"),
        (np.exp(RANDOM.normal(size=5000)), "log"),
        (RANDOM.standard_t(1.5, size=5000), "asinh"),
        (np.concatenate([RANDOM.normal(0, 1e-3, 2500), RANDOM.normal(9, 1e-3, 2500)]), "quantiles"),
        (np.ones(5000), "none"),
        (np.arange(10.0), "none"),
    ],
)
def test_the_scale_of_a_column_is_the_one_that_fits_its_values(values, expected):
    shuffled = np.random.default_rng(1).permutation(values)
    assert choose_transform(shuffled, decimals=None)[0] == expected


def test_a_minus_sign_behind_a_number_makes_it_negative(accept):
    summary = accept(b"a,b\n1,1.5-\n2,0.5\n3,2.5-\n")
    assert (summary.columns[1].column.type, summary.columns[1].min) == ("number", -2.5)


def test_abbreviated_numbers_are_numbers() -> None:
    cells = [f"{i + 0.5}K" if i % 3 else f"{i + 1}.25M" if i % 2 else str(i + 7) for i in range(90)]
    found = column_of(cells)
    assert found.column.type in ("number", "integer")
    numbers = encode_cells(pa.array(["1.5K", "2.25M", "12", "1B", "800"]), found.column)
    assert numbers.tolist() == [1500, 2_250_000, 12, 1e9, 800]
    assert encode_cells(pa.array([1500.0]), found.column).tolist() == [1500]


AROUND = {
    "$#/kg": ("${}.50/kg", 7.5),
    "$#M": ("${}.50M", 7.5),
    "Rs.#/-": ("Rs. {},000/-", 7000),
    "€#pro Monat": ("€ {}.50 pro Monat", 7.5),
    "tensor(#)": ("tensor({}.50)", 7.5),
    "Decimal('#')": ("Decimal('{}.50')", 7.5),
    "[#]": ("[{}.50]", 7.5),
    "/Date(#)/": ("/Date(17000000{:02d}000)/", 1_700_000_007_000),
    "l/100km": ("{}.50 l/100km", 7.5),
}


@pytest.mark.parametrize("unit", AROUND)
def test_texts_on_either_side_of_all_numbers_are_their_unit(unit: str) -> None:
    form, seventh = AROUND[unit]
    cells = [form.format(n) for n in range(1, 90)]
    column = column_of(cells).column
    values = encode_cells(pa.array(cells), column)
    assert (column.unit, values[6]) == (unit, seventh)
    assert format_numbers(pa.array(values), column.number_format).to_pylist() == cells
    assert encode_cells(pa.array([str(seventh)]), column).tolist() == [seventh]


def test_a_call_with_digits_in_its_name_has_a_number() -> None:
    cells = [f"np.float64({n}.{n * 7 % 9 + 1})" for n in range(60)]
    column = column_of(cells).column
    assert encode_cells(pa.array(cells), column)[3] == 3.4


BETWEEN = [
    *("INV {} open", "SKU 00{:02} ea", "USD 00{:02} ea", "Type(0{:02})", "Level({})", "[{}]"),
    *("tensor(0{})", "{}D-7"),
]


@pytest.mark.parametrize(
    "form", ["E11.{:02}", "CW{}", "Q{}A", "MOD{}-K", "f({},1)", "E11.3{:03}", *BETWEEN]
)
def test_codes_with_digits_are_no_numbers(form: str) -> None:
    assert column_of([form.format(n % 30) for n in range(90)]).column.type == "category"


POWERS = {
    "D": ("{n}.5D+02", "{n}50"),
    "power": ("{n}.5×10^-3", "0.00{n}5"),  # noqa: RUF001 - as printed
    "raised": ("{n}.5 × 10⁵", "{n}50000"),  # noqa: RUF001 - as printed
    "star": ("{n},5*10^2", "{n}50"),
    "dash": ("–{n}.5", "-{n}.5"),  # noqa: RUF001 - as printed
    "unseen": ("\u202a{n}.5\u200e", "{n}.5"),
}


@pytest.mark.parametrize("kind", POWERS)
def test_exponents_and_signs_of_print_are_read(kind: str) -> None:
    cells, plain = ([form.format(n=n % 9 + 1) for n in range(60)] for form in POWERS[kind])
    column = column_of([*cells, *(cell.replace("5", "25", 1) for cell in cells)]).column
    values = encode_cells(pa.array(cells), column)
    assert values.tolist() == pytest.approx([float(cell) for cell in plain])
    again = format_numbers(pa.array(values), column.number_format)
    assert encode_cells(again, column).tolist() == values.tolist()


def test_a_product_of_ten_and_more_is_no_power() -> None:
    column = column_of(["2x1024", "3x1024", "1.5x10^3"] * 30).column
    assert column.type == "category"


def test_numbers_with_signs_of_print_are_no_plain_ones_where_they_are_scored() -> None:
    for cells in (["(1.5)", "2.5"], ["1.5D+02", "2.5D+01"], ["2.5-", "1.5"]):
        assert not column_of(cells * 30).column.is_plain
    assert column_of(["1.5", "-2.5e-3"] * 30).column.unit == ""


def test_texts_that_differ_by_unseen_characters_are_one_level() -> None:
    assert column_of(
        [("a", "a\u200b", "\ufeffb", "b")[n % 4] for n in range(60)]
    ).column.levels == (
        "a",
        "b",
    )


def test_numbers_below_a_thousand_tell_that_a_mark_is_of_thousands() -> None:
    """Though another column has decimal commas."""
    cells = [f"NT${n * 97:,}" for n in range(1, 60)]
    rows = "".join(f'"{cell}","{n},5"\n' for n, cell in enumerate(cells))
    column = read(f"a,b\n{rows}".encode())[0].columns[0].column
    assert (column.thousands, column.decimal) == (",", ".")
    rows = "".join(f'"0,{n:03}","{n},5"\n"{n}","1,5"\n' for n in range(1, 60))
    assert read(f"a,b\n{rows}".encode())[0].columns[0].column.decimal == ","


def test_any_number_of_errors_of_a_spreadsheet_are_gaps() -> None:
    errors = ("#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#DIV/0!", "#¡REF!", "Err:502", ".a")
    cells = [errors[n % 9] if n % 2 else f"{n}.5" for n in range(180)]
    found = column_of(cells)
    assert (found.column.type, found.missing_count) == ("number", 90)


@pytest.mark.parametrize(
    ("sides", "unit", "sign"), [("NS", "° ' \"", -1), ("EW", "° ' \"", -1), ("WW", "W", 1)]
)
def test_letters_of_both_sides_tell_degrees(sides: str, unit: str, sign: int) -> None:
    cells = [f"{n % 80}.{n:04d}{sides[n % 2]}" for n in range(1, 90)]
    column = column_of(cells).column
    assert column.unit == unit
    assert encode_cells(pa.array(cells), column)[2] == sign * 3.0003


def test_a_yen_of_shift_jis_is_a_currency() -> None:
    column = column_of([f"\\{i * 37 + 1000:,}" for i in range(90)]).column
    assert (column.type, column.unit, column.thousands) == ("integer", "\\", ",")
