"""Threads of Arrow in a process that reads a file."""

from typing import Any

from tabular.formats import TableFormat


def start_threads(task: dict[str, Any]) -> None:
    """Start the threads that Arrow reads CSV with.

    Where it gets no memory for one later, its reader waits for itself without an end.

    Args:
        task: Task that names the format of the file.
    """
    if task["format"] != TableFormat.CSV:
        return
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415  slow to import, untyped
    import pyarrow.csv as pa_csv  # type: ignore[import-untyped]  # noqa: PLC0415  as above

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    pa_csv.open_csv(pa.BufferReader(b"a\n1\n")).read_all()
