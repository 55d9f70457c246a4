"""Constants of queries that stand in their text, for what is looked for often.

A parameter in their place is slower by far: SQLite plans a query anew at each run where its value
decides whether an index of some rows serves, and SQLAlchemy writes a list of values anew each time.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, literal_column


def constant(value: StrEnum) -> ColumnElement[str]:
    """Return a member of an enumeration as it is written in SQL."""
    return literal_column(f"'{value}'", Text)


def is_one_of(column: SQLColumnExpression[Any], values: Iterable[StrEnum]) -> ColumnElement[bool]:
    """Return the condition that a column holds one of some members."""
    return column.in_([constant(value) for value in sorted(values)])
