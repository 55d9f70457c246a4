"""Large contexts are validated some rows at a time, as they are in one piece."""

import json
from functools import partial

import pytest

from app.http.json_body import validate_json
from app.inference import tensors
from app.inference.tensors import read_request, validated
from app.inference.views import InferRequest
from app.problems.problem import Problem
from app.rows.context_parts import Context, validate_context
from app.scoring.samples import SampleRequest
from models_store.requests.bulk import MAX_CONTEXT_ROWS, SamplingRequest, ScoringRequest
from models_store.requests.sweep import SweepRequest
from tabular.json.parts import PART_BYTES

ROWS = [[0.5, 1, "a", True, None, -0.0]] * 5_000
OBJECTS = [{"x": 1, "y": 2.5, "z": "a"}] * 5_000


validate_request = partial(validate_context, SampleRequest)
validate_job = partial(validate_context, SamplingRequest, max_rows=MAX_CONTEXT_ROWS)


def outcome(body, by_parts, model=SampleRequest):
    try:
        request = validate_json(model, body, by_parts=by_parts)
    except Problem as problem:
        return problem.status, problem.detail, problem.errors
    return repr(request)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 5_000, "seed": 3, "context": ROWS},
        {"n": 5_000, "context": OBJECTS},
        {"n": 5_000, "context": [*ROWS, *OBJECTS]},
        {"n": 5_000, "context": [*ROWS, *OBJECTS, [1]]},
        {"n": 5_000, "context": [*ROWS, [[1]], *ROWS, 3]},
        {"n": 5_000, "context": [*OBJECTS, {"x": [1], "y": {}}, "text"]},
        {"n": 0, "context": [*ROWS, 7]},
        {"n": 1, "other": 1, "context": ROWS},
        {"n": 1, "context": {str(place): place for place in range(9_000)}},
        {"n": 1, "context": "x" * 70_000},
        {"n": 1, "rows": ROWS},
        {"n": [1234567890] * 9_000},
        [1] * 40_000,
    ],
)
def test_a_large_request_for_samples_is_validated_as_in_one_piece(fields):
    body = json.dumps(fields).encode()
    assert len(body) > PART_BYTES
    assert outcome(body, validate_request) == outcome(body, None)
    if isinstance(fields, dict):
        job = json.dumps({"model": "a", "tags": {"x": "y"}, **fields}).encode()
        assert outcome(job, validate_job, SamplingRequest) == outcome(job, None, SamplingRequest)


@pytest.mark.parametrize("context", [ROWS * 10, OBJECTS * 5, [*ROWS * 5, [[]]]])
def test_no_more_than_some_rows_are_validated_at_once(monkeypatch, context):
    body, sizes = json.dumps({"n": 1, "context": context}).encode(), []
    validate = Context.model_validate_json

    def noted(text, *, strict):
        sizes.append(len(text))
        return validate(text, strict=strict)

    monkeypatch.setattr(Context, "model_validate_json", noted)
    outcome(body, validate_request)
    assert max(sizes) < 100_000 < len(body)


@pytest.mark.parametrize("form", ["object", "objects", "lists"])
def test_a_row_of_more_values_than_any_model_has_columns_is_refused(form):
    row = dict.fromkeys(map(str, range(20_000)), 1)
    context = {"object": row, "objects": [row], "lists": [list(row)]}[form]
    body = json.dumps({"n": 1, "context": context}).encode()
    assert outcome(body, validate_request)[:2] == (
        422,
        "A row of `context` has 20000 values; at most 10000 are allowed.",
    )


OTHERS = {str(place): place for place in range(120_000)}
TENSOR = {"name": "n", "shape": [1], "datatype": "INT64", "data": [1]}


@pytest.mark.parametrize(
    ("model", "by_parts", "fields"),
    [
        (SampleRequest, validate_request, {"n": OTHERS}),
        (SamplingRequest, validate_job, {"model": "a", "n": 1, "tags": OTHERS}),
        (InferRequest, validated, {"inputs": [TENSOR], "parameters": OTHERS}),
        (InferRequest, validated, {"inputs": [TENSOR], "outputs": [OTHERS]}),
        (InferRequest, validated, {"inputs": [TENSOR | {"parameters": OTHERS}]}),
        (InferRequest, validated, {"inputs": OTHERS}),
    ],
)
def test_many_values_where_none_are_many_are_not_validated(model, by_parts, fields, monkeypatch):
    monkeypatch.setattr(model, "model_validate_json", None)
    with pytest.raises(Problem) as refused:
        validate_json(model, json.dumps(fields).encode(), by_parts=by_parts)
    assert refused.value.status == 422
    assert "values beside those of" in refused.value.detail


@pytest.mark.parametrize("rows", [ROWS * 2, ROWS * 3, OBJECTS])
def test_a_context_of_a_job_is_validated_some_rows_at_a_time(rows, monkeypatch):
    sizes = []

    def noted(function):
        def validate(text, *, strict):
            sizes.append(len(text))
            return function(text, strict=strict)

        return validate

    for model in (Context, SamplingRequest):
        monkeypatch.setattr(model, "model_validate_json", noted(model.model_validate_json))
    body = json.dumps({"model": "a", "n": len(rows), "context": rows}).encode()
    told = outcome(body, validate_job, SamplingRequest)
    assert isinstance(told, str) == (len(rows) <= MAX_CONTEXT_ROWS)
    assert max(sizes) < 100_000 < len(body)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (InferRequest, {"inputs": [TENSOR], "x": OTHERS}),
        (InferRequest, {"outputs": [], "parameters": OTHERS}),
        (ScoringRequest, {"dataset_id": OTHERS, "x": OTHERS}),
        (SweepRequest, {"tags": dict.fromkeys(map(str, range(99)), "x" * 1_000)}),
    ],
)
def test_a_large_body_with_wrong_fields_is_refused_for_these_alone(model, fields, monkeypatch):
    """Each of them takes a copy of the whole body, or of what is in it."""
    body = json.dumps(fields).encode()
    with pytest.raises(Problem) as whole:
        validate_json(model, json.dumps(dict.fromkeys(fields)).encode())
    monkeypatch.setattr(model, "model_validate_json", None)
    with pytest.raises(Problem) as refused:
        validate_json(model, body)
    assert {error.pointer: error.detail for error in refused.value.errors}.items() <= {
        error.pointer: error.detail for error in whole.value.errors
    }.items()
    wrong = {name for name in fields if name not in model.model_fields}
    wrong |= {n for n, f in model.model_fields.items() if f.is_required()} - fields.keys()
    assert {error.pointer for error in refused.value.errors} == {f"/{name}" for name in wrong}


@pytest.mark.parametrize("deep", [220, 300, 900])
@pytest.mark.parametrize(
    ("model", "by_parts", "form"),
    [
        (SampleRequest, validate_request, '{"n":1,"context":%s}'),
        (SampleRequest, validate_request, '{"n":1,"context":[[1],%s]}'),
        (SampleRequest, validate_request, '{"n":1,"context":{"x":%s}}'),
        (InferRequest, validated, '{"inputs":%s}'),
        (InferRequest, validated, '{"inputs":[],"parameters":{"x":%s}}'),
        (InferRequest, validated, '{"inputs":[{"name":"rows","data":[1],"shape":%s}]}'),
    ],
)
def test_a_large_body_that_is_nested_deeply_is_refused_as_a_small_one_is(
    model, by_parts, form, deep
):
    body = (form % ("[" * deep + "]" * deep)).encode()
    with pytest.raises(Problem) as small:
        validate_json(model, body, by_parts=by_parts)
    with pytest.raises(Problem) as large:
        validate_json(model, body + b" " * PART_BYTES, by_parts=by_parts)
    assert large.value.detail == "The body is nested more deeply than any value of this route."
    assert (large.value.status, large.value.detail, large.value.errors) == (
        small.value.status,
        small.value.detail,
        small.value.errors,
    )


def test_values_of_tensors_are_not_validated_once_more(monkeypatch):
    data = [[0.5, None, 1]] * 10_000
    tensor = {"name": "rows", "shape": [10_000, 3], "datatype": "FP64", "data": data}
    other = {"name": "other", "shape": [1], "datatype": "FP64", "data": None}
    body, sizes = json.dumps({"inputs": [tensor | {"shape": [30_000]}]}).encode(), []
    validate = InferRequest.model_validate_json

    def noted(text, *, strict):
        sizes.append(len(text))
        return validate(text, strict=strict)

    monkeypatch.setattr(InferRequest, "model_validate_json", noted)
    request, tensors = read_request(body, None)
    assert request.inputs[0].data == data
    assert tensors[0].cells[2::3] == [1] * 10_000
    assert max(sizes) < 1_000
    for inputs in (
        [tensor, other, {"name": 1}],
        [tensor, 3],
        {"a": "x" * 70_000},
        [tensor | {"x": 1}],
    ):
        body = json.dumps({"inputs": inputs}).encode()
        with pytest.raises(Problem) as caught:
            read_request(body, None)
        with pytest.raises(Problem) as whole:
            validate_json(InferRequest, body)
        assert (caught.value.detail, caught.value.errors) == (
            whole.value.detail,
            whole.value.errors,
        )


def many_tensors(**wrong):
    """A request of many tensors, of which the one of number 1,500 is different."""
    inputs = [{**TENSOR, "name": f"x{place}", "parameters": {"a": 1}} for place in range(2_000)]
    return {"id": "1", "inputs": [*inputs[:1500], {**TENSOR, **wrong}, *inputs[1501:]]}


@pytest.mark.parametrize(
    "fields",
    [
        many_tensors(),
        many_tensors(name=3, shape=["x"]),
        many_tensors(parameters={"a": {}}),
        many_tensors(other=1),
        {**many_tensors(), "id": 1},
        {**many_tensors(), "inputs": [], "outputs": [{"name": "x" * 900}] * 100},
    ],
)
def test_many_tensors_are_validated_as_in_one_piece(fields):
    body = json.dumps(fields).encode()
    assert len(body) > PART_BYTES
    assert outcome(body, validated, InferRequest) == outcome(body, None, InferRequest)


@pytest.mark.parametrize("wrong", [[], 1])
def test_no_more_than_some_tensors_are_validated_at_once(wrong, monkeypatch):
    """However many of them are wrong: each value takes as long as several right ones."""
    sizes = []

    def noted(function):
        def validate(text, *, strict):
            sizes.append(len(text))
            return function(text, strict=strict)

        return validate

    for model in (InferRequest, tensors._Inputs):
        monkeypatch.setattr(model, "model_validate_json", noted(model.model_validate_json))
    tensor = {**TENSOR, "parameters": {str(place): wrong for place in range(90)}}
    body = json.dumps({"inputs": [tensor] * 900}).encode()
    told = outcome(body, validated, InferRequest)
    assert isinstance(told, str) == (wrong == 1)
    assert max(sizes) < 20_000 < len(body)


def test_more_tensors_than_any_request_has_are_refused():
    body = json.dumps({"inputs": [TENSOR] * 10_001}).encode()
    assert outcome(body, validated, InferRequest)[0] == 422
