"""Formulas, JSON, and the JSON bodies that start jobs."""

import json
from typing import Any

import orjson
import torch
from pydantic import BaseModel

from app.http.json_body import validate_json
from app.models.views import AliasRequest
from app.problems.problem import Problem
from flows.variational.formula import FUNCTIONS, FormulaError, FormulaTarget
from models_store.requests.bulk import SamplingRequest, ScoringRequest
from models_store.requests.training import TrainingRequest
from models_store.requests.variational import VariationalRequest
from tables.errors import JsonError
from tables.json.strict import parse_strict

_Z = torch.tensor([[0.3, -1.2], [2.0, 0.5], [-0.7, 0.0]], dtype=torch.float64)
_BODIES: tuple[type[BaseModel], ...] = (
    TrainingRequest,
    VariationalRequest,
    ScoringRequest,
    SamplingRequest,
    AliasRequest,
)

FORMULAS = [
    b"-(z1^2 + z2**2)/2 - log(2*pi)",
    b"logaddexp(-0.5*norm(z1, z2), max(-z1, 1e-3, .5E+2), min(z2, e)) ",
    b"- - exp(-square(z1)) * sigmoid(z2 / 3) - sqrt(abs(tanh(z1)))\n+ pow(cos(z1), 2)",
]
FORMULA_WORDS = [*(name.encode() for name in FUNCTIONS), b"z1", b"z2", b"**", b"pi", b"1e308", b"("]
DOCUMENTS = [
    b'{"a":[1,2.5e-3,-0.0,true,false,null],"b":{"c":"\\u00e9\\ud83d\\ude00\\n"},"d":[]}',
    b' [1e308, -12345678901234567890, "", {}, [[[]]]] ',
]
JSON_WORDS = [
    b"null",
    b"true",
    b"NaN",
    b"Infinity",
    b"1e400",
    b"\\u0000",
    b"\\ud800",
    b'"":',
    b"[[",
]
REQUESTS = [
    bytes([index]) + json.dumps(body).encode()
    for index, body in (
        (0, {"dataset_id": "d", "model_name": "m", "flow": {"family": "maf", "hidden": [64, 64]}}),
        (0, {"dataset_id": "d", "model_name": "m", "seed": 3, "split": {"test": 0.1}}),
        (
            1,
            {
                "model_name": "m",
                "target": {"formula": "-z1^2", "dim": 2, "window": [[-1, 1], [-1, 1]]},
                "flow": {"family": "planar", "layers": 3},
            },
        ),
        (2, {"model": "m", "dataset_id": "d", "format": "csv"}),
        (3, {"model": "m", "n": 10, "seed": 3}),
        (4, {"version": 1}),
    )
]


def check_formula(data: bytes) -> None:
    """A target that gives one number a row, or an error that points into the text."""
    formula = data.decode(errors="replace")
    try:
        target = FormulaTarget(formula, 2)
    except FormulaError as error:
        assert 1 <= error.position <= len(formula) + 1  # noqa: PT017  not always raised
        assert error.pointer(formula).endswith("^")  # noqa: PT017
        assert len(str(error)) < 400  # noqa: PT017
    else:
        assert target.log_density(_Z).shape == (3,)


def check_json(data: bytes) -> None:
    """What is accepted, Python's own parser reads alike and no key is there twice."""
    try:
        found = parse_strict(data)
    except JsonError as error:
        error.detail.encode()
        return
    assert orjson.dumps(found) == orjson.dumps(_reference(data))


def _reference(data: bytes) -> object:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def no_constant(name: str) -> object:
        raise AssertionError(name)

    return json.loads(
        data, object_pairs_hook=once, parse_constant=no_constant, parse_int=_as_orjson
    )


def _as_orjson(digits: str) -> int | float:
    """Beyond 64 bits a whole number is a float."""
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 64 else float(digits)


def check_request(data: bytes) -> None:
    """The body of a request, of a kind that the first byte says: valid, or a problem."""
    model = _BODIES[(data[0] if data else 0) % len(_BODIES)]
    try:
        body = validate_json(model, data[1:])
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017  not always raised
        for error in problem.errors:
            (error.detail + (error.pointer or "")).encode()
    else:
        again = model.model_validate_json(body.model_dump_json(), strict=True)
        assert again == body
