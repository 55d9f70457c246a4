"""Files of rows are decoded in few threads: they keep the interpreter's lock, for which the event loop waits."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from app.fairness.turns import Threads, on_account_of
from app.rows.decode import tables
from app.rows.shape import RowsShape
from tables.formats import TableFormat
from tests.app.decoding import decode_pieces


@pytest.mark.fault(703)
@pytest.mark.parametrize(("columns", "taking"), [(5, "cells"), (65, "documents")])
def test_fault_703_files_of_all_projects_are_decoded_in_two_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, taking: str
) -> None:
    used: dict[str, set[str]] = {"open_table": set(), "_taken": set()}

    def watch(name: str) -> None:
        call = getattr(tables, name)

        def watched(*args: Any, **options: Any) -> Any:
            used[name].add(threading.current_thread().name.partition("_")[0])
            return call(*args, **options)

        monkeypatch.setattr(tables, name, watched)

    for name in used:
        watch(name)
    names = [f"x{place}" for place in range(columns)]
    body = ",".join(names) + "\n" + ",".join(['"1"'] * columns) + "\n"
    pools = {name: Threads(name, 1, each=1) for name in ("documents", "cells")}
    threads = Threads("requests", 6, each=2, alone=pools["documents"], cells=pools["cells"])

    async def read(project: str) -> None:
        folder = tmp_path / project
        folder.mkdir()
        with on_account_of(project, threads):
            shape = RowsShape(names, max_rows=10)
            rows = await decode_pieces([body.encode()], TableFormat.CSV, shape, folder)
        assert rows.tolist() == [[1.0] * columns]

    async def main() -> None:
        await asyncio.gather(*map(read, ["one", "two", "three"]))

    asyncio.run(main())
    threads.close()
    assert used == {"open_table": {"documents"}, "_taken": {taking}}
