"""Models of typed columns over HTTP: cells in, scores, warnings and errors out; cells as samples."""

import asyncio
import csv
import dataclasses
import io
import json
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from flows import MixedColumn, MixedSpec, build, compile_flow
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.typed_rows import TypedRows
from tests.api.conftest import CSV, asgi_scope, assert_refused
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, mixed_flow, mixed_rows, registered_mixed
from tests.api.serving import COLUMNS as PEOPLE, registered, stores
from tests.api.wire import FORMATS, MEDIA_TYPE, read

ROWS = mixed_rows(40, seed=5)
HIDING = dataclasses.replace(SPEC, missing="any")
RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    """One application with mixed models and one of plain numbers for all tests of this module."""
    for name, spec in (("mixed", SPEC), ("hiding", HIDING)):
        registered_mixed(shared_client, name, spec=spec, held_out=RANKS)
    registered(*stores(shared_client), held_out=RANKS)
    return shared_client


def ask(
    client: TestClient,
    what: str,
    body: Any,
    kind: TableFormat = TableFormat.JSON,
    answer: TableFormat = TableFormat.JSON,
    *,
    model: str = "mixed",
) -> Any:
    """Send bytes as they are, and else rows as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body, default=str).encode()
    headers = {"Content-Type": MEDIA_TYPE[kind], "Accept": MEDIA_TYPE[answer]}
    return client.post(f"/v1/models/{model}/{what}", content=body, headers=headers)


def scored(client: TestClient, rows: list[dict[str, Any]], what: str = "log_prob") -> Any:
    response = ask(client, what, {"rows": rows})
    assert response.status_code == 200, response.text
    return response.json()


def cells(rows: Any = ROWS) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = TypedRows(COLUMNS).batch(rows).to_pylist()
    return objects


def expected(rows: Any = ROWS) -> Any:
    return compile_flow(mixed_flow()).log_prob(rows)


def test_rows_are_scored_as_they_are_in_the_file(client):
    answer = scored(client, cells())
    np.testing.assert_allclose(answer["log_prob"], expected(), rtol=1e-5)
    assert answer["row_errors"] == answer["row_warnings"] == []
    assert answer["row_warning_count"] == 0


def test_gaps_that_training_had_are_values(client):
    row = cells()[0] | {"cut": None, "price": ""}
    assert scored(client, [row])["log_prob"][0] is not None


def test_a_gap_that_training_never_had_names_its_column(client):
    rows = cells()[:3]
    rows[1] = rows[1] | {"cut": None, "weight": None}
    answer = scored(client, rows)
    assert [value is None for value in answer["log_prob"]] == [False, True, False]
    (error,) = answer["row_errors"]
    assert (error["row"], error["code"], error["column"]) == (1, "non_finite_input", "weight")
    assert "'weight'" in error["detail"]


def test_levels_that_training_never_saw_are_scored_and_listed(client):
    rows = cells()[:4]
    rows[1] = rows[1] | {"cut": "Astor", "doors": 4}
    rows[3] = rows[3] | {"doors": "4.0"}
    answer = scored(client, rows)
    assert None not in answer["log_prob"]
    found = [(w["row"], w["column"], w["code"]) for w in answer["row_warnings"]]
    assert found == [
        (1, "cut", "unseen_level"),
        (1, "doors", "unseen_level"),
        (3, "doors", "unseen_level"),
    ]
    assert answer["row_warning_count"] == 3


WAIT_S = 30.0
SIZES = [1e36, 3e37, 1.7e308]


def one_cell(kind: TableFormat, name: str, values: list[float]) -> bytes:
    """The first row once for each value of one of its cells."""
    if kind is TableFormat.NPY:
        rows = np.repeat(ROWS[:1], len(values), axis=0)
        rows[:, NAMES.index(name)] = values
        buffer = io.BytesIO()
        np.save(buffer, rows)
        return buffer.getvalue()
    objects = [cells()[0] | {name: value} for value in values]
    if kind is TableFormat.JSON:
        return json.dumps({"rows": objects}, default=str).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, NAMES)
    writer.writeheader()
    writer.writerows(objects)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("model", "column", "kind"),
    [
        ("mixed", "price", TableFormat.JSON),
        ("mixed", "price", TableFormat.NPY),
        ("hiding", "weight", TableFormat.CSV),
    ],
)
def test_a_number_is_a_value_however_large(client, model, column, kind):
    values = [*SIZES, *(-size for size in SIZES)]
    body = one_cell(kind, column, values)
    answer = json.loads(ask(client, "score", body, kind, model=model).content)
    assert answer["row_warnings"] == []
    scores = [-np.inf if score is None else score for score in answer["log_prob"]]
    for sizes in (scores[: len(SIZES)], scores[len(SIZES) :]):
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] < -100
    assert max(answer["quantile"]) <= 1 / 301


@pytest.mark.parametrize(
    ("model", "column", "kind"),
    [("mixed", "price", TableFormat.CSV), ("hiding", "weight", TableFormat.NPY)],
)
def test_an_infinite_number_is_a_gap_and_that_is_told(client, model, column, kind):
    body = one_cell(kind, column, [np.inf, -np.inf, np.nan])
    answer = json.loads(ask(client, "score", body, kind, model=model).content)
    high, low, gap = answer["log_prob"]
    assert high == low == gap
    assert gap is not None
    found = [(w["row"], w["column"], w["code"]) for w in answer["row_warnings"]]
    assert found == [(0, column, "infinite"), (1, column, "infinite")]


def test_an_infinite_number_where_training_had_no_gap_is_an_error_of_its_row(client):
    body = one_cell(TableFormat.NPY, "weight", [np.inf, 70.0])
    answer = json.loads(ask(client, "score", body, TableFormat.NPY).content)
    assert [score is None for score in answer["log_prob"]] == [True, False]
    assert [(e["row"], e["code"]) for e in answer["row_errors"]] == [(0, "non_finite_input")]
    assert answer["row_warnings"] == []


def test_warnings_about_rows_are_bounded_and_all_are_counted(client):
    rows = [cells()[0] | {"cut": "Astor"}] * 1500
    response = ask(client, "log_prob", {"rows": rows})
    answer = response.json()
    assert (len(answer["row_warnings"]), answer["row_warning_count"]) == (1000, 1500)
    assert response.headers["x-row-warnings"].startswith('1500;rows="0 1 2 ')


@pytest.mark.parametrize("answer", FORMATS)
def test_every_format_tells_of_warnings(client, answer):
    rows = [*cells()[:2], cells()[2] | {"cut": "Astor"}]
    response = ask(client, "score", {"rows": rows}, answer=answer)
    assert response.headers["x-row-warnings"] == '1;rows="2"'
    if answer is TableFormat.NDJSON:
        lines = [json.loads(line) for line in response.content.splitlines()]
        assert ["row_warnings" in line for line in lines] == [False, False, True]
        assert lines[2]["row_warnings"][0]["column"] == "cut"


@pytest.mark.parametrize(
    ("model", "answer"), [("mixed", TableFormat.JSON), ("people", TableFormat.PARQUET)]
)
def test_what_is_no_row_of_a_body_is_told_in_every_format(client, model, answer):
    rows = cells()[:20] if model == "mixed" else [dict.fromkeys(PEOPLE, 50.5)] * 20
    buffer = io.StringIO()
    csv.DictWriter(buffer, list(rows[0])).writeheader()
    csv.DictWriter(buffer, list(rows[0])).writerows(rows)
    text = buffer.getvalue()
    plain = ask(client, "log_prob", text.encode(), TableFormat.CSV, model=model)
    assert "body_warnings" not in plain.json()
    assert "x-body-warnings" not in plain.headers
    body = f"A report\n{text}".encode()
    response = ask(client, "log_prob", body, TableFormat.CSV, answer, model=model)
    (warning,) = json.loads(response.headers["x-body-warnings"])
    assert warning["code"] == "skipped"
    assert "Line 1" in warning["detail"]
    if answer is TableFormat.JSON:
        assert response.json()["body_warnings"] == [warning]
        assert response.json()["log_prob"] == plain.json()["log_prob"]


def test_models_of_plain_numbers_have_no_warnings(client):
    response = ask(client, "log_prob", b'{"rows": [[170, 70, 40]]}', model="people")
    assert "x-row-warnings" not in response.headers
    assert response.json().keys() == {"model", "log_prob", "row_errors"}


@pytest.mark.parametrize("answer", FORMATS)
def test_the_parts_of_a_density_are_in_every_format(client, answer):
    response = ask(client, "log_prob?parts=true", {"rows": cells()}, answer=answer)
    if answer is TableFormat.JSON:
        document = response.json()
        names = ["log_prob", "discrete", "continuous"]
        values = np.column_stack([document[name] for name in names])
    else:
        names, values = read(answer, response.content)
        assert names in ([], ["log_prob", "discrete", "continuous"])
    np.testing.assert_allclose(values[:, 0], expected(), rtol=1e-5)
    parts = compile_flow(mixed_flow()).log_prob_parts(ROWS)
    np.testing.assert_allclose(values[:, 1:], parts, rtol=1e-5)


def test_the_density_of_plain_numbers_is_continuous(client):
    body = b'{"rows": [[170, 70, 40], [170, 70, null]]}'
    answer = ask(client, "log_prob?parts=true", body, model="people").json()
    assert answer["discrete"] == [0.0, None]
    assert answer["continuous"] == answer["log_prob"]
    assert answer["continuous"][1] is None


@pytest.mark.parametrize(
    ("answer", "model", "spec"),
    [*((kind, "mixed", SPEC) for kind in FORMATS), (TableFormat.JSON, "hiding", HIDING)],
)
def test_explanations_are_in_every_format(client, answer, model, spec):
    body = {"rows": cells()}
    response = ask(client, "score?explain=true", body, answer=answer, model=model)
    assert response.status_code == 200, response.text
    expected = compile_flow(mixed_flow(spec)).explain(ROWS)
    members = [f"{part}.{name}" for part in ("explanation", "difference") for name in NAMES]
    if answer is TableFormat.JSON:
        document = response.json()
        both = zip(document["explanation"], document["difference"], strict=True)
        rows = [[*one.values(), *other.values()] for one, other in both]
        values = np.array(rows, dtype=np.float64)
        assert [list(row) for row in document["explanation"]] == [NAMES] * len(ROWS)
        usual = [document["usual"][name] for name in NAMES]
        distances = values[:, : len(NAMES)] - np.array(usual, np.float64)
        np.testing.assert_allclose(values[:, len(NAMES) :], distances)
        other = "learnt" if model == "hiding" else "unavailable"
        kinds = ["exact" if column.levels else other for column in COLUMNS]
        assert document["explained"] == dict(zip(NAMES, kinds, strict=True))
        assert document["row_errors"] == []
    elif answer is TableFormat.NDJSON:
        lines = [json.loads(line) for line in response.content.splitlines()]
        rows = [[line[name] for name in members] for line in lines]
        values = np.array(rows, dtype=np.float64)
        assert not any("row_error" in line for line in lines)
    else:
        names, numbers = read(answer, response.content)
        assert names in ([], ["log_prob", "quantile", *members])
        values = numbers[:, 2:]
    np.testing.assert_allclose(values[:, : len(NAMES)], expected, rtol=1e-3, atol=1e-4)
    distances = values[:, len(NAMES) :]
    assert np.array_equal(np.isnan(distances), np.isnan(expected))


def test_a_model_that_explains_nothing_says_so(client):
    response = ask(client, "score?explain=true", {"rows": [[170, 70, 40]]}, model="people")
    assert_refused(response, 422, "explanation-unavailable")


def test_an_explanation_that_would_hold_the_engine_is_refused(client):
    names = [f"c{at}" for at in range(16)]
    many = MixedSpec(columns=[MixedColumn(levels=64)] * len(names), hidden=[8], rows=10)
    flow = build(many, len(names), seed=1).eval()
    types = [
        Column(name=n, type="category", levels=tuple(map(str, range(64)))).to_dict() for n in names
    ]
    registered_mixed(
        client, "many", spec=many, columns=names, types=types, flow=flow, held_out=RANKS
    )
    response = ask(client, "score?explain=true", {"rows": [["1"] * 16]}, model="many")
    assert response.status_code == 422
    assert "by a scoring job" in response.json()["detail"]


def test_a_model_that_hides_cells_scores_any_gaps(client):
    body = {"rows": [dict.fromkeys(NAMES), cells()[0] | {"weight": None}]}
    answer = ask(client, "log_prob", body, model="hiding").json()
    assert answer["row_errors"] == []
    assert None not in answer["log_prob"]


@pytest.mark.parametrize("query", ["parts=maybe", "extra=drop"])
def test_a_parameter_that_is_no_choice_is_refused(client, query):
    response = ask(client, f"log_prob?{query}", b'{"rows": [[1, 2, 3]]}', model="people")
    assert_refused(response, 422, "validation")


def test_rows_of_a_mixed_model_have_no_other_space(client):
    response = ask(client, "log_prob?space=model", {"rows": cells()})
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "space"


@pytest.mark.parametrize("what", ["inverse", "forward"])
def test_rows_of_a_mixed_model_have_no_noise(client, what):
    rows = cells()[:1] if what == "inverse" else [dict.fromkeys(NAMES, 0.5)]
    response = ask(client, what, {"rows": rows})
    assert_refused(response, 422, "model-without-noise")


SAMPLES = {"n": 300, "seed": 7}


def sampled(client: TestClient, answer: TableFormat) -> bytes:
    content: bytes = ask(client, "sample", SAMPLES, answer=answer).content
    return content


def test_samples_are_cells_of_the_table(client):
    answer = json.loads(sampled(client, TableFormat.JSON))
    assert answer["columns"] == NAMES
    cut, price, sold, on, doors, weight = map(list, zip(*answer["rows"], strict=True))
    assert set(cut) == {None, "Ideal", "Good, really", "=1+1"}
    assert None in price
    assert all(value == round(value, 2) for value in price if value is not None)
    assert set(sold) == {"no", "yes"}
    assert all(len(day) == 10 for day in on)
    assert set(doors) == {3, 5}
    assert {type(value) for value in doors} == {int}
    assert all(str(value) == f"{value:.1f}" for value in weight)
    assert answer["row_errors"] == []


def test_samples_are_the_same_cells_in_every_format(client):
    rows = json.loads(sampled(client, TableFormat.JSON))["rows"]
    objects = [dict(zip(NAMES, row, strict=True)) for row in rows]
    lines = [json.loads(line) for line in sampled(client, TableFormat.NDJSON).splitlines()]
    assert lines == objects
    stream = pa.ipc.open_stream(sampled(client, TableFormat.ARROW)).read_all()
    assert stream.to_pylist() == objects
    table = pq.read_table(io.BytesIO(sampled(client, TableFormat.PARQUET)))
    assert table.to_pylist() == objects
    text = list(csv.reader(io.StringIO(sampled(client, TableFormat.CSV).decode())))
    assert text[0] == NAMES
    written = [["" if cell is None else cell for cell in row] for row in rows]
    assert [[_number(cell) for cell in row] for row in text[1:]] == written


def test_samples_as_json_can_be_scored_as_they_are(client):
    body = sampled(client, TableFormat.JSON)
    rows = {name: json.loads(body)[name] for name in ("columns", "rows")}
    answer = ask(client, "log_prob", body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == ask(client, "log_prob", rows).json()


def test_samples_of_npy_are_values_and_indices_that_can_be_scored(client):
    body = sampled(client, TableFormat.NPY)
    values = np.load(io.BytesIO(body), allow_pickle=False)
    rows = json.loads(sampled(client, TableFormat.JSON))["rows"]
    np.testing.assert_array_equal(values[:, 4:], [row[4:] for row in rows])
    levels = [np.nan if row[0] is None else COLUMNS[0].levels.index(row[0]) for row in rows]
    np.testing.assert_array_equal(values[:, 0], levels)
    by_number = ask(client, "log_prob", body, TableFormat.NPY).json()
    objects = [dict(zip(NAMES, row, strict=True)) for row in rows]
    by_text = scored(client, objects)["log_prob"]
    np.testing.assert_allclose(by_number["log_prob"], by_text, rtol=1e-5)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize("kind", [TableFormat.JSON, TableFormat.CSV])
def test_columns_of_the_file_that_a_model_of_numbers_lacks_are_left_out(client, kind):
    table = "id,height,weight,age,note\n" + "".join(
        f"a{row},{row}.5,{row * row % 7}.25,{row % 5}.125,text {row}\n" for row in range(30)
    )
    posted = client.post("/v1/datasets", content=table.encode(), headers=CSV)
    registered(*stores(client), name="part", dataset_id=posted.json()["id"])
    body = table.encode()
    if kind is TableFormat.JSON:
        rows = [dict(row) for row in csv.DictReader(io.StringIO(table))]
        for row in rows:
            row.update((name, float(row[name])) for name in PEOPLE)
        body = json.dumps(rows).encode()
    headers = {"Content-Type": MEDIA_TYPE[kind]}
    whole = client.post("/v1/models/part/log_prob", content=body, headers=headers)
    assert whole.status_code == 200, whole.text
    alone = client.post(
        "/v1/models/part/log_prob",
        json=[[float(row[name]) for name in PEOPLE] for row in csv.DictReader(io.StringIO(table))],
    )
    assert whole.json()["log_prob"] == alone.json()["log_prob"]
    refused = client.post(
        "/v1/models/part/log_prob?extra=error", content=body, headers=headers
    ).json()
    assert set(refused["unknown"]) == {"id", "note"}
    assert "?extra=ignore" in refused["detail"]


def ends_when_its_caller_leaves(client, path, body):
    """Return whether a request ends before what it waits for is free, once its caller has left."""
    name, _, query = path.partition("?")
    scope = asgi_scope(name, query=query)
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(_message):
        pass

    async def main():
        release, engine = threading.Event(), client.app.state.engine
        others = asyncio.create_task(engine.run(lambda: release.wait(WAIT_S)))
        await asyncio.sleep(0)
        request = asyncio.create_task(client.app(scope, receive, send))
        await asyncio.wait({request}, timeout=WAIT_S / 3)
        ended = request.done()
        release.set()
        await others
        with suppress(ClientDisconnect):
            await request
        return ended

    return client.portal.call(main)


def test_few_rows_of_many_passes_are_not_computed_for_a_caller_who_left(client):
    what, body = "score?explain=true", json.dumps({"rows": cells() * 3}, default=str).encode()
    assert ask(client, what, body).status_code == 200  # the usual terms are known now
    assert ends_when_its_caller_leaves(client, f"/v1/models/mixed/{what}", body)
