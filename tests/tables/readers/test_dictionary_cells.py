"""Dictionaries of Arrow streams whose batches are joined, each with values of its own."""

from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.columns import Column
from tabular.formats import ParseOptions, TableFormat
from tabular.ingest.parse import parse_table
from tabular.readers.arrow import BatchCheck, is_packed
from tabular.typed_table import open_typed

_LEVELS = Column(name="t", type="category", levels=("a", "b"), missing=True)


def _written(path: Path, batches: list[pa.DictionaryArray]) -> Path:
    with pa.ipc.new_stream(path, pa.schema([("t", batches[0].type)])) as writer:
        for cells in batches:
            writer.write_batch(pa.record_batch([cells], names=["t"]))
    return path


def _read(path: Path) -> list[float]:
    table = open_typed(
        path,
        format=TableFormat.ARROW,
        options=ParseOptions(),
        columns=[_LEVELS],
        choose=lambda *_: [0],
    )
    numbers = np.concatenate(list(table.chunks))[:, 0]
    return [float(number) for number in np.nan_to_num(numbers, nan=-9)]


def _cells(indices: list[int | None], values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)


def test_a_null_among_the_values_of_a_dictionary_is_missing(tmp_path):
    batches = [
        _cells([0, 1, 2, None], pa.array(["a", None, "b"])),
        _cells([2, 1, 0], pa.array([None, "b", "c"])),
        _cells([0, 0], pa.nulls(1, pa.string())),
    ]
    path = _written(tmp_path / "rows", batches)
    assert not is_packed(path, ParseOptions())
    assert _read(path) == [0.0, -9.0, 1.0, -9.0, -1.0, 1.0, -9.0, -9.0, -9.0]
    summary = parse_table(path, tmp_path / "table.npy", format=TableFormat.ARROW)
    assert [column.missing_count for column in summary.columns] == [5]


def test_many_dictionaries_are_read_in_another_process(tmp_path):
    def batches(size: int) -> list[pa.DictionaryArray]:
        return [_cells([0], pa.array([f"{n}".ljust(size)] * 100)) for n in range(50)]

    assert not is_packed(_written(tmp_path / "few", batches(100)), ParseOptions())
    assert is_packed(_written(tmp_path / "many", batches(2000)), ParseOptions())


def test_the_indices_of_a_whole_batch_are_not_copied():
    cells = _cells([0, 1, 2, None] * 100, pa.array(["a", None, "b"]))
    check = BatchCheck(frozenset([0]))
    checked = check.checked(pa.record_batch([cells], names=["t"]))
    places = [cells.indices.buffers()[1].address for cells in (cells, checked.column(0))]
    assert places[0] == places[1]
    plain = check.plain(checked.slice(1, 3)).column(0)
    assert plain.type == pa.dictionary(pa.int32(), pa.string())
    assert plain.to_pylist() == [None, "b", None]
