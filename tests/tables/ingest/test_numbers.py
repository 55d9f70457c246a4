"""Columns of numbers: their marks and units, spikes and scales."""

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from tables.cells import encode_cells
from tables.ingest.numbers import MAX_SPIKES, choose_transform, find_spikes
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


def test_a_yen_of_shift_jis_is_a_currency() -> None:
    column = column_of([f"\\{i * 37 + 1000:,}" for i in range(90)]).column
    assert (column.type, column.unit, column.thousands) == ("integer", "\\", ",")
