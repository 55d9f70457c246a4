"""Frames of pandas, polars and pyarrow, and records, as Arrow tables, whose columns have names.

pandas and polars are never imported: a frame is known by its methods, and polars and newer versions of
pandas hand over their columns by the Arrow PyCapsule interface (`__arrow_c_stream__`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:  # it is large, and only those who have tables need it
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information


class ArrowFrame(Protocol):
    """A table of any library that speaks the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self) -> object:
        """Return the table as a stream of Arrow record batches."""


Record: TypeAlias = Mapping[str, object]
Cells: TypeAlias = "Iterable[object] | pa.ChunkedArray"
Rows: TypeAlias = ArrayLike | ArrowFrame | Sequence[Record]
"""Rows: a 2-D array by position; a frame, a structured array or a list of records by name."""


def to_table(rows: Rows) -> "pa.Table | None":
    """Return rows that have named columns as an Arrow table; None for other rows.

    Columns are text, numbers, truth values, dates and timestamps. The index of a pandas frame is no
    column: `frame.reset_index()` makes it one. A key that a record lacks is a gap.

    Raises:
        ValueError: The rows have names, but are no table.
    """
    if isinstance(rows, np.ndarray):
        return None if rows.dtype.names is None else _from_structured(rows, rows.dtype.names)
    if hasattr(rows, "collect_schema") and hasattr(rows, "collect"):
        return _from_stream(_collected(rows))
    if _is_pandas(rows):
        return _from_pandas(rows)
    if hasattr(rows, "__arrow_c_stream__"):
        return _from_stream(rows)
    if _is_records(rows):
        names = dict.fromkeys(name for row in rows for name in row)
        return _from_columns((name, [row.get(name) for row in rows]) for name in names)
    return None


def _is_pandas(rows: object) -> bool:
    return hasattr(rows, "iloc") and hasattr(rows, "columns")


def _collected(frame: Any) -> object:  # noqa: ANN401 - polars may not be installed
    """Return a frame of polars whose computation was put off."""
    return frame.collect()


def _is_records(rows: object) -> TypeGuard[Sequence[Record]]:
    return (
        isinstance(rows, Sequence)
        and len(rows) > 0
        and all(isinstance(row, Mapping) for row in rows)
    )


def _from_pandas(frame: Any) -> "pa.Table":  # noqa: ANN401 - pandas may not be installed
    return _from_columns((name, frame.iloc[:, place]) for place, name in enumerate(frame.columns))


def _from_stream(frame: object) -> "pa.Table":
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        table = pa.table(frame)
    except (pa.ArrowException, TypeError) as error:
        columns = getattr(frame, "get_columns", None)
        if columns is not None:  # of polars, with a type that Arrow lacks, such as Int128
            return _from_columns((cells.name, cells.to_list()) for cells in columns())
        raise ValueError(f"rows must be a table; this is a {type(frame).__name__}") from error
    return _from_columns(zip(table.column_names, table.columns, strict=True))


def _from_structured(rows: np.ndarray[Any, Any], names: Sequence[str]) -> "pa.Table":
    if rows.ndim != 1:
        raise ValueError(f"a structured array must be 1-D; this one is {rows.ndim}-D")
    return _from_columns((name, rows[name]) for name in names)


def _from_columns(columns: "Iterable[tuple[object, Cells]]") -> "pa.Table":
    import pyarrow as pa  # noqa: PLC0415 - as above

    arrays: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, cells in columns:
        if str(name) in arrays:
            raise ValueError(f"two columns have the name {str(name)!r}")
        arrays[str(name)] = _simplify(_to_array(cells))
    return pa.table(arrays)


def _to_array(cells: "Cells") -> "pa.ChunkedArray | pa.Array":
    """Return cells as an Arrow array; those of several types, or of no type of Arrow, become text."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if isinstance(cells, pa.ChunkedArray):
        return cells
    try:
        array = pa.array(cells, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError):
        return _to_texts(cells)
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    return _to_texts(cells) if isinstance(kind, pa.BaseExtensionType) else array


def _to_texts(cells: Iterable[object]) -> "pa.Array":
    import pyarrow as pa  # noqa: PLC0415 - as above

    return pa.array([None if _is_gap(cell) else str(cell) for cell in cells], pa.string())


def frame_like(rows: object, columns: Mapping[str, Any]) -> Any:  # noqa: ANN401  of the caller's library
    """Return columns as a frame of the library of some rows, with their index.

    Args:
        rows: Rows that the caller gave: a frame of polars gives one of polars, a table of pyarrow a table,
            everything else a data frame of pandas, or a table of pyarrow where pandas is not installed.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    table = pa.table(dict(columns))
    library = type(rows).__module__.partition(".")[0]
    if library == "pyarrow":
        return table
    if library == "polars":
        return type(rows)(table)  # type: ignore[call-arg] # its constructor takes a table
    try:
        frame = table.to_pandas()
    except ImportError:
        return table
    if library == "pandas":
        frame.index = rows.index  # type: ignore[attr-defined] # a frame of pandas
    return frame


def _is_gap(cell: object) -> bool:
    # Not-a-number, and what pandas puts in place of a missing date, differ from themselves.
    return cell is None or type(cell).__name__ == "NAType" or bool(cell != cell)


def _simplify(cells: "pa.ChunkedArray | pa.Array") -> "pa.ChunkedArray | pa.Array":
    """Return cells in one of the few types that stand for the same values.

    Dictionaries, which would go with each request, become their values; large text and views become
    text; decimals become floats.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    kind = cells.type
    if pa.types.is_dictionary(kind):
        value = _simplify(pa.array([], kind.value_type)).type
        return cells.cast(pa.dictionary(pa.int32(), value)).cast(value)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return cells.cast(pa.string())
    if pa.types.is_decimal(kind):
        return cells.cast(pa.float64())
    return cells
