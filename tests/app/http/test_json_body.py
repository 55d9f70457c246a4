import json
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest.mock import Mock

import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.testclient import TestClient

from app.auth.callers import ANYBODY
from app.http.json_body import json_body, parse_json, validate_json
from app.limits import BodyMemory, in_thread
from app.metrics import Metrics
from app.problems import wording
from app.problems.problem import Problem, install_problem_handlers
from app.server.request_middleware import RequestMiddleware
from app.server.startup import Shutdown
from app.settings import ApiSettings
from models_store.requests.training import TrainingRequest


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")

    family: Literal["leaf"]
    units: Annotated[list[int], Field(max_length=3)]


class Twig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    family: Literal["twig"]


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(default=1, ge=1, le=100)
    rate: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    label: Annotated[str, Field(max_length=10)] = ""
    part: Annotated[Leaf | Twig, Field(discriminator="family")] | None = None


class Branches(BaseModel):
    parts: list[Annotated[Leaf | Twig, Field(discriminator="family")]]


def slug_of(body: bytes) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        validate_json(Tree, body)
    return caught.value.status, caught.value.type.slug


def pointers_of(body: bytes) -> list[str | None]:
    with pytest.raises(Problem) as caught:
        validate_json(Tree, body)
    return [error.pointer for error in caught.value.errors]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "nan"])
def test_nonfinite_literals_are_no_json(literal):
    assert slug_of(b'{"rate": %s}' % literal.encode()) == (400, "json-nonfinite")


def test_nan_inside_a_string_is_only_a_syntax_error_elsewhere():
    assert slug_of(b'{"label": "NaN", }') == (400, "json-syntax")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 309])
def test_numbers_beyond_float64_are_not_finite(number):
    assert slug_of(b'{"rate": %s}' % number.encode()) == (422, "value-nonfinite")


def test_a_nonfinite_literal_in_an_invalid_field_is_refused_before_it_is_looked_at():
    assert slug_of(b'{"n": NaN}') == (400, "json-nonfinite")


def test_half_a_surrogate_pair_is_refused():
    assert slug_of(b'{"n": "\\ud800"}') == (400, "json-syntax")


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused(opening):
    assert slug_of(opening * 100_000) == (400, "json-syntax")


def test_brackets_inside_strings_do_not_nest():
    assert parse_json(b'"%s"' % (b"[" * 5000)) == "[" * 5000


@pytest.mark.parametrize("nested", [b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900])
def test_nesting_below_the_limit_does_not_fit_any_field(nested):
    assert slug_of(b'{"n": %s}' % nested) == (422, "validation")


def test_millions_of_digits_in_numbers_that_are_short_enough_take_linear_time():
    """A search that begins again at every digit would take a quarter of a minute."""
    numbers = b",".join([b"1." + b"1" * 990] * 4_000)
    assert len(parse_json(b"[%b]" % numbers)) == 4_000
    with pytest.raises(Problem):
        parse_json(b"[%b x]" % numbers)


@pytest.mark.parametrize("value", [b"true", b'"1.5"', b"null", b"[1.5]"])
def test_nothing_is_converted_to_a_float(value):
    assert slug_of(b'{"rate": %s}' % value) == (422, "validation")


@pytest.mark.parametrize("value", [b"1.5", b"1.0", b'"5"', b"true", b"0", b"1000000000"])
def test_an_integer_field_takes_integers_in_range_only(value):
    assert slug_of(b'{"n": %s}' % value) == (422, "validation")


def test_an_integer_is_a_fine_float():
    assert validate_json(Tree, b'{"rate": 2}').rate == 2.0


def test_an_unknown_field_of_a_flow_is_pointed_at():
    flow = b'{"model_name": "m", "dataset_id": "ds_%s", "flow": {"family": "maf", "layrs": 2}}'
    with pytest.raises(Problem) as caught:
        validate_json(TrainingRequest, flow % (b"0" * 32))
    assert caught.value.type.slug == "unknown-field"
    assert [error.as_dict() for error in caught.value.errors] == [
        {"pointer": "/flow/layrs", "detail": "There is no such field; did you mean `layers`?"}
    ]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TrainingRequest, {f"preprocessign{n}": 1 for n in range(290)}),
        (Branches, {"parts": [{"family": "laef"}] * 290}),
    ],
)
def test_names_like_the_callers_are_looked_for_a_few_times(monkeypatch, kind, body):
    matches = Mock(return_value=[])
    monkeypatch.setattr(wording, "get_close_matches", matches)
    with pytest.raises(Problem):
        validate_json(kind, json.dumps(body).encode())
    assert 0 < matches.call_count <= 50


def test_a_body_with_hundreds_of_faults_is_not_told_of_each():
    fields = ", ".join(f'"preprocessign{n}": 1' for n in range(400))
    with pytest.raises(Problem, match="more fields than there are"):
        validate_json(TrainingRequest, b"{%s}" % fields.encode())


def test_an_unknown_field_is_pointed_at():
    assert slug_of(b'{"epocs": 3}') == (422, "unknown-field")
    assert pointers_of(b'{"epocs": 3}') == ["/epocs"]


@pytest.mark.parametrize(
    "body",
    [
        '{"n": 1}'.encode("utf-16"),
        '{"n": 1}'.encode("utf-16-le"),
        '{"n": 1}'.encode("utf-32"),
        b'\xef\xbb\xbf{"n": 1}',
        b'{"label": "\xff"}',
        b'{"label": "\xed\xa0\x80"}',
        b'{"label": "\xc0\xaf"}',
    ],
)
def test_and_062_only_plain_utf8_is_json(body):
    assert slug_of(body) == (400, "json-syntax")


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_refused(body):
    assert slug_of(body) == (400, "body-empty")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1"])
def test_another_value_than_an_object_is_refused(body):
    assert slug_of(body) == (422, "validation")


@pytest.mark.parametrize(
    "body", [b"{'n': 1}", b'{"n": 1,}', b'{"n": 01}', b"{}{}", b'{"n": 1', b'"\x01"']
)
def test_whatever_else_is_no_json_is_a_syntax_error(body):
    assert slug_of(body) == (400, "json-syntax")


@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
def test_unterminated_strings_and_backslashes_take_linear_time(size):
    assert slug_of(b'{"' + b'\\"' * size)[0] == 400


def test_pointers_leave_out_the_members_of_unions():
    body = b'{"part": {"family": "leaf", "units": [1, "x"]}, "n": 0}'
    assert pointers_of(body) == ["/n", "/part/units/1"]


def test_a_missing_field_is_pointed_at():
    assert pointers_of(b'{"part": {"family": "leaf"}}') == ["/part/units"]


def test_pointers_escape_what_pointers_must_and_cut_long_keys():
    assert pointers_of(b'{"a/b~c": 1}') == ["/a~1b~0c"]
    assert len(pointers_of(b'{"%s": 1}' % (b"k" * 5000))[0] or "") < 100


def test_an_unknown_tag_is_not_repeated():
    with pytest.raises(Problem) as caught:
        validate_json(Tree, b'{"part": {"family": "secret"}}')
    assert "secret" not in caught.value.errors[0].detail
    assert "'leaf'" in caught.value.errors[0].detail


def app_for(folder: Path, *, max_json_bytes: int) -> FastAPI:
    async def let_in(request: Request) -> None:
        request.scope["state"]["caller"] = ANYBODY

    app = FastAPI(dependencies=[Depends(let_in)])
    app.add_middleware(RequestMiddleware, metrics=Metrics(), shutdown=Shutdown())
    app.state.settings = ApiSettings(data_dir=folder, max_json_bytes=max_json_bytes)
    app.state.body_memory = BodyMemory(2 * max_json_bytes)
    install_problem_handlers(app)
    return app


@pytest.fixture
def tree_client(tmp_path: Path) -> TestClient:
    app = app_for(tmp_path, max_json_bytes=100_000)

    @app.post("/tree")
    async def plant(tree: Annotated[Tree, Depends(json_body(Tree))]) -> Tree:
        return tree

    return TestClient(app)


@pytest.fixture
def training_client(tmp_path: Path) -> TestClient:
    app = app_for(tmp_path, max_json_bytes=10**6)

    @app.post("/tree")
    async def train(
        body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest, max_values=100_000))],
    ) -> TrainingRequest:
        return body

    return TestClient(app)


def post(client: TestClient, body: bytes, content_type: str = "application/json") -> Any:
    return client.post("/tree", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_a_json_body_reaches_the_route(tree_client, content_type):
    assert post(tree_client, b'{"n": 7}', content_type).json()["n"] == 7


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_other_media_types_are_refused(tree_client, content_type):
    response = post(tree_client, b'{"n": 7}', content_type)
    assert (response.status_code, response.json()["type"]) == (415, "/problems/media-type")
    assert response.json()["supported"] == ["application/json"]


def test_a_huge_string_is_not_sent_back(tree_client):
    response = post(tree_client, b'{"n": "%s"}' % (b"x" * 90_000))
    assert response.status_code == 422
    assert len(response.content) < 8000
    assert b"xxx" not in response.content


def test_many_errors_fit_into_a_small_answer(tree_client):
    body = b"{%s}" % b",".join(b'"%s%d": 1' % (b"k" * 50, i) for i in range(1000))
    response = post(tree_client, body)
    assert response.status_code == 422
    assert len(response.content) <= 8000


def test_a_body_over_the_route_limit_is_refused(tree_client):
    response = post(tree_client, b'{"label": "%s"}' % (b"x" * 100_000))
    assert (response.status_code, response.json()["type"]) == (413, "/problems/limit-body")


def test_a_body_without_a_length_is_counted(tree_client):
    response = tree_client.post(
        "/tree",
        content=(b"x" * 10_000 for _ in range(20)),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413


def test_a_large_body_is_parsed_off_the_event_loop_with_the_same_result(tree_client):
    padded = b'{"n": 7 %s}' % (b" " * 90_000)
    assert post(tree_client, padded).json()["n"] == 7
    assert post(tree_client, b'{"n": NaN %s}' % (b" " * 90_000)).status_code == 400


def test_bodies_that_say_nothing_of_columns_have_few_values(tree_client):
    labels = ",".join(f'"{n}": 1' for n in range(2_001))
    response = post(tree_client, b'{"n": 7, "part": {%s}}' % labels.encode())
    assert (response.status_code, response.json()["type"]) == (422, "/problems/validation")
    assert "at most 2000 are allowed" in response.json()["detail"]


def test_each_of_many_columns_may_have_options(training_client):
    names = [f"c{n}" for n in range(9_000)]
    options = {name: {"low": 0.125} for name in names}
    body = {
        "model_name": "m",
        "dataset_id": "ds_" + 32 * "0",
        "columns": names,
        "preprocessing": {"columns": options},
        "optimisation": {"learning_rate": 0.0123456789},
    }
    response = post(training_client, json.dumps(body).encode())
    assert response.status_code == 200, response.text
    assert TrainingRequest.model_validate(response.json()) == TrainingRequest.model_validate(body)


@pytest.mark.parametrize("size", [1_000, 40_000])
def test_a_large_body_counts_while_it_waits_to_be_parsed(tree_client, monkeypatch, size):
    counted, memory = [], tree_client.app.state.body_memory

    async def counting(function):
        counted.append(memory.held)
        return await in_thread(function)

    monkeypatch.setattr("app.http.json_body.in_thread", counting)
    body = b'{"n": 7}'.ljust(size)
    assert post(tree_client, body).json()["n"] == 7
    assert counted == [size] * (size == 40_000)
    with memory.share(ANYBODY.project) as share:
        share.hold(90_000)
        answer = post(tree_client, body)
    assert (answer.status_code, memory.held) == (503 if size == 40_000 else 200, 0)
