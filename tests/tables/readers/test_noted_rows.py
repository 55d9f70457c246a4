"""Rows of which Arrow tells Python one at a time, in a thread that Python did not start."""

import io
import threading
import time
from traceback import walk_tb

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above
import pytest

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_table
from tabular.readers.layout import Layout
from tabular.readers.uneven import UnevenRows

_NAMES = ["a", "b", "c"]


class _LateFile(io.BytesIO):
    """File that Arrow waits for, so that it goes on in the thread that has read it."""

    def read(self, size=-1):
        time.sleep(0.02)
        return super().read(size)


def test_the_state_of_a_thread_is_made_once_and_not_for_each_short_row():
    rows = UnevenRows(3, Layout(fields=_NAMES, header=False, delimiter=","), missing=[""])
    state, threads, made = threading.local(), set(), []

    def note(row):
        threads.add(threading.get_native_id())
        if not hasattr(state, "is_known"):
            state.is_known = True
            made.append(row.number)
        return rows.note(row)

    file = pa.PythonFile(_LateFile(b"1,2,3\n" + b"4,5\n6,7,8\n" * 500), mode="r")
    options = pa_csv.ParseOptions(invalid_row_handler=note)
    read_options = pa_csv.ReadOptions(use_threads=False, column_names=_NAMES)
    with pa_csv.open_csv(file, read_options=read_options, parse_options=options) as reader:
        found = [part.num_rows for batch in reader for part in rows.restored(batch)]
    assert sum(found) == 1001
    assert len(made) == len(threads)


def test_an_error_of_a_file_does_not_refer_to_its_reader(tmp_path):
    """Arrow drops the error in the thread that has read the file, for whose work the reader waits as it goes."""
    path = tmp_path / "rows"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 500_000 + b"\n" * (9 << 20))
    with pytest.raises(TableError, match="are no rows") as caught:
        list(open_table(path, format=TableFormat.CSV, options=ParseOptions()).chunks)
    error: BaseException | None = caught.value
    held: list[object] = []
    while error is not None:
        held += [it for frame, _ in walk_tb(error.__traceback__) for it in frame.f_locals.values()]
        error = error.__context__
    assert not [it for it in held if isinstance(it, pa.RecordBatchReader)]
