"""Scores by an export of a version, in this process: no service, no database.

`densityd export claims@production -o claims.safetensors` writes such a file. Its scores equal those of the
service to the last bit, for rows in the same form, on a processor of the same kind.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no type information
from numpy.typing import NDArray

from densityd.client.wire.arrays import check_rows
from densityd.client.wire.frames import Rows, frame_like, to_table
from flows import CompiledFlow, FlowError, compile_flow, rank_among, spec_from_dict
from models_store.errors import ModelFileError
from models_store.exports.exported_files import HeldOut, read_record
from models_store.files.checkpoints import build_model, read_tensors
from models_store.files.model_header import ModelHeader
from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.rows import read_rows
from tabular.typed_rows import check_codes

Doubles = NDArray[np.float64]
Floating = NDArray[np.floating[Any]]

_CHUNK_ROWS = 100_000
_NO_BOUND = 2**62


class Scorer:
    """A version of a model, read from its export. It may be sent to other processes that see the file.

    Args:
        held_out: Log densities of rows that it was not trained on, by which scores are ranked; None: the
            file has none.

    Attributes:
        columns: Names of the columns of a row: those of the model, then those of its context.
    """

    def __init__(
        self, path: Path, header: ModelHeader, flow: CompiledFlow, held_out: HeldOut | None
    ) -> None:
        self.columns = [*header.columns, *header.context_columns]
        self._path, self._flow, self._held_out = path, flow, held_out
        self._one_at_a_time = Lock()
        typed = [Column.from_dict(column) for column in header.types or []]
        if all(column.is_plain for column in typed):  # as the service reads them
            typed = [Column(name=name) for name in self.columns]
        self._types = typed

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (str(self._path),)

    def log_prob(self, rows: Rows) -> Doubles:
        """Return the log density of each row in nats; -inf or NaN if there is no finite one.

        Args:
            rows: Data frame, table or records, whose columns are matched by name and which may have others;
                or an array of the columns in their order, as the client takes it.

        Raises:
            ValueError: The rows lack a column, or have a cell that is none of its type.
        """
        table = to_table(rows)
        whole = check_rows(rows) if table is None else table
        scores = np.empty(len(whole))
        for start in range(0, len(whole), _CHUNK_ROWS):
            chunk = whole[start : start + _CHUNK_ROWS]
            numbers = self._numbers(chunk) if isinstance(chunk, np.ndarray) else self._cells(chunk)
            with self._one_at_a_time:
                scores[start : start + _CHUNK_ROWS] = self._flow.log_prob(numbers)
        return scores

    def score(self, rows: Rows) -> Any:  # noqa: ANN401  of the caller's library
        """Return a data frame with the columns `log_prob` and, if the file has held-out rows, `rank`.

        It is of the library of the rows, with their index: polars, pyarrow, else pandas. Arguments and
        errors are those of `log_prob`.
        """
        log_prob = self.log_prob(rows)
        columns = {"log_prob": log_prob}
        if self._held_out is not None:
            quantiles = np.array(self._held_out.quantiles)
            columns["rank"] = rank_among(log_prob, quantiles, rows=self._held_out.rows)
        return frame_like(rows, columns)

    def _numbers(self, rows: NDArray[Any]) -> Floating:
        if rows.shape[1] != len(self.columns):
            raise ValueError(
                f"the rows have {rows.shape[1]} values, the model {len(self.columns)} columns"
            )
        single = rows.dtype.kind == "f" and rows.dtype.itemsize <= np.dtype(np.float32).itemsize
        numbers: Floating = rows.astype(np.float32 if single else np.float64)
        with _told():
            check_codes(numbers, self._types)
        return numbers

    def _cells(self, table: pa.Table) -> Doubles:
        """Return the numbers of a table's cells, read as the service reads a body of them."""
        missing = [name for name in self.columns if name not in table.column_names]
        if missing:
            raise ValueError(f"the rows lack columns of the model: {', '.join(missing)}")
        stream = io.BytesIO()
        chosen = table.select(self.columns)
        with pa.ipc.new_stream(stream, chosen.schema) as writer:
            writer.write_table(chosen)
        options = ParseOptions(
            max_rows=_CHUNK_ROWS, max_columns=len(self.columns), max_bytes=_NO_BOUND
        )
        with _told():
            read = read_rows(stream.getvalue(), TableFormat.ARROW, options, self._types)
        values: Doubles | None = read.values
        assert values is not None  # noqa: S101 - no column is missing
        return values


def load(export: str | PathLike[str]) -> Scorer:
    """Read an export of a version, or its weights, into memory; the same file is read once.

    Args:
        export: File that `densityd export`, `client.models.export` or `client.models.download` wrote.

    Raises:
        ValueError: It is no such file.
        OSError: The file cannot be read.
    """
    path = Path(export).resolve()
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load(path: Path, _changed_ns: int) -> Scorer:
    try:
        record = read_record(path)
        tensors, text = read_tensors(path)
        header = ModelHeader.model_validate_json(text)
        flow = compile_flow(build_model(spec_from_dict(header.spec), header, tensors))
    except (ModelFileError, FlowError, ValueError, LookupError, RuntimeError) as error:
        raise ValueError(f"{path} is no export of a version: {error}") from error
    return Scorer(path, header, flow, None if record is None else record.held_out)


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong with rows by a `ValueError`."""
    try:
        yield
    except TableError as error:
        raise ValueError(error.told) from error
