"""Rows in npy, in every form that numpy writes and some that it does not."""

import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tabular.formats import TableFormat
from tests.app.decoding import decode
from tests.app.rows.bodies import SHAPE, npy, refusal

NPY = TableFormat.NPY


@pytest.mark.long
@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", ">f8", "<f2", "<i4", ">i2", "<u8", "|u1"]),
        st.tuples(st.integers(1, 4), st.just(3)),
    ),
    st.booleans(),
)
def test_031_npy_rows_are_read_whatever_their_dtype_and_order(array, fortran):
    body = npy(np.asfortranarray(array) if fortran else array)
    rows = decode(body, NPY, SHAPE)
    single = array.dtype.str[1:] in {"f2", "f4"}
    first = fortran and len(array) > 1  # one row has no order
    assert rows.dtype == (np.float32 if single and not first else np.float64)
    np.testing.assert_array_equal(rows, array.astype(rows.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy_rows_of_a_native_float_are_not_copied(dtype):
    body = npy(np.ones((2, 3), dtype))
    rows = decode(body, NPY, SHAPE)
    assert np.shares_memory(rows, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_npy_formats_are_read(version):
    body = npy(np.ones((2, 3)), version=version)
    assert decode(body, NPY, SHAPE).shape == (2, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.complex128),
        np.zeros((2, 3), bool),
        np.zeros((2, 3), "S10"),
        np.zeros((2, 3), "U4"),
        np.zeros((2, 3), "M8[s]"),
        np.zeros((2, 3), np.longdouble),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_of_anything_but_real_numbers_are_refused(array):
    assert refusal(npy(array), NPY).type.slug == "array-dtype"


@pytest.mark.parametrize("descr", ["<<f8", "><f8", "<f16", "f8,", "<f8 ", "", "<"])
def test_a_type_that_numpy_does_not_know_is_refused(descr):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (1, 3), }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(24)
    assert refusal(body, NPY).type.slug == "array-dtype"


def test_an_object_array_is_refused_and_never_unpickled(tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return canary.touch, ()

    body = npy(np.array([[Bomb()] * 3], dtype=object), allow_pickle=True)
    assert refusal(body, NPY).type.slug == "array-dtype"
    assert not canary.exists()


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 3)])
def test_arrays_that_are_no_table_are_refused(shape):
    assert refusal(npy(np.zeros(shape)), NPY).type.slug == "batch-shape"


@pytest.mark.parametrize("shape", ["(1000000000000, 3)", "(0, 1000000000000000000000)", "(-1, 3)"])
def test_a_header_that_lies_about_the_shape_allocates_nothing(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    problem = refusal(body, NPY)
    assert problem.type.slug in {"array-parse", "batch-empty", "limit-rows"}


@pytest.mark.parametrize(
    "header",
    [
        b"__import__('os').abort()",
        b"{'descr': '<f8'}",
        b"[" * 3000,
        b"{'descr': '<f8', 'fortran_order': 0, 'shape': (1, 3)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': [1, 3]}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (0x%s, 3)}" % (b"f" * 3900),
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 0x%s)}" % (b"f" * 3900),
    ],
)
def test_a_header_that_is_not_what_it_should_be_is_refused(header):
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)
    with warnings.catch_warnings():
        assert refusal(body, NPY).type.slug == "array-parse"


@pytest.mark.long
def test_an_array_cut_anywhere_is_refused():
    body = npy(np.ones((2, 3)))
    for length in range(len(body)):
        assert refusal(body[:length], NPY).type.slug == "array-parse"
    assert refusal(body + b"\0", NPY).type.slug == "array-parse"
