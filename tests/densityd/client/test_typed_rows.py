"""Requests about typed rows, against a server with a script."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest

from densityd.client import Client, UnexpectedAnswerError
from tests.densityd.bodies import DATASET
from tests.densityd.scripted import Reply, ScriptedServer, a_json
from tests.tables.files import npy

FRAME = pd.DataFrame({"shop": ["north", None], "amount": [1.5, 2.0]})
ANSWER = {
    "log_prob": [-1.0, None],
    "quantile": [0.5, None],
    "explained": {"shop": "exact", "amount": "learnt"},
    "explanation": [{"shop": -0.5, "amount": -2.0}, {"shop": None, "amount": None}],
    "usual": {"shop": -0.25, "amount": None},
    "difference": [{"shop": -0.25, "amount": None}, {"shop": None, "amount": None}],
}


def test_both_parts_of_a_mixed_density_are_given(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]))]
    with Client(scripted.url) as client:
        parts = client.parts("m", FRAME, extra="ignore")

    assert np.array_equal(parts.log_prob, parts.discrete + parts.continuous)
    line = "POST /v1/models/m/log_prob?parts=true&extra=ignore"
    assert scripted.asked[0].line == line
    assert pa.ipc.open_stream(scripted.asked[0].body).read_all().to_pylist() == [
        {"shop": "north", "amount": 1.5},
        {"shop": None, "amount": 2.0},
    ]


def test_each_column_of_a_row_is_explained(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(ANSWER)]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert scripted.asked[0].line == "POST /v1/models/m/score?explain=true"
    assert np.array_equal(found.log_prob, [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.quantile, [0.5, np.nan], equal_nan=True)
    assert list(found.columns) == ["shop", "amount"]
    assert found.kinds == {"shop": "exact", "amount": "learnt"}
    assert np.array_equal(found.columns["amount"], [-2.0, np.nan], equal_nan=True)
    assert found.usual["shop"] == -0.25
    assert np.isnan(found.usual["amount"])
    assert np.array_equal(found.differences["shop"], [-0.25, np.nan], equal_nan=True)
    assert found.reasons(0) == {"shop": -0.25}


def test_the_reasons_of_a_row_begin_with_the_least_usual(scripted: ScriptedServer) -> None:
    differences = [{"shop": -1.0, "amount": -9.0}, {"shop": -3.0, "amount": 0.5}]
    scripted.replies = [a_json({**ANSWER, "difference": differences})]
    with Client(scripted.url) as client:
        found = client.explain("m", FRAME)

    assert list(found.reasons(0)) == ["amount", "shop"]
    assert list(found.reasons(1)) == ["shop", "amount"]


def test_each_column_is_given_those_before_it(scripted: ScriptedServer) -> None:
    answer = {
        "log_prob": [-3.0, None],
        "order": ["amount", "shop"],
        "conditional": [{"shop": -1.0, "amount": -2.0}, {"shop": None, "amount": None}],
        "mean": [{"shop": None, "amount": 1.25}, {"shop": None, "amount": None}],
    }
    scripted.replies = [a_json(answer), a_json({**answer, "mean": [1]})]
    with Client(scripted.url) as client:
        found = client.conditionals("m", FRAME, extra="ignore")
        with pytest.raises(UnexpectedAnswerError, match="conditional"):
            client.conditionals("m", FRAME)

    line = "POST /v1/models/m/log_prob?space=data&extra=ignore&conditionals=true"
    assert scripted.asked[0].line == line
    assert found.order == ["amount", "shop"]
    assert np.array_equal(found.columns["shop"], [-1.0, np.nan], equal_nan=True)
    assert np.array_equal(found.means["amount"], [1.25, np.nan], equal_nan=True)
    assert np.array_equal(found.log_prob, [-3.0, np.nan], equal_nan=True)


def test_the_evidence_of_rows_is_two_bounds(scripted: ScriptedServer) -> None:
    scripted.replies = [Reply(body=npy([[-3.0, -2.5], [-1.0, -0.5]]))]
    with Client(scripted.url) as client:
        found = client.evidence("m", [[1.0, 0.0], [0.0, 0.0]], samples=7, seed=3)

    assert scripted.asked[0].line == "POST /v1/models/m/evidence?samples=7&seed=3"
    assert found.elbo.tolist() == [-3.0, -1.0]
    assert found.log_evidence.tolist() == [-2.5, -0.5]


def test_unseen_levels_are_told_once_a_call_and_kept_with_the_scores(
    scripted: ScriptedServer,
) -> None:
    rows = np.zeros((300_000, 1))  # of two requests
    first = (2 << 20) // 8
    scripted.replies = [
        Reply(200, npy(np.zeros((first, 2))), {"X-Row-Warnings": '2;rows="0 7"'}),
        Reply(200, npy(np.zeros((len(rows) - first, 2))), {"X-Row-Warnings": '1;rows="3"'}),
    ]
    with Client(scripted.url) as client, pytest.warns(UserWarning, match="3 cells") as told:
        scores = client.score("m", rows)

    assert len(scripted.asked) == 2
    assert len(told) == 1
    [sentence] = scores.warnings
    assert sentence.startswith(
        "3 cells have a level that training never saw, first in rows 0, 7, 26"
    )


@pytest.mark.parametrize("explanation", [None, [1], {"a": 1}, [{"shop": "x"}]], ids=str)
def test_a_response_without_an_explanation_is_told(
    scripted: ScriptedServer, explanation: object
) -> None:
    scripted.replies = [a_json({**ANSWER, "explanation": explanation})]
    with Client(scripted.url) as client, pytest.raises(UnexpectedAnswerError, match="explanation"):
        client.explain("m", FRAME)


def test_options_of_an_upload_go_as_text_or_json(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json(DATASET, 201), a_json(DATASET)]
    with Client(scripted.url) as client:
        client.datasets.upload(
            FRAME, types={"a": "category"}, exclude=["b"], header=False, max_levels=9, decimal=","
        )
        client.datasets.update("ds_1", types={"a": "ignored"})

    query = "types=%7B%22a%22%3A%22category%22%7D&exclude=%5B%22b%22%5D&header=false&max_levels=9"
    assert scripted.asked[0].line == f"POST /v1/datasets?{query}&decimal=%2C"
    assert scripted.asked[1].line == "PATCH /v1/datasets/ds_1"
    assert json.loads(scripted.asked[1].body) == {"types": {"a": "ignored"}}
