"""The job protocol under whatever may happen, in any order, on both databases."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from models_store.database.database import Database
from models_store.jobs import leases, retries as job_retries
from tests.models_store.jobs.protocol_machine import ProtocolMachine

COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.fixture(autouse=True)
def _no_wait_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have jobs wait for hours after a failed attempt: the machine says when that is over."""
    monkeypatch.setattr(leases, "wait_s", lambda failures: 3600 * job_retries.wait_s(failures))


@pytest.mark.parametrize("examples", [6, pytest.param(24, marks=pytest.mark.long)])
def test_the_protocol_keeps_its_promises_in_any_order(database: Database, examples: int) -> None:
    # Always the same examples: what is found here must not come and go.
    few = settings(COMMON, max_examples=examples, stateful_step_count=25, derandomize=True)
    run_state_machine_as_test(lambda: ProtocolMachine(database), settings=few)  # type: ignore[arg-type]  # a factory does


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_protocol_keeps_its_promises_in_many_orders(database: Database) -> None:
    many = settings(COMMON, max_examples=300, stateful_step_count=60)
    run_state_machine_as_test(lambda: ProtocolMachine(database), settings=many)  # type: ignore[arg-type]  # a factory does
