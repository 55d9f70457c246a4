"""Warnings about the body of a request: what of it is no row, or was read otherwise than it seems."""

import json
from collections.abc import Iterable
from typing import TypedDict

from tabular.formats import TableWarning, WarningCode

BODY_WARNINGS_HEADER = "X-Body-Warnings"
"""Header of the warnings, a JSON list, in every format of a response."""

_ABOUT_ROWS: frozenset[WarningCode] = frozenset({"encoding", "numeric_header", "skipped", "uneven"})
_MOST, _LONGEST = 8, 400
_REMEDY = " If "


class BodyWarning(TypedDict):
    """Warning about a body."""

    code: WarningCode
    detail: str


def body_warnings(found: Iterable[TableWarning]) -> list[BodyWarning]:
    """Return the warnings about the rows of a body: its columns are matched by name, or named."""
    about_rows = [w for w in found if w["code"] in _ABOUT_ROWS]
    return [BodyWarning(code=w["code"], detail=_told(w["detail"])) for w in about_rows[:_MOST]]


def _told(detail: str) -> str:
    """Return what is said, without the option of an upload that would change it."""
    return detail.partition(_REMEDY)[0][:_LONGEST]


def warning_headers(warnings: list[BodyWarning]) -> dict[str, str]:
    """Return the header of the warnings; none if there are none."""
    return {BODY_WARNINGS_HEADER: json.dumps(warnings)} if warnings else {}
