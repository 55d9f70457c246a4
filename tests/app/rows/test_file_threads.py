"""Files of rows are decoded in few threads: they keep the interpreter's lock, for which the event loop waits."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from app.fairness.turns import Threads, on_account_of
from app.rows.decode import tables
from app.rows.model_types import ModelTypes
from app.rows.shape import RowsShape
from tabular.columns import Column
from tabular.formats import TableFormat
from tests.app.decoding import decode_pieces


@pytest.mark.parametrize(("columns", "taking"), [(5, "cells"), (65, "documents")])
def test_files_of_all_projects_are_decoded_in_two_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, taking: str
) -> None:
    used: dict[str, set[str]] = {"open_table": set(), "_take_some": set()}

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
    assert used == {"open_table": {taking}, "_take_some": {taking}}


class CountingThreads(Threads):
    """Threads that note the functions they call."""

    def __init__(self, name: str, at_once: int, *, each: int, **options: Any) -> None:
        super().__init__(name, at_once, each=each, **options)
        self.calls = 0

    async def run(self, owner: str, function: Any, /, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return await super().run(owner, function, *args, **options)


CSV_BODY = "a,b" + ",left" * 600 + "\n" + ("1.5,x" + ",7" * 600 + "\n") * 2_000
NDJSON_BODY = '{"a": 1.5, "b": "x"}\n' * 120_000


@pytest.mark.parametrize(
    ("kind", "body", "turns"),
    [(TableFormat.CSV, CSV_BODY, 4), (TableFormat.NDJSON, NDJSON_BODY, 8)],
)
def test_a_file_is_read_in_turns_however_little_of_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: TableFormat, body: str, turns: int
) -> None:
    monkeypatch.setattr(tables, "_TAKING_S", 0.0, raising=False)
    files = CountingThreads("files", 1, each=1)
    documents = CountingThreads("documents", 1, each=1)
    threads = CountingThreads("requests", 2, each=2, alone=documents, files=files)
    types = ModelTypes((Column(name="a"), Column(name="b", type="category", levels=("x",))), dim=2)
    shape = RowsShape(["a", "b"], 200_000, types=types, ignores_extra=True)

    async def main() -> None:
        with on_account_of("one", threads):
            rows = await decode_pieces([body.encode()], kind, shape, tmp_path)
        assert rows.tolist() == [[1.5, 0.0]] * (body.count("\n") - (kind is TableFormat.CSV))

    asyncio.run(main())
    threads.close()
    assert files.calls >= turns
    assert documents.calls == 1


def test_a_large_file_is_opened_beside_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"a,b\n1.5,x\n"
    monkeypatch.setattr(tables, "_SMALL_FILE_BYTES", len(body) - 1, raising=False)
    documents = CountingThreads("documents", 1, each=1)
    threads = CountingThreads("requests", 2, each=2, alone=documents)
    types = ModelTypes((Column(name="a"), Column(name="b", type="category", levels=("x",))), dim=2)
    shape = RowsShape(["a", "b"], 10, types=types, ignores_extra=True)

    async def main() -> None:
        with on_account_of("one", threads):
            rows = await decode_pieces([body], TableFormat.CSV, shape, tmp_path)
        assert rows.tolist() == [[1.5, 0.0]]

    asyncio.run(main())
    threads.close()
    assert documents.calls == 0
