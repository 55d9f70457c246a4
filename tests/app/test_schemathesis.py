"""Fault 189: whatever the OpenAPI document allows or forbids, every answer is a documented one."""

import io
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings, strategies as st
from schemathesis import Case
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from app.main import create_app
from app.settings import ApiSettings
from tests.attempts import attempts

schema = schemathesis.openapi.from_dict(create_app(ApiSettings()).openapi())


def npy(rows: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(rows).random((rows, 3)))
    return buffer.getvalue()


schemathesis.openapi.media_type(
    "application/x-npy", st.binary(max_size=200) | st.integers(0, 9).map(npy)
)
for kind in (
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
    "application/x-ndjson",
    "text/csv",
):
    schemathesis.openapi.media_type(kind, st.binary(max_size=200))


@schema.parametrize()
@pytest.mark.timeout(300)  # a process for each of many uploads
@settings(
    max_examples=attempts(16),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_a_documented_one(case: Case[Any], server: str) -> None:
    # What fits the schema may still be refused, by what the store holds: a cursor, a missing model.
    # The server has no keys, so it asks for none; `test_access.py` walks a service that has.
    case.call_and_validate(
        base_url=server, excluded_checks=[positive_data_acceptance, ignored_auth]
    )
