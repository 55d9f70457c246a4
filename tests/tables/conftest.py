from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.storing import parse_table
from tests.tables.files import Accept, Refuse


@pytest.fixture
def accept(tmp_path: Path) -> Accept:
    """Parses the bytes of a file into `table.npy`, with options as keywords."""

    def parse(data: bytes, kind: TableFormat = TableFormat.CSV, **options: object) -> TableSummary:
        (tmp_path / "table.npy").unlink(missing_ok=True)
        (tmp_path / "upload").write_bytes(data)
        chosen = ParseOptions(**options)  # type: ignore[arg-type] # each test knows its own
        return parse_table(tmp_path / "upload", tmp_path / "table.npy", format=kind, options=chosen)

    return parse


@pytest.fixture
def refuse(accept: Accept, tmp_path: Path) -> Refuse:
    """Sees the bytes of a file refused, briefly and without a trace; gives the error."""

    def parse(data: bytes, kind: TableFormat = TableFormat.CSV, **options: object) -> TableError:
        with pytest.raises(TableError) as caught:
            accept(data, kind, **options)
        assert not (tmp_path / "table.npy").exists()
        assert len(caught.value.detail) < 1000
        return caught.value

    return parse


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], NDArray[np.float64]]:
    """The table that was parsed last."""
    return lambda: np.load(tmp_path / "table.npy")
