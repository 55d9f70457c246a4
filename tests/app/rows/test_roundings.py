"""Samples of plain numbers as text shows them: with the decimals of the data, whole ones without."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.rows.codecs import BY_MEDIA_TYPE
from app.rows.encode import Chunk, Part, ResponseTable
from app.rows.model_types import Roundings
from tabular.columns import Column
from tabular.numbers import round_to
from tests.app.serving import COLUMNS as SERVED, registered

ROWS = np.array([[1.0, -0.2, 10.06, 1 / 3], [-41.6, 2e9, 0.29 + 1e-12, 1e-300]])
DECIMALS = [0, 0, 1, None]


def roundings(decimals: list[int | None]) -> Roundings:
    columns = [Column(name=str(at), decimals=number) for at, number in enumerate(decimals)]
    found = Roundings.of(columns)
    assert found is not None
    return found


def encoded(media_type: str, rows: NDArray[Any], *, drops_zeros: bool = True) -> str:
    answer = ResponseTable(
        columns=["a", "b", "c", "d"],
        parts=[Part("rows", 0, 4)],
        rows=len(rows),
        dtype=np.dtype(np.float64),
        members={},
        drops_zeros=drops_zeros,
    )
    encoder = BY_MEDIA_TYPE[media_type].encoder(answer)
    parts = [encoder.start(), encoder.rows(Chunk.of(rows)), encoder.end()]
    return b"".join(map(bytes, parts)).decode()


def test_rows_have_the_decimals_of_their_columns_in_every_text():
    rows = roundings(DECIMALS).apply(ROWS)
    assert encoded("text/csv", rows).splitlines()[1:] == [
        "1,0,10.1,0.3333333333333333",
        "-42,2000000000,0.3,1e-300",
    ]
    assert '"rows":[[1,0,10.1,0.3' in encoded("application/json", rows)
    assert encoded("application/x-ndjson", rows).startswith('{"a":1,"b":0,"c":10.1,"d":0.3')
    assert json.loads(encoded("application/json", rows))["rows"] == rows.tolist()


def test_rounding_is_that_of_typed_tables():
    values = np.random.default_rng(0).normal(0, 100, (500, 4))
    for decimals in range(8):
        expected = round_to(values, decimals)
        found = roundings([decimals] * 4).apply(values)
        np.testing.assert_array_equal(found, expected)
        assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_whole_number_of_64_bits_stays_as_it_is(bad):
    rows = roundings([0, 0, 0, 0]).apply(np.full((1, 4), bad))
    np.testing.assert_array_equal(rows, np.full((1, 4), bad))


def test_columns_without_decimals_are_not_rounded():
    assert Roundings.of([Column(name="a"), Column(name="b")]) is None


@pytest.mark.long
def test_samples_of_a_model_of_plain_numbers_look_like_the_data(client):
    state = client.app.state
    types = [
        Column(name=SERVED[0], type="integer", decimals=0).to_dict(),
        Column(name=SERVED[1], decimals=1).to_dict(),
        *(Column(name=name).to_dict() for name in SERVED[2:]),
    ]
    version = registered(state.database, state.blobs, name="rounded", types=types)
    path = f"/v1/models/{version.ref}/sample"
    body = {"n": 50, "seed": 1}
    lines = client.post(path, json=body, headers={"Accept": "text/csv"}).text.splitlines()[1:]
    cells = [line.split(",") for line in lines]
    assert all(row[0].lstrip("-").isdigit() for row in cells)
    assert all(len(row[1].partition(".")[2]) <= 1 for row in cells)
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert all(isinstance(row[0], int) for row in rows)
    assert [[float(cell) for cell in row] for row in cells] == rows
    scored = client.post(f"/v1/models/{version.ref}/log_prob", json={"rows": rows})
    assert None not in scored.json()["log_prob"]
    extra = [dict(zip(SERVED, rows[0], strict=True)) | {"more": 1}]
    refused = client.post(f"/v1/models/{version.ref}/log_prob", json={"rows": extra})
    assert refused.status_code == 422
