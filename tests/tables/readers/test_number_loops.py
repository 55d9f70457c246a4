import json
import struct

import numpy as np
from hypothesis import example, given, settings, strategies as st

from tables.readers import json_numbers
from tables.readers.json_numbers import joined, number_rows
from tables.readers.number_loops import NOT_PLAIN, read_rows

DIGITS = st.text("0123456789", min_size=1, max_size=21)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map("{:.16e}".format),
    st.integers().map(str),
    st.builds("{}.{}e{}".format, DIGITS, DIGITS, st.integers(-400, 400)),
    st.builds("-{}.{}".format, DIGITS, DIGITS),
    # Halfway between two numbers, or next to that.
    st.builds(
        lambda mantissa, more, power: f"{(2**53 + 2 * mantissa + 1) * 2**power + more}",
        st.integers(0, 2**52),
        st.integers(-1, 1),
        st.integers(0, 9),
    ),
)


def read(text: str, width: int) -> tuple[int, list[float]]:
    document = np.frombuffer(f'{{"rows":[{text}]}}'.encode(), np.uint8)
    out = np.full(width, np.nan)
    count, _ = read_rows(document, 9, len(document) - 2, width, out)
    return count, out.tolist()


def bits(number: float) -> bytes:
    return struct.pack("d", number)


@settings(max_examples=500)
@given(NUMBERS)
@example("9007199254740993")
@example("0.000000000000000000000000001234567890123456789")
@example("1.7976931348623157e308")
@example("2.2250738585072014e-308")
def test_a_number_that_is_read_is_the_nearest_to_its_text(text):
    count, values = read(f"[{text}]", 1)
    if count != NOT_PLAIN:
        assert json.loads(text) is not None
        assert bits(values[0]) == bits(float(text))


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=6))
def test_numbers_of_usual_size_are_read(row):
    count, values = read(json.dumps(row), len(row))
    assert (count, values) == (len(row), row)


PARTS = st.sampled_from([*'[],.-+eE0123456789 \n"ntf', "[1,2]", ",", "[0.5, -1e3]", "]}", "[1,2],"])


@settings(max_examples=500)
@given(st.lists(PARTS, max_size=12).map("".join))
@example("[1,2],")
@example("[1,2], ")
@example("[1,2]]")
@example("[1,2")
@example("[01,2]")
@example("[1.,2]")
@example("[1e,2]")
def test_text_that_is_read_is_json(text):
    body = f'{{"rows":[{text}]}}'.encode()
    slices = list(number_rows(body, width=2))
    rows = [part for part in slices if part is not None]
    if len(rows) == len(slices):
        assert joined(rows).tolist() == json.loads(body)["rows"]


def test_rows_behind_a_number_of_many_digits_are_read(monkeypatch):
    monkeypatch.setattr(json_numbers, "_SLICE_VALUES", 2)
    body = b'{"rows":[[1,2],[3,0.12345678901234567890123456789],[5,6]]}'
    slices = [part for part in number_rows(body, width=2) if part is not None]
    assert len(slices) > 1
    assert joined(slices).tolist() == json.loads(body)["rows"]
