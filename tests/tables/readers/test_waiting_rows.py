"""Files of which long parts are no rows, or short ones: no step reads all of them, nor takes memory for it."""

import tracemalloc

import pytest

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_table
from tabular.readers.json import BLOCK_BYTES, whole_rows

_BLOCKS = 6


@pytest.fixture
def opened(tmp_path):
    def open_file(content, kind=TableFormat.CSV):
        path = tmp_path / "rows"
        path.write_bytes(content)
        return open_table(path, format=kind, options=ParseOptions())

    return open_file


def _wide(columns, *, short):
    header = ",".join(f"c{place}" for place in range(columns)).encode()
    return header + b"\n" + (b"0," * (columns - 1) + b"0\n") * 40 + short


def test_short_rows_of_a_wide_table_are_counted_before_they_are_mended(opened):
    table = opened(_wide(1000, short=b"1,2\n1,2,3\n1\n,5,6,7\n" * 3000))
    tracemalloc.start()
    try:
        with pytest.raises(TableError, match="Row 41 has 2 values instead of 1000"):
            list(table.chunks)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_short_rows_that_are_mended_come_in_pieces(opened):
    full, short = b"0," * 299 + b"0\n", b"1,2\n"
    header = ",".join(f"c{place}" for place in range(300)).encode() + b"\n"
    table = opened(header + (full + short * 2) * 800)
    chunks = list(table.chunks)
    assert sum(chunk.shape[1] for chunk in chunks) == 2400
    assert max(chunk.shape[1] for chunk in chunks) <= 1024
    assert chunks[-1][:2, -1].tolist() == [1, 2]


def test_blank_lines_before_a_row_of_ndjson_are_read_a_block_at_a_time(opened):
    table = opened(b"[1,2]\n" + b"\n" * (_BLOCKS * BLOCK_BYTES) + b"[3,4]\n", TableFormat.NDJSON)
    chunks = list(table.chunks)
    assert sum(not chunk.size for chunk in chunks) >= _BLOCKS - 1
    assert [chunk.T.tolist() for chunk in chunks if chunk.size] == [[[1, 2], [3, 4]]]


def test_the_members_of_ndjson_are_looked_for_a_block_at_a_time(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"\n" * (_BLOCKS * BLOCK_BYTES) + b'{"a": 1}\n{"b": 2}\n')
    found = list(whole_rows(path, ParseOptions()))
    assert found[:_BLOCKS] == [None] * _BLOCKS
    assert found[-1] == {"a": 1, "b": 2}


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"---\n"])
def test_megabytes_of_lines_that_are_no_rows_are_refused(opened, line):
    content = b"a,b\n1,2\n---\n3,4\n" + line * ((10 << 20) // len(line))
    with pytest.raises(TableError, match="8 MiB of lines"):
        list(opened(content).chunks)


def test_blank_lines_are_rows_of_a_single_column(opened):
    chunks = opened(b"a\n1\n" + b"\n" * (9 << 20)).chunks
    assert sum(chunk.shape[1] for chunk in chunks) == 1 + (9 << 20)


def test_the_line_of_a_quote_is_looked_for_in_small_files_alone(opened):
    rows = b"1,2\n" * (1 << 20)
    with pytest.raises(TableError, match=r"never closed\. It begins in line 4:"):
        list(opened(b'a,b\n1,2\n1,2\n1,"2\n').chunks)
    with pytest.raises(TableError, match=r"never closed\. Double a quote"):
        list(opened(b"a,b\n" + rows + b'1,"2\n').chunks)
