"""Damaged and random files: a clear refusal, or a summary that is true of what was stored."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.storing import parse_table
from tests.tables.outcomes import EXACT, KINDS, WHOLE, parse, write

LARGEST = float(np.nextafter(np.float32(1e37), np.float32(0)))
ATTEMPTS = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_after_any_byte_is_refused_or_its_summary_is_true(kind):
    for length in range(0, len(WHOLE[kind]), 5):
        cut = WHOLE[kind][:length]
        outcome = parse(cut, kind)
        if outcome is None or cut.endswith(b"-"):  # a sign alone is a gap
            continue
        assert kind in {TableFormat.CSV, TableFormat.NDJSON}  # the others know their length
        summary, stored = outcome
        # The last number may have lost digits, which no reader can see.
        assert np.array_equal(stored[:-1], EXACT[: summary.rows - 1])
        assert np.array_equal(stored[-1, :-1], EXACT[summary.rows - 1, :-1])


@pytest.mark.parametrize("kind", KINDS)
@ATTEMPTS
@given(data=st.data())
def test_a_file_with_bytes_changed_is_refused_or_its_summary_is_true(kind, data):
    damaged = bytearray(WHOLE[kind])
    places = st.integers(0, len(damaged) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    parse(bytes(damaged), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_any_one_bit_flipped_is_refused_or_its_summary_is_true(kind):
    for place in range(0, len(WHOLE[kind]), 29):
        damaged = bytearray(WHOLE[kind])
        damaged[place] ^= 1 << place % 8
        parse(bytes(damaged), kind)


@pytest.mark.parametrize("kind", KINDS)
@ATTEMPTS
@given(data=st.data())
def test_a_file_of_spliced_pieces_is_refused_or_its_summary_is_true(kind, data):
    pieces = []
    for _ in range(data.draw(st.integers(1, 4))):
        piece = WHOLE[data.draw(st.sampled_from([kind, *KINDS]))]
        start = data.draw(st.sampled_from([0, 0, len(piece) // 3, len(piece) - 8]))
        stop = data.draw(st.integers(start, len(piece)))
        pieces.append(piece[start:stop])
    parse(b"".join(pieces), kind)


@ATTEMPTS
@given(data=st.binary(max_size=200), kind=st.sampled_from(KINDS), header=st.booleans())
def test_any_bytes_are_refused_or_their_summary_is_true(data, kind, header):
    magic = {TableFormat.NPY: b"\x93NUMPY\x01\x00", TableFormat.PARQUET: b"PAR1"}.get(kind, b"")
    parse(magic + data, kind, ParseOptions(missing="drop", constant="keep", header=header))


@ATTEMPTS
@given(
    text=st.text(alphabet='01.,-+eE"\n\r; \tnaNx\ufeffé', max_size=80),
    header=st.booleans(),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
)
def test_any_text_is_refused_or_its_summary_is_true(text, header, delimiter):
    options = ParseOptions(missing="drop", constant="keep", header=header, delimiter=delimiter)
    parse(text.encode(), TableFormat.CSV, options)


tables = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=30),
    # Columns of smaller numbers vary by too little to be modelled, and are left out.
    elements=st.floats(-LARGEST, LARGEST, width=32).filter(lambda x: x == 0 or abs(x) > 1e-25)
    | st.sampled_from([0.0, -0.0, 1.0]),
)


@ATTEMPTS
@given(table=tables)
def test_a_random_table_is_the_same_in_every_format(table):
    outcomes = [parse(write(kind, table), kind) for kind in KINDS]
    first = outcomes[0]
    assert first is not None
    rounding = 1e-12 * float(np.abs(table).max())
    for outcome in outcomes:
        assert outcome is not None
        assert np.array_equal(outcome[1], table)
        for one, other in zip(first[0].columns, outcome[0].columns, strict=True):
            if "boolean" in {one.column.type, other.column.type}:  # 0 and 1 in a format of text
                continue
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std), abs=rounding)
            assert one.distinct == other.distinct


@pytest.mark.parametrize(
    ("offset", "order"),
    [(0.0, "shuffled"), (1e6, "sorted"), (1e15, "outlier first"), (-1e15, "sorted")],
)
def test_statistics_keep_their_digits_over_many_chunks_and_a_large_offset(offset, order):
    x = np.random.default_rng(3).integers(-8, 9, (150_000, 2)) + offset
    if order == "sorted":
        x.sort(axis=0)
    elif order == "outlier first":
        x[0] = offset + 4096
    outcome = parse_many(x)
    exact = (x - offset).astype(np.longdouble)
    for i, column in enumerate(outcome.columns):
        assert column.mean - offset == pytest.approx(
            float(exact[:, i].mean()), abs=0.5e-15 * abs(offset) + 1e-12
        )
        assert column.std == pytest.approx(float(exact[:, i].std()), rel=1e-12)
        assert column.distinct == np.unique(x[:, i]).size


def parse_many(x: NDArray[np.float64]) -> TableSummary:
    with TemporaryDirectory() as folder:
        source, destination = Path(folder, "upload.npy"), Path(folder, "table.npy")
        np.save(source, x)
        return parse_table(source, destination, format=TableFormat.NPY)
