import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from starlette.testclient import TestClient

from app.engine.monitor import Monitor
from app.main import create_app
from flows import compile_flow, quantiles_of, rank_among
from models_store.database.schema import MonitoredRow
from models_store.drift import (
    ALARM,
    ColumnBins,
    count_ranks,
    count_sorted,
    distance,
    drift_of,
)
from models_store.errors import DatabaseBusyError
from models_store.jobs.leases import JobWork
from models_store.keys import Scope
from models_store.records import Version
from models_store.requests.training import ASKED
from tests.api.conftest import assert_refused
from tests.api.mixed_model import mixed_flow, mixed_rows, registered_mixed
from tests.api.serving import COLUMNS, a_flow, bearer, keyed, registered, stores, uploaded
from tests.store.makers import a_version, claimed, finished, submitted

RNG = np.random.default_rng(0)
SPREAD = np.array([10.0, 12.0, 15.0])
TABLE = compile_flow(a_flow()).sample(6_000, seed=1)
DATA, HELD_OUT, NEW = np.split(TABLE, [1_500, 2_500])


@pytest.fixture(scope="module")
def shared_setting_values() -> dict[str, Any]:
    return {"webhook_private_addresses": True}


@pytest.fixture
def people(shared_client: TestClient) -> Iterator[Version]:
    """A model of `DATA` that is ranked among `HELD_OUT`, and has scored nothing yet."""
    version = make(shared_client)
    yield version
    assert shared_client.delete("/v1/models/people").status_code == 204


def make(client: TestClient, **headers: str) -> Version:
    client.headers.update(headers)
    dataset_id = uploaded(client, DATA, COLUMNS)
    flow = a_flow().double()
    log_prob = flow.log_prob(next(flow.parameters()).new_tensor(HELD_OUT)).detach().numpy()
    return registered(
        *stores(client),
        project=client.get("/v1/me", headers=headers).json()["project"],
        held_out={"rows": len(HELD_OUT), "quantiles": quantiles_of(log_prob).tolist()},
        dataset_id=dataset_id,
    )


def score(client: TestClient, rows: Any, what: str = "score", **headers: str) -> dict[str, Any]:
    response = client.post(
        f"/v1/models/people/{what}", json={"rows": np.asarray(rows).tolist()}, headers=headers
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def watched(client: TestClient, ref: str = "people", **parameters: str) -> dict[str, Any]:
    response = client.get(f"/v1/models/{ref}/monitoring", params=parameters)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.usefixtures("people")
def test_the_ranks_of_scored_rows_are_counted_by_tenths_hours_and_days(shared_client):
    assert watched(shared_client)["rows"] == 0
    ranks = np.array(score(shared_client, NEW[:300])["quantile"])
    score(shared_client, NEW[:300], what="log_prob")
    score(shared_client, NEW[:10], what="log_prob?space=model")  # no rows of data
    for row in NEW[300:320]:
        ranks = np.append(ranks, score(shared_client, [row])["quantile"])
    found = watched(shared_client)
    tenths = np.bincount((ranks * 10).astype(int).clip(0, 9), minlength=10)
    again = np.bincount((ranks[:300] * 10).astype(int).clip(0, 9), minlength=10)
    assert found["rows"] == 620
    assert found["ranks"] == (tenths + again).tolist()
    assert found["unusual"] == (ranks <= 0.01).sum() + (ranks[:300] <= 0.01).sum()
    assert found["expected"] == pytest.approx([0.1] * 10, abs=0.002)
    days = found["buckets"]
    assert sum(day["rows"] for day in days) == 620
    assert all(day["start"].endswith("T00:00:00Z") for day in days)
    hours = watched(shared_client, bucket="hour")["buckets"]  # two, if one began just now
    assert np.sum([hour["ranks"] for hour in hours], axis=0).tolist() == found["ranks"]
    for bound, rows in (("since", 620), ("until", 0)):
        assert watched(shared_client, **{bound: hours[0]["start"]})["rows"] == rows
    assert not found["drift"]["drifted"]


@pytest.mark.usefixtures("people")
def test_a_shift_of_one_column_is_found_named_exported_and_told_once_a_day(shared_client):
    hook = {"url": "http://127.0.0.1:9/", "events": ["model.drifted"]}
    hook = shared_client.post("/v1/webhooks", json=hook).json()
    shifted = NEW[:2_000] + np.array([0, 0.5 * SPREAD[1], 0])
    score(shared_client, shifted)
    found = watched(shared_client)
    assert found["drift"]["drifted"]
    assert found["columns"][0]["column"] == "weight"
    assert [one["drifted"] for one in found["columns"]] == [True, False, False]
    assert found["buckets"][0]["drifted_columns"] == ["weight"]
    monitor = shared_client.app.state.monitor
    for _ in range(2):
        shared_client.portal.call(monitor.look)
        score(shared_client, shifted[:10])
        shared_client.portal.call(monitor.flush)
    deliveries = shared_client.get(f"/v1/webhooks/{hook['id']}/deliveries").json()["items"]
    assert [one["event"] for one in deliveries] == ["model.drifted"]
    told = deliveries[0]["data"]
    assert told["model"] == {"name": "people", "version": int(found["model"].split(":")[1])}
    assert told["columns"] == ["weight"]
    samples = {
        (sample.name, sample.labels.get("decile")): sample.value
        for family in text_string_to_metric_families(shared_client.get("/metrics").text)
        for sample in family.samples
        if sample.labels.get("model") == "people"
    }
    assert samples["densityd_drift_p_value", None] < ALARM
    assert samples["densityd_unusual_share", None] > 0
    assert samples["densityd_rank_total", "0"] > 200
    with shared_client.app.state.database.write() as session:
        session.execute(update(MonitoredRow).values(hour=MonitoredRow.hour - 24))
    score(shared_client, NEW[:2_000])
    found = watched(shared_client)
    assert [one["drifted_columns"] for one in found["buckets"]] == [["weight"], []]


def busy() -> None:
    raise DatabaseBusyError


@pytest.mark.usefixtures("people")
def test_metrics_tell_the_drift_of_the_versions_with_most_rows(shared_client, monkeypatch):
    state = shared_client.app.state
    quantiles = quantiles_of(compile_flow(a_flow()).log_prob(HELD_OUT)).tolist()
    registered(*stores(shared_client), name="few", held_out={"rows": 1_000, "quantiles": quantiles})
    score(shared_client, NEW[:20])
    few = {"rows": NEW[:9].tolist()}
    for _ in range(2):  # what cannot be written is kept
        assert shared_client.post("/v1/models/few/score", json=few).is_success
        with monkeypatch.context() as patched:
            patched.setattr(state.database, "write", busy)
            with pytest.raises(DatabaseBusyError):
                shared_client.portal.call(state.monitor.flush)
    shared_client.portal.call(state.monitor.flush)
    assert shared_client.get("/v1/models/few/monitoring").json()["rows"] == 18
    metrics = state.metrics.ranks
    own = Monitor(state.monitoring, state.registry, state.blobs, metrics, most_shown=1)
    shared_client.portal.call(own.look)
    assert set(re.findall(rb'model="(\w+)"', own.render())) == {b"people"}
    assert shared_client.delete("/v1/models/few").status_code == 204


@pytest.mark.usefixtures("people")
def test_values_that_are_counted_are_spread_over_a_large_request(shared_client):
    ends = DATA[[DATA[:, 0].argmin(), DATA[:, 0].argmax()]]
    score(shared_client, np.repeat(ends, 1024, axis=0))
    (height,) = (one for one in watched(shared_client)["columns"] if one["column"] == "height")
    assert (height["counts"][0], height["counts"][-2]) == (512, 512)


@pytest.mark.parametrize("held_out", [3, 500, 5_000])
@pytest.mark.parametrize("rows", [0, 1, 7, 3_000])
def test_the_tenths_of_ordered_rows_are_those_of_their_ranks(held_out, rows):
    random = np.random.default_rng(rows)
    known = quantiles_of(random.normal(size=held_out).round(1))
    log_prob = np.sort(random.normal(size=rows).round(1))
    log_prob[: rows // 5], log_prob[rows - rows // 7 :] = -np.inf, np.nan

    def rank(some: np.ndarray) -> np.ndarray:
        return rank_among(some, known, rows=held_out)

    assert count_sorted(log_prob, rank) == count_ranks(rank(log_prob))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_value_of_a_column_is_in_one_part(kind):
    rows = RNG.normal(size=(500, 2)).round(1).astype(kind)
    rows[::7, 0], rows[:, 1] = np.nan, 3.0
    bins = ColumnBins.of(["a", "b"], rows.astype(np.float64))
    for column, edges, counts in zip(rows.T, bins.edges, bins.count(rows).values(), strict=True):
        values = column[~np.isnan(column)]
        above = [np.count_nonzero(values >= edge) for edge in edges]
        parts = -np.diff([len(values), *above, 0])
        assert counts == [*parts, np.count_nonzero(np.isnan(column))]


def test_rows_of_one_kind_raise_an_alarm_on_at_most_one_day_in_a_hundred():
    """Each day has its own model; a day is looked at after every 50 of its 2,000 rows."""
    alarms = 0
    for _ in range(100):
        columns = RNG.normal(size=(800, 3))
        held_out, bins = np.sort(RNG.random(200)), ColumnBins.of(COLUMNS, columns)
        places = np.searchsorted(held_out, RNG.random(2_000), "right")
        ranks, rows = (places + 1) / (len(held_out) + 1), RNG.normal(size=(2_000, 3))
        alarms += any(
            drift_of(
                {**count_ranks(ranks[:seen]), "columns": bins.count(rows[:seen])},
                [20.0] * 10,
                bins.reference,
            ).has_drifted
            for seen in range(50, 2_001, 50)
        )
    assert alarms <= 1


def test_the_distance_of_counts_is_that_of_kolmogorov_and_smirnov():
    found = distance([50, 50], [80, 20])
    assert found.statistic == pytest.approx(0.3)
    # 2 (exp(-2 x^2) - exp(-8 x^2) + ...) at x = 0.3 sqrt(50).
    assert found.p_value == pytest.approx(2 * np.exp(-9), rel=1e-3)
    assert distance([50, 50], [500, 500]).p_value == 1
    even = [50, 50]
    counts = {"ranks": even, "columns": {"a": [80, 20], "b": even}}
    drift = drift_of(counts, even, {"a": even, "b": even})
    assert drift.p_value == pytest.approx(3 * found.p_value), "of the ranks and two columns"


def test_a_row_is_unusual_from_its_rank_on():
    counted = count_ranks(np.array([0.005, 0.01, 0.011, np.nan]))
    assert (counted["rows"], counted["unusual"]) == (3, 2)


def test_the_columns_that_made_explained_rows_unusual_are_counted(shared_client):
    flow, rows = mixed_flow(), mixed_rows(200, seed=3)
    quantiles = quantiles_of(compile_flow(flow).log_prob(rows)).tolist()
    held_out = {"rows": len(rows), "quantiles": quantiles}
    registered_mixed(shared_client, "diamonds", held_out=held_out)
    odd = [["Ideal", None, "no", "2023-01-05", 3.0, weight] for weight in (400.0, -300.0)]
    body = {"rows": [*odd, ["Ideal", 9.5, "no", "2023-01-05", 3.0, 71.5]]}
    found = shared_client.post("/v1/models/diamonds/score?explain=true", json=body).json()
    unusual = [row for row, rank in enumerate(found["quantile"]) if rank <= 0.01]
    assert len(unusual) == 2
    known: list[dict[str, float]] = [
        {k: v for k, v in row.items() if v is not None} for row in found["difference"]
    ]
    worst = [min(known[row], key=known[row].__getitem__) for row in unusual]
    wanted = {name: worst.count(name) for name in worst}
    assert watched(shared_client, "diamonds")["reasons"] == wanted


def test_counts_of_two_processes_add_up_and_stay_when_they_end(settings):
    with TestClient(create_app(settings)) as one:
        make(one)
        with TestClient(create_app(settings)) as other:
            score(one, NEW[:30])
            score(other, NEW[:12])
        assert watched(one)["rows"] == 42
        score(one, NEW[:5])
    with TestClient(create_app(settings)) as later:
        assert watched(later)["rows"] == 47


def test_other_projects_see_nothing_and_bad_times_are_named(settings):
    with keyed(settings) as (client, keys):
        mine, theirs = (bearer(keys.create(name, Scope.WRITE)) for name in ("mine", "theirs"))
        make(client, **mine)
        score(client, NEW[:7], **mine)
        at = "/v1/models/people/monitoring"
        assert client.get(at, headers=mine).json()["rows"] == 7
        assert client.get(at, headers=theirs).status_code == 404
        make(client, **theirs)
        assert client.get(at, headers=theirs).json()["rows"] == 0
        times = {"since": "2026-12-01T00:00:00Z", "until": "2026-12-01T00:00:00Z"}
        refused = client.get(at, headers=mine, params=times)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["parameter"] == "until"
        assert refused.json()["detail"] == "`until`: It must be later than `since`."


def test_a_version_is_trained_anew_by_the_request_that_made_it(client):
    state = client.app.state
    older, newer = (uploaded(client, rows, COLUMNS) for rows in (DATA[:200], DATA[200:400]))
    asked = {"model_name": "pairs", "dataset_id": older, "columns": COLUMNS[:2], "tags": {"a": "b"}}
    asked["optimisation"] = {"max_epochs": 7}
    first = client.post("/v1/jobs/training", json=asked).json()
    assert "asked" not in first["request"]
    work = JobWork(state.database)
    held = claimed(work)
    work.finish(held.id, held.attempt, metrics={}, version=a_version(held))

    key = {"Idempotency-Key": "monthly"}
    body = {"dataset_id": newer}
    again = client.post("/v1/models/pairs/retrain", json=body, headers=key)
    assert again.status_code == 202, again.text
    job = again.json()
    assert job["id"] != first["id"]
    assert job["tags"] == {"a": "b"}
    assert (job["request"]["dataset_id"], job["request"]["columns"]) == (newer, COLUMNS[:2])
    assert job["request"]["optimisation"]["max_epochs"] == 7
    assert (
        client.post("/v1/models/pairs:1/retrain", json=body, headers=key).json()["id"] == job["id"]
    )

    sweep = {**asked, "ranges": {"optimisation.weight_decay": {"values": [0.0, 0.1]}}}
    del sweep["optimisation"]
    submitted(state.jobs, model_name="swept", request={ASKED: sweep}, priority=100)
    finished(work, claimed(work))
    job = client.post("/v1/models/swept/retrain", json=body).json()
    assert (job["role"], job["model"]["name"]) == ("parent", "swept")
    assert (job["request"]["dataset_id"], job["tags"]) == (newer, {"a": "b"})

    registered(state.database, state.blobs)
    assert_refused(client.post("/v1/models/people/retrain", json=body), 409, "retrain-unavailable")
    assert client.post("/v1/models/none/retrain", json=body).status_code == 404
