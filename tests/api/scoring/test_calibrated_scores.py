import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from flows import quantiles_of
from tests.api.conftest import assert_refused
from tests.api.serving import a_flow, registered, stores

TABLE = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(1_500, 3))


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    """One application with `people`, calibrated on TABLE, and `old`, which is not."""
    quantiles = quantiles_of(log_prob(TABLE)).tolist()
    registered(*stores(shared_client), held_out={"rows": len(TABLE), "quantiles": quantiles})
    registered(*stores(shared_client), name="old")
    return shared_client


def log_prob(rows: Any) -> Any:
    flow = a_flow().double()
    tensor = next(flow.parameters()).new_tensor(rows)
    return flow.log_prob(tensor).detach().numpy()


def ask(client: TestClient, rows: Any, ref: str = "people", **parameters: str) -> Any:
    return client.post(f"/v1/models/{ref}/score", json={"rows": rows}, params=parameters)


def test_a_row_gets_its_density_and_its_rank_among_held_out_rows(client):
    rows = [TABLE[0].tolist(), [171.0, 70.0, 41.0], [400.0, 70.0, 41.0]]
    response = ask(client, rows)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == ["model", "held_out", "log_prob", "quantile", "row_errors"]
    assert answer["model"] == response.headers["x-model"] == "people:1"
    exact = log_prob(rows)
    assert answer["log_prob"] == pytest.approx(exact, rel=1e-6, abs=1e-4)
    shares = [(1 + (log_prob(TABLE) <= one).sum()) / (len(TABLE) + 1) for one in exact]
    assert answer["quantile"] == pytest.approx(shares, abs=2e-3)
    assert answer["quantile"][2] == 1 / (len(TABLE) + 1)


def test_a_rank_says_how_many_rows_made_it_and_whether_these_chose_the_epoch(client):
    assert ask(client, TABLE[:1].tolist()).json()["held_out"] == {
        "rows": len(TABLE),
        "part": "test",
    }
    quantiles = quantiles_of(log_prob(TABLE[:50])).tolist()
    registered(
        *stores(client),
        name="untested",
        metrics={"validation_log_likelihood": -9.0},
        held_out={"rows": 50, "quantiles": quantiles},
    )
    answer = ask(client, TABLE[50:].tolist(), ref="untested").json()
    assert answer["held_out"] == {"rows": 50, "part": "validation"}
    ranks = 51 * np.array(answer["quantile"])
    assert ranks == pytest.approx(ranks.round(), abs=1e-9)
    shown = client.get("/v1/models/untested/versions/1").json()["held_out"]
    assert (shown["rows"], shown["part"]) == (50, "validation")


def test_a_row_far_from_everything_has_rank_0_and_no_density(client):
    rows = [[1e300, 0.0, 0.0], [0.0, -1e300, 1e300], [1e60, 1e60, 1e60]]
    answer = ask(client, rows).json()
    assert answer["log_prob"] == [None] * 3
    assert answer["quantile"] == [0.0] * 3
    assert [error["code"] for error in answer["row_errors"]] == ["non_finite"] * 3


def test_a_version_without_held_out_rows_has_no_score(client):
    assert_refused(ask(client, [[1.0, 2.0, 3.0]], ref="old"), 422, "score-unavailable")
    assert client.get("/v1/models/old/versions/1").json()["held_out"] is None


def test_a_version_shows_some_of_its_quantiles(client):
    shown = client.get("/v1/models/people/versions/1").json()["held_out"]
    assert shown["rows"] == len(TABLE)
    assert list(shown["quantiles"]) == ["0.01", "0.05", "0.5"]
    exact = np.quantile(log_prob(TABLE), [0.01, 0.05, 0.5], method="higher")
    assert list(shown["quantiles"].values()) == pytest.approx(exact)
    errors = shown["standard_errors"]
    assert errors["0.5"] == pytest.approx(0.5 / len(TABLE) ** 0.5)
    assert errors["0.01"] == pytest.approx((0.01 * 0.99 / len(TABLE)) ** 0.5)


def test_ranks_belong_to_the_units_of_the_data(client):
    assert_refused(ask(client, [[1.0, 2.0, 3.0]], space="model"), 422, "unknown-parameter")


def test_what_is_wrong_with_rows_is_told_as_elsewhere(client):
    response = ask(client, [[1.0, 2.0]])
    assert (response.status_code, response.json()["expected"]) == (422, 3)
    assert ask(client, [[1.0]], ref="nobody").status_code == 404
    assert json.loads(ask(client, []).content)["type"] == "/problems/batch-empty"
