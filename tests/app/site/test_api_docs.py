import re
from pathlib import Path

import pytest

from app.problems.types import PROBLEM_TYPES
from tests.app.conftest import openapi_document

TEXT = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
PATHS = openapi_document()["paths"]
ROUTES = [f"{method.upper()} {path}" for path, methods in PATHS.items() for method in methods]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_documented(route):
    assert f"`{route}`" in TEXT


def test_no_route_is_documented_that_does_not_exist():
    assert set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", TEXT)) <= set(ROUTES)


def test_the_table_of_problems_is_complete_and_true():
    table = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \| (.+) \|$", TEXT, re.MULTILINE)
    known = {(kind.slug, str(kind.status), kind.title) for kind in PROBLEM_TYPES.values()}
    assert set(table) == known
