"""Accounts of split bulk jobs."""

from models_store.job_states import JobKind, JobState
from models_store.plans.parts import parts_account
from models_store.plans.plan import Child

REQUEST = {"total_rows": 25, "part_rows": 10}


def a_part(number: int, state: JobState) -> Child:
    return Child(
        id=f"job_{number}",
        kind=JobKind.SCORING,
        stage=0,
        number=number,
        state=state,
        metrics={},
    )


def test_rows_of_parts_follow_from_the_request() -> None:
    parts = [
        a_part(0, JobState.SUCCEEDED),
        a_part(1, JobState.RUNNING),
        a_part(2, JobState.SUCCEEDED),
    ]
    account = parts_account(REQUEST, parts, elapsed_s=9.0)
    assert account.metrics == {"rows": 15}
    assert account.progress["children_ended"] == 2
    assert account.progress["fraction"] == 0.54
