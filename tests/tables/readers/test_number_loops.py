import json
import math
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from tabular.readers import plain_numbers
from tabular.readers.number_loops import NOT_PLAIN, read_rows
from tabular.readers.plain_numbers import number_rows

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


def read(text: str, width: int, *, room: int = 0) -> tuple[int, list[float]]:
    """Read rows with this many bytes behind their document, whose last ones are not read as words."""
    body = f'{{"rows":[{text}]}}'.encode()
    document = np.frombuffer(body + b"1" * room, np.uint8)
    out = np.full(width, np.nan)
    keys, places = np.empty(0, np.uint8), np.empty(0, np.int64)
    count, _ = read_rows(document, 9, len(body) - 2, width, keys, places, ord(","), out)
    return count, out.tolist()


def bits(number: float) -> bytes:
    return struct.pack("d", number)


@pytest.mark.long
@settings(max_examples=500)
@given(NUMBERS)
@example("9007199254740993")
@example("0.000000000000000000000000001234567890123456789")
@example("1.7976931348623157e308")
@example("2.2250738585072014e-308")
def test_a_number_that_is_read_is_the_nearest_to_its_text(text):
    for room in (0, 16):
        count, values = read(f"[{text}]", 1, room=room)
        if count != NOT_PLAIN:
            assert json.loads(text) is not None
            assert bits(values[0]) == bits(float(text))


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("before", range(1, 10))
def test_numbers_of_few_digits_are_read_to_the_bit(sign, before):
    for behind in range(10):
        text = f"{sign}{'9070605040'[:before]}{'.' * (behind > 0)}{'1020304050'[:behind]}"
        for room in (0, 16):
            count, values = read(f"[{text},0]", 2, room=room)
            assert count == 2, text
            assert bits(values[0]) == bits(float(text)), text


@pytest.mark.parametrize(
    "text",
    ["01", "00.5", "-01.5", ".5", "-.5", "5.", "-5.", "-", "1.2.3", "1-2", "1e", "1.5e+", "+1"],
)
def test_what_json_does_not_call_a_number_is_not_read(text):
    assert [read(f"[{text},0]", 2, room=room)[0] for room in (0, 16)] == [NOT_PLAIN, NOT_PLAIN]


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=6))
def test_numbers_of_usual_size_are_read(row):
    count, values = read(json.dumps(row), len(row))
    assert (count, values) == (len(row), row)


PARTS = st.sampled_from(
    [*'[],.-+eE0123456789 \n"ntf', "[1,2]", ",", "[0.5, -1e3]", "]}", "[1,2],", "[null,2]"]
)


@pytest.mark.long
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
    slices = list(number_rows(body, "ab"))
    rows = [part for part in slices if part is not None]
    if len(rows) == len(slices):
        whole = [
            [math.nan if value is None else value for value in row]
            for row in json.loads(body)["rows"]
        ]
        assert np.array_equal(np.concatenate(rows), whole, equal_nan=True)


def test_rows_behind_a_number_of_many_digits_are_read(monkeypatch):
    monkeypatch.setattr(plain_numbers, "_SLICE_VALUES", 2)
    body = b'{"rows":[[1,2],[3,0.12345678901234567890123456789],[5,6]]}'
    slices = [part for part in number_rows(body, "ab") if part is not None]
    assert len(slices) > 1
    assert np.concatenate(slices).tolist() == json.loads(body)["rows"]
