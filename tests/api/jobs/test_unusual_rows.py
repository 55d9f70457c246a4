"""Unusual rows of a training and of a scoring, with their reasons, and what people found about them."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openpyxl  # type: ignore[import-untyped] # it ships no type information
import pytest
from starlette.testclient import TestClient

from app.models.verdict import VerdictView
from app.settings import ApiSettings
from app.unusual.files import unusual_file
from app.unusual.views import UnusualView
from flows import MafSpec
from models_store.database.database import Database
from tests.api.conftest import CSV, assert_refused
from tests.api.serving import registered, stores
from tests.jobs.workers.crash_child import InlineTrainers
from tests.tables import files
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor

RANDOM = np.random.default_rng(5)
ROWS, WRONG, SWAPPED = 300, 123, 210
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def sales() -> bytes:
    """Orders: a shop in a city, and a total of about 10 a unit; one total is ten times too large."""
    lines = ["id,day,city,shop,units,total"]
    for row in range(ROWS):
        units = int(RANDOM.integers(2, 60))
        city = "Oslo" if row % 2 else "Rome"
        shop = "north" if row % 2 else "south"
        total = 10 * units + RANDOM.normal()
        if row == WRONG:
            total *= 10
        if row == SWAPPED:
            shop = "north"
        year = 2024 if row else 1990  # one is far from the time that the table covers
        lines.append(f"A{row},{year}-{1 + row % 12:02d}-15,{city},{shop},{units},{total:.2f}")
    return "\n".join(lines).encode()


TABLE = sales()
COLUMNS = ["city", "shop", "units", "total"]
OPTIONS = {"max_epochs": 25, "seed": 3, "learning_rate": 0.01}


def rising(is_rising: bool, gain: float) -> dict[str, Any]:
    return {"still_rising": is_rising, "expected_gain": gain, "validation_standard_error": 0.33}


def gained(over: str, gain: float, error: float = 0.0) -> dict[str, float]:
    return {f"gain_over_{over}": gain, f"gain_over_{over}_standard_error": error}


def fitted(gap: float, error: float = 0.0) -> dict[str, float]:
    """Figures of a version whose training rows are likelier by a gap."""
    errors = {f"{part}_standard_error": error / 2**0.5 for part in ("train", "test")}
    return {"train_log_likelihood": gap, "test_log_likelihood": 0.0, **errors}


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    return shared_client


@pytest.fixture(scope="module")
def supervisor(shared_settings: ApiSettings) -> Iterator[Supervisor]:
    database = Database(shared_settings.resolved_database_url)
    own = WorkerSettings(data_dir=shared_settings.data_dir, device="cpu", trainer_nice=0)
    yield Supervisor(database, own, worker="tester", trainers=InlineTrainers())
    database.dispose()


@pytest.fixture(scope="module")
def dataset(client: TestClient, supervisor: Supervisor) -> str:
    """The dataset of `sales:1`, whose version all tests read."""
    return trained(client, supervisor, uploaded(client))


def uploaded(client: TestClient, table: bytes = TABLE) -> str:
    response = client.post("/v1/datasets", params={"exclude": "id"}, content=table, headers=CSV)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def started(client: TestClient, kind: str, **body: Any) -> str:
    response = client.post(f"/v1/jobs/{kind}", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def trained(client: TestClient, supervisor: Supervisor, dataset: str, **body: Any) -> str:
    """Train the next version of a model on a dataset, whose id is returned."""
    body = {"model_name": "sales", "dataset_id": dataset, "columns": COLUMNS} | body
    job = started(client, "training", **{"optimisation": OPTIONS} | body)
    assert supervisor.run_next()
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    return dataset


def unusual(client: TestClient, path: str = "/v1/models/sales:1/unusual", **query: Any) -> Any:
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_training_keeps_unusual_rows_with_what_would_be_usual(client, dataset):
    found = unusual(client, limit=5)
    assert (found["model"], found["dataset_id"], found["total_rows"]) == ("sales:1", dataset, ROWS)
    assert found["columns"] == ["id", "day", "city", "shop", "units", "total"]
    assert unusual(client, limit=5, dataset_id=dataset) == found
    assert {row["row"] for row in found["rows"]} > {WRONG, SWAPPED}
    wrong = next(row for row in found["rows"] if row["row"] == WRONG)
    assert (wrong["cells"]["id"], wrong["cells"]["day"][:4]) == (f"A{WRONG}", "2024")
    worst = wrong["reasons"][0]
    usual, units = worst["usual"], wrong["cells"]["units"]
    assert (worst["column"], worst["value"]) == ("total", wrong["cells"]["total"])
    assert usual["low"] < 10 * units + 30
    assert usual["high"] > 10 * units - 30
    assert usual["high"] < worst["value"] / 2
    assert worst["difference"] < -5
    swapped = next(row for row in found["rows"] if row["row"] == SWAPPED)
    told = {reason["column"]: reason["levels"] for reason in swapped["reasons"]}
    assert told["shop"] == ["south"]
    assert told["city"] == ["Oslo"]
    scores = [row["log_prob"] for row in unusual(client, limit=100)["rows"]]
    assert scores == sorted(scores)
    assert isinstance(wrong["cells"]["units"], int), "a whole number is told as one"


def test_a_version_has_a_verdict_made_of_facts(client, dataset):
    version = client.get("/v1/models/sales/versions/1").json()
    verdict, metrics = version["verdict"], version["metrics"]
    facts = {fact["name"]: fact for fact in verdict["facts"]}
    gain = facts["independent"]
    assert gain["value"] == metrics["gain_over_independent"] > 2
    assert "times likelier than if the columns had nothing to do with each other" in gain["text"]
    assert (facts["held_out"]["value"], facts["held_out"]["good"]) == (30, False)
    assert verdict["level"] == "usable_with_care"
    assert verdict["sentence"].startswith("Usable with care: ")
    listed = client.get("/v1/models/sales/versions").json()["items"][-1]
    assert listed["verdict"] == verdict
    assert version["lineage"]["dataset_id"] == dataset


IN_TIME = "More time would hardly help: "


@pytest.mark.parametrize(
    ("name", "metrics", "good", "text"),
    [
        ("training", {"still_rising": False}, True, f"{IN_TIME}the likelihood of validation"),
        ("training", rising(False, 0.05), True, f"{IN_TIME}twice the time is expected to gain 0.05"),
        ("training", rising(False, 0.5), None, "More time may help: twice the time is expected"),
        ("training", rising(True, 0.9), False, "Training ended while it still improved: twice"),
        ("simple", gained("gaussian", -0.1, 0.06), True, "It is as good as one Gaussian"),
        ("simple", gained("gaussian", -0.1, 0.04), False, "Rows are on average 1.1 times likelier by"),
        ("simple", gained("gaussian", 0.9, 0.04) | gained("mixture", 0.1, 0.04), True, "Rows are on average 1.1 times likelier than by"),
        ("independent", gained("independent", -0.1, 0.04), False, "Rows are less likely than if"),
        ("independent", gained("independent", 0.1, 0.06), None, "No dependence between"),
        ("independent", gained("independent", 13.81), True, "average 994,505 times likelier than"),
        ("independent", gained("independent", 13.9), True, "average more than a million times likelier"),
        ("data", fitted(0.05), True, "It fits rows that it has not seen as well as"),
        ("data", fitted(0.5, 0.3), True, "It fits rows that it has not seen as well as"),
        ("data", fitted(0.5), None, "it was trained on 1.6 times the density of others"),
        ("data", fitted(0.6), False, "More rows would probably help: it gives"),
        ("columns", {"column_distances": {"a": 0.11, "b": 0.1}}, False, "These columns fit badly, by the distance of samples from held-out rows: a (0.11)."),
        ("columns", {"column_distances": {"a": 0.02, "b": 0.1}}, True, "less well than the others, by the distance of samples from held-out rows: a (0.02), b (0.10)."),
        ("columns", {"column_distances": {}}, True, "All columns fit."),
        ("ranks", {"rank_distance": 0.2, "rank_distance_limit": 0.2}, True, "Ranks hold on"),
        ("ranks", {"rank_distance": 0.2, "rank_distance_limit": 0.1}, False, "off by up to 0.20"),
        ("held_out", {"test_rows": 99}, False, "by 99 held-out rows only: no rank is below 0.01."),
        ("held_out", {"test_rows": 100}, True, "by 100 held-out rows; the lowest rank is 0.0099."),
    ],
)  # fmt: skip
def test_a_verdict_says_what_its_figures_say(name, metrics, good, text):
    known = {"gain_over_independent": 1.0, "test_rows": 500} | metrics
    verdict = VerdictView.of(known, dim=2)
    assert verdict is not None
    [fact] = [fact for fact in verdict.facts if fact.name == name]
    assert fact.good is good
    assert text in fact.text
    is_bad = good is False or (name, good) == ("independent", None)
    level = "not_usable" if (name, good) == ("independent", False) else "usable_with_care"
    assert verdict.level == (level if is_bad else "usable")
    assert verdict.sentence.endswith(fact.text[1:]) is (is_bad or name == "independent")
    alone = VerdictView.of(known, dim=1)
    assert alone is not None
    assert "independent" not in {fact.name for fact in alone.facts}


def test_what_looks_like_a_formula_is_a_text_in_a_file():
    view = UnusualView.model_validate(UnusualView.model_json_schema()["examples"][0])
    view.rows[0].cells["height"] = "=1+1"
    [reason] = view.rows[0].reasons
    for levels, told in (([], "other values"), ([None, "a"], "missing or a")):
        view.rows[0].reasons = [
            reason.model_copy(update={"value": None, "usual": None, "levels": levels})
        ]
        assert f"missing: usual here {told}".encode() in unusual_file(view, "text/csv")[0]
    assert b",'=1+1," in unusual_file(view, "text/csv")[0]
    sheet = openpyxl.load_workbook(io.BytesIO(unusual_file(view, EXCEL)[0])).active
    assert [cell.data_type for cell in sheet[2] if cell.value == "=1+1"] == ["s"]


def test_thresholds_count_all_rows_and_those_a_month(client, dataset):
    found = unusual(client, limit=100)
    assert found["dataset_id"] == dataset
    below = next(one for one in found["thresholds"] if one["rank"] == 0.05)
    assert found["thresholds"][0]["rank"] >= 1 / (found["held_out"]["rows"] + 1)
    flagged = unusual(client, limit=100, max_rank=0.05)["rows"]
    assert len(flagged) == below["rows"] > 0
    assert all(row["rank"] <= 0.05 for row in flagged)
    assert unusual(client, limit=100, max_rank=flagged[-1]["rank"])["rows"] == flagged
    assert found["thresholds"][-1]["rows"] == ROWS
    assert found["period"]["column"] == "day"
    assert 10 < found["period"]["months"] < 12
    assert below["per_month"] == pytest.approx(below["rows"] / found["period"]["months"], abs=0.01)
    held_out = {row["row"] for row in unusual(client, limit=100)["rows"] if row["held_out"]}
    assert 0 < len(held_out) < 100
    second = unusual(client, limit=2, offset=1)["rows"]
    assert [row["row"] for row in second] == [row["row"] for row in found["rows"][1:3]]


def test_a_review_is_shown_by_later_versions_and_scorings(client, supervisor, dataset):
    [worst] = unusual(client, limit=1)["rows"]
    path = f"/v1/models/sales/reviews/{worst['digest']}"
    given = client.put(path, json={"review": "confirmed"})
    assert given.json()["review"] == "confirmed"
    trained(client, supervisor, dataset)
    later = unusual(client, "/v1/models/sales:2/unusual", limit=100)
    by_row = {row["row"]: row for row in later["rows"]}
    assert by_row[worst["row"]]["review"] == "confirmed"
    job = started(client, "scoring", model="sales:2", dataset_id=dataset)
    assert supervisor.run_next()
    scored = unusual(client, f"/v1/jobs/{job}/rows", sort="rank", limit=100)
    assert (scored["job_id"], scored["rows"][0]["held_out"]) == (job, None)
    assert {row["row"]: row["review"] for row in scored["rows"]}[worst["row"]] == "confirmed"
    assert scored["rows"][0]["reasons"]
    assert client.delete(path).status_code == 204
    assert {row["review"] for row in unusual(client, limit=100)["rows"]} == {None}
    assert_refused(client.delete(path), 404, "not-found")


def test_what_is_flagged_is_a_file_for_spreadsheets(client, dataset):
    query = {"max_rank": 0.05, "limit": 1000}
    path = f"/v1/models/sales:1/unusual?dataset_id={dataset}"
    text = client.get(path, params=query, headers={"Accept": "text/csv"})
    assert text.headers["content-disposition"].endswith('"sales-1-unusual.csv"')
    lines = text.content.decode().splitlines()
    flagged = unusual(client, limit=100, max_rank=0.05)["rows"]
    assert len(lines) == 1 + len(flagged)
    head = ["row", "held_out", "rank", "log_prob", "reasons", "review"]
    head += ["id", "day", "city", "shop", "units", "total"]
    assert lines[0].split(",") == head
    book = client.get(path, params=query, headers={"Accept": EXCEL})
    sheet = openpyxl.load_workbook(io.BytesIO(book.content)).active
    assert [cell.value for cell in sheet[1]] == head
    worst = {cell.value: sheet[2][at].value for at, cell in enumerate(sheet[1])}
    assert worst["row"] == flagged[0]["row"]
    assert worst["total"] == flagged[0]["cells"]["total"]
    assert "usual here" in worst["reasons"]


def test_two_versions_are_compared_on_rows_that_neither_has_seen(client, supervisor, dataset):
    brief = {"model_name": "brief", "optimisation": {"max_epochs": 1, "seed": 3}}
    split = {
        "train": 0.9,
        "validation": 0.05,
        "test": 0.05,
    }  # on half of what the other has not seen
    trained(client, supervisor, dataset, **brief, split=split)
    path, query = "/v1/models/sales:1/compare", {"with": "brief"}
    found = client.get(path, params=query).json()
    assert (found["model"], found["with"], found["better"]) == ("sales:1", "brief:1", "sales:1")
    assert (found["rows"], found["unseen"], found["sure"]) == (30, True, True)
    assert found["difference"] > 2 * found["standard_error"] > 0
    assert "sales:1 is better" in found["sentence"]
    back = client.get("/v1/models/brief/compare?with=sales:1").json()
    assert back["difference"] == pytest.approx(-found["difference"])
    lines = TABLE.decode().split("\n")
    other = uploaded(client, "\n".join([lines[0], *lines[200:]]).encode())
    assert client.get(path, params=query | {"dataset_id": other}).json()["rows"] == 101
    assert_refused(client.get(path, params={"with": "sales:1"}), 409, "compare-unavailable")
    trained(client, supervisor, other, **brief)  # whose rows may be among those of the first
    found = client.get(path, params={"with": "brief:2"}).json()
    assert (found["dataset_id"], found["unseen"]) == (dataset, False)
    trained(client, supervisor, dataset, **brief | {"columns": COLUMNS[:3]})
    assert_refused(client.get(path, params={"with": "brief:3"}), 409, "compare-unavailable")


def test_rows_of_a_model_without_a_dataset_have_no_ranks(client, supervisor):
    registered(*stores(client), name="known", columns=["units", "total"])
    refused = client.get("/v1/models/known/unusual")
    assert "not trained on" in assert_refused(refused, 409, "unusual-unavailable")["detail"]
    week = [
        TABLE.split(b"\n")[0],
        *(b"A%d,2024-03-0%d,Oslo,north,170,70" % (d, d) for d in range(1, 8)),
    ]
    dataset_id = uploaded(client, b"\n".join([*week, b"A8,2024-03-05,Oslo,north,170,500"]))
    job = started(client, "scoring", model="known", dataset_id=dataset_id)
    assert supervisor.run_next()
    found = unusual(client, f"/v1/jobs/{job}/rows", max_rank=0.5)
    assert (found["held_out"], found["thresholds"], found["period"]) == (None, [], None)
    assert (found["rows"][0]["row"], len(found["rows"])) == (7, 8)
    assert {row["rank"] for row in found["rows"]} == {None}
    assert found["rows"][0]["reasons"][0]["column"] == "total"


def test_cells_of_a_large_model_are_judged_without_the_others(client, supervisor):
    table = np.random.default_rng(0).normal(100, 10, size=(20, 100)).round(2)
    table[7, :7] = 500.1 + np.arange(7)
    names = [f"x{place}" for place in range(1, 101)]
    registered(*stores(client), name="large", spec=MafSpec(layers=2, hidden=[1024]), columns=names)
    npy = {"Content-Type": "application/x-npy"}
    made = client.post("/v1/datasets", content=files.npy(table.astype(np.float32)), headers=npy)
    job = started(client, "scoring", model="large", dataset_id=made.json()["id"])
    assert supervisor.run_next()
    rows = unusual(client, f"/v1/jobs/{job}/rows")["rows"]
    low, high = np.quantile(table, [0.05, 0.95], axis=0)
    for row in rows:
        cells = table[row["row"]]
        assert list(row["cells"].values()) == cells.tolist()
        beyond = np.maximum(low - cells, cells - high) / (high - low)
        places = np.argsort(-beyond)[: min(5, (beyond > 0).sum())]
        told = [(one["column"], one["value"], one["difference"]) for one in row["reasons"]]
        assert told == [(names[place], cells[place], None) for place in places]
        usual = [list(one["usual"].values()) for one in row["reasons"]]
        assert usual == [pytest.approx([low[at], high[at]], rel=0.01) for at in places]


def test_refusals_say_what_to_do(client, supervisor, dataset):
    more = (
        b"\nB300,2024-01-15,Oslo,north,12.5,125.0"  # beside it the others' units are 12.0, not 12
    )
    other = uploaded(client, TABLE.replace(b"\nA", b"\nB") + more)
    refused = client.get(f"/v1/models/sales:1/unusual?dataset_id={other}")
    assert_refused(refused, 409, "unusual-not-scored")
    job = started(client, "scoring", model="sales:1", dataset_id=other)
    assert_refused(client.get(f"/v1/jobs/{job}/rows"), 409, "result-not-ready")
    assert supervisor.run_next()
    found = unusual(client, dataset_id=other)
    assert found["job_id"] == job
    own = {row["row"]: row["digest"] for row in unusual(client, limit=100)["rows"]}
    again = {row["row"]: row["digest"] for row in found["rows"] if row["row"] < ROWS}
    assert own.items() >= again.items() > set()
    assert_refused(client.get("/v1/models/sales:1/unusual?limit=101"), 422, "validation")
    brief = {"model_name": "orphan", "optimisation": {"max_epochs": 1}}
    gone = trained(client, supervisor, uploaded(client), **brief)
    assert gone != dataset
    assert unusual(client, "/v1/models/orphan/unusual", offset=ROWS)["rows"] == []
    types = {"types": {"city": "ignored"}}
    assert client.patch(f"/v1/datasets/{gone}", json=types).is_success
    refused = client.get("/v1/models/orphan/unusual")
    assert "other types" in assert_refused(refused, 409, "unusual-unavailable")["detail"]
    assert client.delete(f"/v1/datasets/{gone}").status_code == 204
    refused = client.get("/v1/models/orphan/unusual")
    assert "deleted" in assert_refused(refused, 409, "unusual-unavailable")["detail"]
    path = f"/v1/models/other/reviews/{'0' * 64}"
    assert_refused(client.put(path, json={"review": "confirmed"}), 404, "not-found")
