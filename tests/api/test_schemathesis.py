"""Whatever the OpenAPI document allows or forbids, every answer is a documented one."""

import io
from copy import deepcopy
from itertools import count
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Case, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation.meta import TestPhase
from schemathesis.generation.stateful.state_machine import APIStateMachine
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api.conftest import add_model, admin_of, openapi_document

_OF_JOBS = ("/v1/jobs/training", "/v1/jobs/sweep", "/v1/jobs/variational")
OPERATIONS = [
    pytest.param(method, path, marks=[pytest.mark.slow] * (path in _OF_JOBS))
    for path, methods in openapi_document()["paths"].items()
    for method in methods
]


# The coverage of a schema is a thousand cases for the body of a job, field by field; to make them takes
# ten seconds, of which all but a few are not sent.
_FIRST = 6
_EVERY = 100


@pytest.fixture(scope="module")
def schema() -> BaseSchema:
    document = deepcopy(openapi_document())
    # What is written into an address may be too long for the head of a request; the server says so, no route.
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"]["431"] = {"description": "The head of the request is too long."}
    # The schema describes the stream, which is compared event by event.
    events = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    del events["text/event-stream"]["schema"]
    made = schemathesis.openapi.from_dict(document)
    made.config.request_timeout = 100  # a busy machine is no fault
    made.config.checks.negative_data_rejection.expected_statuses = [
        *made.config.checks.negative_data_rejection.expected_statuses,
        "431",
    ]
    return made


def npy(rows: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(rows).random((rows, 3)))
    return buffer.getvalue()


ATTEMPTS = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

schemathesis.openapi.media_type(
    "application/x-npy", st.binary(max_size=200) | st.integers(0, 9).map(npy)
)
for kind in (
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
    "application/vnd.safetensors",
    "application/x-ndjson",
    "text/csv",
):
    schemathesis.openapi.media_type(kind, st.binary(max_size=200))


def _has_no_time(case: Case[Any]) -> bool:
    """Return whether a case waits for less than a second, so that 503 is a right answer."""
    headers = dict(case.headers or {})
    try:
        return float(headers["X-Request-Timeout"]) < 1
    except (KeyError, TypeError, ValueError):
        return False


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_a_documented_one(schema, guarded_server, method, path):
    url, headers = guarded_server
    numbers = count()

    def check(case: Case[Any]) -> None:
        if case.meta is not None and case.meta.phase.name is TestPhase.COVERAGE:
            number = next(numbers)
            if number >= _FIRST and number % _EVERY:
                return
        # What fits the schema may still be refused, by what the store holds: a cursor, a model.
        excluded: list[CheckFunction] = [positive_data_acceptance]
        if _has_no_time(case):
            excluded.append(not_a_server_error)
        case.call_and_validate(base_url=url, headers=headers, excluded_checks=excluded)

    # Its cases are made here: collecting them takes each test process five seconds.
    one = schema.include(method=method.upper(), path=path)
    [made] = get_all_tests(schema=one, test_func=check, settings=ATTEMPTS, given_kwargs=None)
    assert isinstance(made, Ok)
    _, run = made.ok()
    run()


def _machine(schema: BaseSchema, url: str, headers: dict[str, str]) -> type[APIStateMachine]:
    """Sequences of requests: what one answers, the next ones ask for, change and delete."""

    class Sequences(schema.as_state_machine()):  # type: ignore[misc]  # made at run time
        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return {"base_url": url, "headers": headers}

        def validate_response(self, response: Response, case: Case[Any], **_: Any) -> None:
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

    return Sequences


@pytest.mark.slow
def test_every_answer_in_a_sequence_of_requests_is_a_documented_one(
    schema, guarded_server, guarded_folder
):
    # A sequence may list the keys of its project and end them, its own too.
    add_model(guarded_folder, project="sequences")
    headers = admin_of(guarded_folder, "sequences")
    run_state_machine_as_test(
        _machine(schema, guarded_server[0], headers),
        settings=settings(parent=ATTEMPTS, max_examples=10, stateful_step_count=8),
    )
