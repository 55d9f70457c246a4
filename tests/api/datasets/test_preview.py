"""Preview of an upload over HTTP: what it tells is what the upload does, and nothing is stored."""

import json
from typing import Any

from tests.api.conftest import CSV, assert_nothing_was_left, assert_refused
from tests.api.datasets.test_routes import workbook
from tests.api.datasets.uploads import upload

MESSY = (
    "date;region;sales\n"
    + "".join(
        f"{day % 28 + 1:02}.03.2025;{['West', 'west', 'East'][day % 3]};{day % 50},{day % 100:02}\n"
        for day in range(120)
    )
    + "Total;;2.880,00\n"
).encode("cp1252")
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def preview(client, body, headers=CSV, **params):
    return client.post("/v1/datasets/preview", content=body, headers=headers, params=params)


def test_a_preview_tells_what_mends_a_table_and_stores_nothing(client, settings):
    found = preview(client, MESSY).json()
    assert found["found"] == {"header": True, "delimiter": ";", "encoding": "utf-8"}
    assert (found["format"], found["rows"], found["options"]) == ("csv", 121, {})
    assert found["first_rows"][0] == ["01.03.2025", "West", "0,00"]
    assert found["last_rows"][-1] == ["Total", "", "2.880,00"]
    options = {}
    for warning in found["warnings"]:
        for remedy in warning["remedies"]:
            if remedy["option"] in {"drop_rows", "merge_levels"}:
                options[remedy["option"]] = json.dumps(remedy["value"])
    mended = preview(client, MESSY, **options).json()
    assert [column["type"] for column in mended["columns"]] == ["datetime", "category", "number"]
    assert mended["columns"][1]["merged"]
    assert_nothing_was_left(client, settings)
    stored = upload(client, MESSY, **options).json()
    for member in ("rows", "columns", "warnings", "options"):
        assert stored[member] == mended[member], member
    assert stored["options"] == {"drop_rows": ["Total"], "merge_levels": ["region"]}
    retyped = client.patch(
        f"/v1/datasets/{stored['id']}", json={"types": {"sales": "category"}}
    ).json()
    assert [one["code"] for one in retyped["warnings"]] == ["dropped"]
    assert retyped["columns"][1]["merged"]
    assert_refused(preview(client, MESSY, merge_levels="nowhere"), 422, "unknown-column")


def test_the_preview_of_a_workbook_names_its_sheets(client):
    rows: list[list[Any]] = [["x", "y"], *([float(i) / 2, i * i] for i in range(30))]
    book = workbook(first=rows, second=[["z"], [1.5], [2.5], [4.5]])
    found = preview(client, book, {"Content-Type": EXCEL}, sheet="second").json()
    assert (found["sheets"], found["found"]["sheet"]) == (["first", "second"], "second")
    assert found["first_rows"] == [["1.5"], ["2.5"], ["4.5"]]
