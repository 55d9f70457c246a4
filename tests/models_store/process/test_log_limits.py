"""No kind of line fills the log; what was left out is counted."""

import logging
import sys
from collections.abc import Iterable

from models_store.process.log_limits import LineLimits


def a_record(second: float, message: str = "m", **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "a", "levelno": logging.WARNING, "msg": message, "created": second} | fields
    )


def told(records: Iterable[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records]


def an_error(text: str) -> object:
    try:
        int(text, base=len(text))
    except ValueError:
        return sys.exc_info()
    raise AssertionError


def another_error() -> object:
    try:
        int("x")
    except ValueError:
        return sys.exc_info()
    raise AssertionError


def test_so_many_lines_of_a_kind_pass_in_ten_seconds_and_the_others_are_counted() -> None:
    limits = LineLimits(max_lines=3)
    passed = [told(limits.passing(a_record(second))) for second in range(10)]
    assert passed == [["m"]] * 3 + [[]] * 7
    assert told(limits.passing(a_record(10))) == [
        "7 lines more were left out within 10 s: a m",
        "m",
    ]
    assert told(limits.left_out()) == []


def test_a_count_comes_with_the_next_line_of_any_kind_or_at_the_end() -> None:
    limits = LineLimits(max_lines=1)
    for _ in range(3):
        told(limits.passing(a_record(0)))
    quiet = a_record(20, "next", levelno=logging.INFO)
    assert told(limits.passing(quiet)) == ["2 lines more were left out within 10 s: a m", "next"]
    for _ in range(2):
        told(limits.passing(a_record(20, limited="requests without a key")))
    [count] = told(limits.left_out())
    assert count == "1 lines more were left out within 10 s: requests without a key"


def test_ordinary_lines_and_those_of_changes_are_never_left_out() -> None:
    limits = LineLimits(max_lines=1)
    for record in (
        a_record(0, levelno=logging.INFO),
        a_record(0, name="app.audit", levelno=logging.ERROR),
    ):
        assert [told(limits.passing(record)) for _ in range(5)] == [["m"]] * 5


def test_tracebacks_are_of_one_kind_when_they_end_at_one_place() -> None:
    limits = LineLimits(max_lines=9, max_tracebacks=2)

    def passed(error: object) -> int:
        return len(told(limits.passing(a_record(0, exc_info=error))))

    assert [passed(an_error("xy")) for _ in range(4)] == [1, 1, 0, 0]
    assert passed(another_error()) == 1


def test_kinds_without_number_share_a_limit() -> None:
    limits = LineLimits(max_lines=5)
    passed = sum(len(told(limits.passing(a_record(0, str(number))))) for number in range(1_000))
    assert passed == 205
    assert told(limits.left_out()) == ["795 lines more were left out within 10 s: of many kinds"]
