import time

import pytest

from models_store.errors import DatabaseUnavailableError, FencedError
from workers.supervisor.writes import Writes


class FlakyDatabase:
    """Answers only from its `good_after`-th call on."""

    def __init__(self, good_after: int) -> None:
        self.calls = 0
        self.written: list[str] = []
        self._good_after = good_after

    def write(self, text: str) -> bool:
        self.calls += 1
        if self.calls <= self._good_after:
            raise DatabaseUnavailableError
        self.written.append(text)
        return True


def test_writes_run_in_order() -> None:
    database, writes = FlakyDatabase(0), Writes()
    writes.add(lambda: database.write("a"))
    writes.add(lambda: database.write("b"))

    assert writes.flush()
    assert database.written == ["a", "b"]
    assert not writes.waiting


def test_a_write_waits_for_the_database_and_keeps_its_place() -> None:
    database, writes = FlakyDatabase(1), Writes()
    writes.add(lambda: database.write("a"))
    writes.add(lambda: database.write("b"))

    assert not writes.flush()
    assert writes.waiting
    assert not writes.flush(), "tried again without a pause"
    assert database.calls == 1
    deadline = time.monotonic() + 60
    while not writes.flush():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert database.written == ["a", "b"]


def test_a_write_that_is_not_worth_keeping_is_dropped_while_the_database_is_away() -> None:
    database, writes = FlakyDatabase(1), Writes()

    assert writes.now(lambda: database.write("lost")) is None
    assert writes.now(lambda: database.write("not tried")) is None
    assert database.calls == 1
    assert not writes.waiting


def test_a_fenced_write_ends_everything() -> None:
    def fenced() -> None:
        raise FencedError("job_1", attempt=2)

    writes = Writes()
    writes.add(fenced)

    with pytest.raises(FencedError):
        writes.flush()
