import re
from pathlib import Path

from tests.app.conftest import openapi_document

TEXT = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
PATHS = openapi_document()["paths"]
ROUTES = [f"{method.upper()} {path}" for path, methods in PATHS.items() for method in methods]


def test_no_route_is_documented_that_does_not_exist():
    assert set(re.findall(r"`((?:GET|POST|PUT|DELETE) /v[^`?]*)`", TEXT)) <= set(ROUTES)
