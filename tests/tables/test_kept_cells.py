from unittest.mock import Mock

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest

from tabular.columns import Column
from tabular.ingest.kept_cells import GROUP_BYTES, cells_writer
from tabular.kept_cells import KeptCells

ROWS = 40
COLUMNS = [Column(name="x", type="number"), Column(name="t", type="ignored")]
TEXTS = [f"{row} {'q' * (1 << 20)}" for row in range(ROWS)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptCells:
    path = tmp_path_factory.mktemp("kept") / "cells.parquet"
    with cells_writer(path) as writer:
        writer.write(pa.record_batch([pa.array(TEXTS, pa.string())], names=["1"]))
    return KeptCells(path, COLUMNS)


def filled(kept: KeptCells, rows: range) -> list[str]:
    cells = [pa.array([0.5] * len(rows)), pa.nulls(len(rows), pa.string())]
    texts: list[str] = kept.fill(pa.record_batch(cells, names=["x", "t"]), rows.start)[
        1
    ].to_pylist()
    return texts


@pytest.mark.parametrize("rows", [range(ROWS), range(3, 29), range(ROWS - 1, ROWS)])
def test_long_texts_are_read_a_few_megabytes_at_a_time(kept, rows):
    pieces = list(kept.pieces(rows))
    texts = [filled(kept, piece) for piece in pieces]
    assert max(sum(map(len, some)) for some in texts) <= GROUP_BYTES
    assert [text for some in texts for text in some] == TEXTS[rows.start : rows.stop]


def test_rows_without_kept_cells_are_one_piece():
    assert list(KeptCells(None, COLUMNS).pieces(range(3, 9))) == [range(3, 9)]


def test_no_rows_are_one_empty_piece(kept):
    assert list(kept.pieces(range(ROWS, ROWS))) == [range(ROWS, ROWS)]


def test_the_names_of_a_file_are_listed_once_however_many_columns_it_has(tmp_path, monkeypatch):
    names = [str(at) for at in range(50)]
    with cells_writer(tmp_path / "cells.parquet") as writer:
        writer.write(pa.record_batch([pa.array(["a", "b"])] * len(names), names=names))
    listed = []
    schema = pq.ParquetFile.schema_arrow

    def counted(file):
        listed.append(file)
        return schema.fget(file)

    monkeypatch.setattr(pq.ParquetFile, "schema_arrow", property(counted))
    columns = [Column(name=f"t{at}", type="ignored") for at in range(len(names))]
    nulls = pa.record_batch([pa.nulls(2, pa.string())] * len(names), names=names)
    filled = KeptCells(tmp_path / "cells.parquet", columns).fill(nulls, 0)
    assert filled.column(49).to_pylist() == ["a", "b"]
    assert len(listed) == 1


def test_a_file_that_is_deleted_is_read_to_its_end(tmp_path):
    with cells_writer(tmp_path / "cells.parquet") as writer:
        writer.write(pa.record_batch([pa.array(["a", "b"])], names=["1"]))
    kept = KeptCells(tmp_path / "cells.parquet", COLUMNS)
    (tmp_path / "cells.parquet").unlink()
    assert filled(kept, range(2)) == ["a", "b"]


def test_cells_of_many_columns_are_read_once_for_rows_of_one_group(tmp_path, monkeypatch):
    names = [str(at) for at in range(70)]
    with cells_writer(tmp_path / "cells.parquet") as writer:
        writer.write(pa.record_batch([pa.array(["a", "b", "c"])] * len(names), names=names))
    opened = Mock(side_effect=pq.ParquetFile)
    monkeypatch.setattr(pq, "ParquetFile", opened)
    kept = KeptCells(
        tmp_path / "cells.parquet", [Column(name=name, type="ignored") for name in names]
    )
    for row, text in enumerate("abc"):
        nulls = pa.record_batch([pa.nulls(1, pa.string())] * len(names), names=names)
        assert kept.fill(nulls, row).to_pylist() == [dict.fromkeys(names, text)]
    assert opened.call_count == 1
