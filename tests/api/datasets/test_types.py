"""Types of the columns of datasets: inferred, stated and corrected."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models_store.consistency import Comparison, compare
from tabular import processes
from tabular.columns import Column
from tests.api.conftest import CSV, assert_nothing_was_left, assert_refused, files_of
from tests.api.datasets.test_routes import MIXED, upload, workbook


class TestTypes:
    def test_columns_have_types_with_reasons_and_statistics(self, client):
        dataset = upload(client, MIXED).json()
        columns = {column["name"]: column for column in dataset["columns"]}
        assert {name: column["type"] for name, column in columns.items()} == {
            "x1": "ignored",
            "name": "ignored",
            "size": "category",
            "born": "datetime",
            "price": "number",
            "zip": "category",
            "note": "ignored",
        }
        assert all(column["reason"] for column in columns.values())
        assert columns["size"]["levels"] == ["M", "L", "S"]
        assert columns["size"]["level_counts"] == [21, 20, 20]
        assert columns["born"]["missing_count"] == 1
        assert columns["price"]["max"] == 413.59
        assert {warning["code"] for warning in dataset["warnings"]} == {
            *("ignored", "few_rows", "renamed")
        }

    def test_columns_say_how_their_cells_are_written(self, client):
        table = "price;seen\n" + "".join(
            f"{1234 + i}.50 kg;2024-01-02 0{i % 9}:30\n" for i in range(40)
        )
        created = upload(client, table.replace(".", ",")).json()
        price, seen = client.get(f"/v1/datasets/{created['id']}").json()["columns"]
        assert (price["decimal"], price["unit"]) == (",", "kg")
        assert (price["thousands"], price["na_values"]) == ("", [])
        assert (seen["date_only"], seen["step_s"]) == (False, 1800)
        assert all({*Column.__dataclass_fields__} <= column.keys() for column in (price, seen))
        table = "price;n\n" + "".join(f"1.{i},5;{i}\n" for i in range(100, 140))
        price = upload(client, table, decimal=",", thousands=".").json()["columns"][0]
        assert (price["thousands"], price["max"]) == (".", 1139.5)

    def test_rows_come_back_as_the_file_has_them(self, client):
        location = upload(client, MIXED).headers["location"] + "/rows"
        content = client.get(location, params={"offset": 59}).json()
        assert content["rows"] == [
            [60, "n59, x", "L", "04/03/2021", 413.59, "03", None],
            [61, "n\n60", "M", None, 1.5, "01", None],
        ]
        rows = client.get(location, headers={"Accept": "application/x-npy"})
        numbers = np.load(io.BytesIO(rows.content))
        assert numbers.shape == (61, 4)
        assert numbers[60, [0, 2]].tolist() == [0.0, 1.5]
        text = client.get(location, headers={"Accept": "text/csv"}).text
        assert list(csv.reader(io.StringIO(text)))[61][:3] == ["61", "n\n60", "M"]
        state = client.app.state
        cells = state.registry.dataset("default", location.split("/")[-2]).cells
        path = state.blobs.path(cells["key"])
        path.write_bytes(path.read_bytes()[:-1])
        assert_refused(client.get(location), 503, "artifact-corrupt")

    def test_options_state_types_and_leave_columns_out(self, client):
        dataset = upload(
            client,
            MIXED,
            types='{"zip": "integer", "name": "category"}',
            exclude=["born", "note"],
            na_values='["L"]',
            max_levels="2",
        ).json()
        columns = {column["name"]: column for column in dataset["columns"]}
        assert columns["zip"]["type"] == "integer"
        assert columns["zip"]["max"] == 3
        assert (columns["name"]["other"], len(columns["name"]["levels"])) == (True, 2)
        assert columns["born"]["type"] == "ignored"
        assert columns["size"]["missing_count"] == 20
        only = upload(client, MIXED, columns="size").json()["columns"]
        assert [c["name"] for c in only if c["type"] != "ignored"] == ["size"]

    def test_all_columns_that_cannot_be_of_their_types_are_named_at_once(self, client, settings):
        response = upload(client, MIXED, types='{"name": "number", "size": "boolean"}')
        assert_refused(response, 422, "dataset-dtype")
        assert [error["column"] for error in response.json()["errors"]] == ["name", "size"]
        unknown = upload(client, MIXED, exclude=["a", "b"])
        assert_refused(unknown, 422, "unknown-column")
        assert [error["column"] for error in unknown.json()["errors"]] == ["a", "b"]
        assert_nothing_was_left(client, settings)

    def test_cells_that_are_kept_are_files_of_their_dataset(self, client, blobs):
        created = upload(client, MIXED).json()
        whole = Comparison(checked=2, unusable=[], orphans=[], foreign=[])
        database = client.app.state.database
        assert compare(database, blobs, deep=True, grace_s=0) == whole
        client.patch(f"/v1/datasets/{created['id']}", json={"types": {"size": "ignored"}})
        assert compare(database, blobs, deep=True, grace_s=0) == whole


class TestRetyping:
    def change(self, client, location, **types):
        return client.patch(location, json={"types": types})

    def test_a_type_is_corrected_without_another_upload(self, client, settings):
        first = upload(client, MIXED)
        location = first.headers["location"]
        response = self.change(client, location, zip="integer", name="category")
        assert response.status_code == 200
        dataset = response.json()
        columns = {column["name"]: column for column in dataset["columns"]}
        before = {column["name"]: column for column in first.json()["columns"]}
        assert (columns["zip"]["type"], columns["name"]["type"]) == ("integer", "category")
        assert len(columns["name"]["levels"]) == 61
        for name in ("x1", "size", "born", "price", "note"):
            assert columns[name] == before[name]
        stepped = client.get(location + "/rows", params={"offset": 59, "step": 2}).json()
        assert stepped["rows"] == [[60, "n59, x", "L", "04/03/2021", 413.59, 3, None]]
        rows = client.get(location + "/rows", params={"offset": 59}).json()["rows"]
        assert rows == [
            [60, "n59, x", "L", "04/03/2021", 413.59, 3, None],
            [61, "n\n60", "M", None, 1.5, 1, None],
        ]
        assert client.get(location).json() == dataset
        assert len(files_of(settings)) == 2, "the old files are gone"
        again = self.change(client, location, size="ignored").json()
        stated = {"zip": "integer", "name": "category", "size": "ignored"}
        assert again["options"] == {"types": stated}

    def test_the_reasons_of_other_columns_are_those_of_the_file(self, client):
        first = upload(client, MIXED.replace(b'"1,5"', b"n.d."), missing="drop")
        again = self.change(client, first.headers["location"], zip="integer")
        before, after = (answer.json()["columns"][4] for answer in (first, again))
        assert after["reason"] == before["reason"]
        assert "All cells but 1 are numbers" in before["reason"]

    def test_a_type_can_be_changed_back(self, client):
        first = upload(client, MIXED)
        location = first.headers["location"]
        self.change(client, location, size="ignored", price="category", born="category")
        again = self.change(client, location, size="category", price="number", born="datetime")
        kinds = [column["type"] for column in again.json()["columns"]]
        assert kinds == [column["type"] for column in first.json()["columns"]]
        assert again.json()["sha256"] == first.json()["sha256"]

    def test_a_change_that_cannot_be_leaves_the_dataset_as_it_was(self, client, settings):
        first = upload(client, MIXED)
        location = first.headers["location"]
        for slug, types in (
            ("dataset-dtype", {"size": "number"}),
            ("unknown-column", {"nothing": "number"}),
            ("validation", {"size": "text"}),
            ("validation", {}),
        ):
            assert_refused(client.patch(location, json={"types": types}), 422, slug)
        assert client.get(location).json() == first.json()
        assert len(files_of(settings)) == 2

    def test_of_changes_at_once_each_is_made_or_is_a_conflict(self, client, settings):
        location = upload(client, MIXED).headers["location"]
        with ThreadPoolExecutor(4) as callers:
            answers = list(
                callers.map(lambda _: self.change(client, location, zip="integer"), range(4))
            )
        statuses = {answer.status_code for answer in answers}
        assert 200 in statuses
        assert statuses <= {200, 409}
        assert len(files_of(settings)) == 2

    def test_a_dataset_that_goes_while_its_types_change_is_not_found(
        self, client, settings, monkeypatch
    ):
        location = upload(client, MIXED).headers["location"]

        run = processes.run

        def late(*given, **options):
            assert client.delete(location).status_code == 204
            return run(*given, **options)

        monkeypatch.setattr(processes, "run", late)
        assert_refused(self.change(client, location, zip="integer"), 404, "not-found")
        assert_nothing_was_left(client, settings)

    @pytest.mark.parametrize("condition", [None, "the tag"])
    def test_labels_that_change_while_types_do_are_not_lost_to_if_match(
        self, client, monkeypatch, condition
    ):
        location = upload(client, MIXED).headers["location"]
        tag = client.get(location).headers["ETag"] if condition == "the tag" else condition
        labels = {"description": "mine", "tags": {"a": "1"}}

        run = processes.run

        def late(*given, **options):
            other = {"description": "theirs", "tags": {"a": "2", "b": "3"}}
            assert client.patch(location, json=other).status_code == 200
            return run(*given, **options)

        monkeypatch.setattr(processes, "run", late)
        response = client.patch(
            location,
            json={"types": {"zip": "integer"}, **labels},
            headers={} if tag is None else {"If-Match": tag},
        )
        dataset = client.get(location).json()
        kind = next(one["type"] for one in dataset["columns"] if one["name"] == "zip")
        if condition == "the tag":
            assert_refused(response, 412, "precondition")
            assert (dataset["description"], dataset["tags"]) == ("theirs", {"a": "2", "b": "3"})
            assert kind == "category"
            stale = {"json": {"types": {"zip": "integer"}}, "headers": {"If-Match": tag}}
            assert_refused(client.patch(location, **stale), 412, "precondition")
        else:
            assert response.json() == dataset
            assert (dataset["description"], dataset["tags"]) == ("mine", {"a": "1", "b": "3"})
            assert kind == "integer"

    def test_a_dataset_that_is_gone_is_not_found(self, client):
        gone = "/v1/datasets/ds_" + "0" * 32
        assert_refused(self.change(client, gone, a="number"), 404, "not-found")


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
    assert mended["last_rows"][-1][0] == "08.03.2025"
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
