"""Turns of jobs that have no checkpoint to continue from: jobs of other projects run beside them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from models_store.job_states import JobKind, JobState
from tests.waiting import wait_until
from tests.workers.place import Place, Running
from workers.protocol import EpochDone, Message, Uninterruptible
from workers.supervisor.attempt import Attempt
from workers.supervisor.turns import Place as SharedPlace, Turn
from workers.supervisor.writes import Writes

Supervise = Callable[..., Running]

SHORT = {"iterations": 20, "report_every": 10, "batch_size": 50}
TARGET = {"potential": "U1"}


@pytest.fixture
def at_once() -> int:
    """Number of trainers that stand still."""
    return 1


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, at_once: int) -> Iterator[list[int]]:
    """Process ids of trainers of bulk jobs, which stand still once they have computed all."""
    receive, pids, stood = Attempt._receive, list[int](), list[bool]()

    def stop_at_the_file(attempt: Attempt, message: Message) -> None:
        receive(attempt, message)
        is_bulk = attempt._job.kind is JobKind.SAMPLING
        if isinstance(message, Uninterruptible) and is_bulk and len(stood) < at_once:
            stood.append(True)
            os.kill(attempt._trainer.pid, signal.SIGSTOP)
            pids.append(attempt._trainer.pid)

    monkeypatch.setattr(Attempt, "_receive", stop_at_the_file)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def submit_for_another_project(place: Place) -> str:
    """Submit a short job of another project, which has waited for long."""
    job_id = place.submit_variational(TARGET, optimisation=SHORT)
    give(place, job_id, "other")
    return job_id


def give(place: Place, job_id: str, project: str) -> None:
    """Make a job one of another project, which has waited for long."""
    with place.database.write() as session:
        session.execute(
            text(
                "UPDATE job SET project = :project, queued_at = '2000-01-01T00:00:00.000Z'"
                " WHERE id = :id"
            ),
            {"id": job_id, "project": project},
        )


@pytest.mark.fault(760)
def test_fault_760_a_file_that_is_written_keeps_no_place_from_another_project(
    place: Place, supervise: Supervise, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.turns._GIVE_WAY_S", 0.1)
    bulk = place.submit_sampling(place.add_model(), 200_000, output="csv")
    running = supervise(turn_s=0.01)
    wait_until(lambda: stopped)

    for _ in ("the first", "one that came when no job was left"):
        other = submit_for_another_project(place)
        wait_until(partial(has_succeeded, place, other), within_s=60)
        time.sleep(0.3)  # for a look that finds no job

    assert place.state(bulk) is JobState.RUNNING
    os.kill(stopped.pop(), signal.SIGCONT)
    running.join()
    job = place.job(bulk)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert job.result is not None
    assert job.result["rows"] == 200_000


@pytest.mark.fault(910)
@pytest.mark.fault(940)
@pytest.mark.parametrize("at_once", [2])
def test_faults_910_940_a_second_file_that_is_written_keeps_no_place_either(
    place: Place, supervise: Supervise, stopped: list[int]
) -> None:
    model, another = place.add_model(), place.add_model(project="third")
    first = place.submit_sampling(model, 200_000, output="csv")
    running = supervise(turn_s=0.01)
    wait_until(lambda: len(stopped) == 1)
    second = place.submit_sampling(another, 200_000, output="csv")
    give(place, second, "third")
    other = submit_for_another_project(place)
    wait_until(lambda: place.jobs.get("other", other).state is JobState.SUCCEEDED, within_s=60)
    wait_until(lambda: len(stopped) == 2, within_s=60)
    with place.database.write() as session:  # those who run had their turns before it
        session.execute(
            text("UPDATE turn SET taken_at = '2000-01-01T00:00:00.000Z' WHERE project != 'other'")
        )

    later = submit_for_another_project(place)
    wait_until(lambda: place.jobs.get("other", later).state is JobState.SUCCEEDED, within_s=60)

    assert place.state(first) is JobState.RUNNING
    assert place.jobs.get("third", second).state is JobState.RUNNING
    for pid in (stopped.pop(), stopped.pop()):
        os.kill(pid, signal.SIGCONT)
    running.join()
    assert place.state(first) is JobState.SUCCEEDED
    assert place.jobs.get("third", second).state is JobState.SUCCEEDED


@pytest.mark.fault(903)
def test_fault_903_no_job_of_the_same_project_runs_beside_a_file_that_is_written(
    place: Place, supervise: Supervise, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.turns._GIVE_WAY_S", 0.1)
    bulk = place.submit_sampling(place.add_model(), 200_000, output="csv")
    running = supervise(turn_s=0.01)
    wait_until(lambda: stopped)
    second = place.submit_variational(TARGET, optimisation=SHORT)

    for _ in ("a job", "a later one"):
        other = submit_for_another_project(place)
        wait_until(partial(has_succeeded, place, other), within_s=60)
        time.sleep(0.5)  # for a claim that would take the second job
        assert place.state(second) is JobState.QUEUED

    os.kill(stopped.pop(), signal.SIGCONT)
    running.join()
    assert place.state(bulk) is JobState.SUCCEEDED


@pytest.mark.fault(760)
def test_fault_760_a_worker_that_stops_ends_both(
    place: Place, supervise: Supervise, stopped: list[int]
) -> None:
    bulk = place.submit_sampling(place.add_model(), 200_000, output="csv")
    running = supervise(turn_s=0.01, stop_grace_s=1.0)
    wait_until(lambda: stopped)
    other = submit_for_another_project(place)
    with place.database.write() as session:
        session.execute(
            text(
                "UPDATE job SET request = json_set(request, '$.optimisation.iterations', 100000)"
                " WHERE id = :id"
            ),
            {"id": other},
        )
    wait_until(lambda: place.jobs.get("other", other).state is JobState.RUNNING, within_s=60)

    running.end()

    stopped.clear()
    assert place.state(bulk) is JobState.QUEUED
    assert place.jobs.get("other", other).state is JobState.QUEUED


def has_succeeded(place: Place, job_id: str) -> bool:
    return place.jobs.get("other", job_id).state is JobState.SUCCEEDED


def turn_of(place: SharedPlace, gives_way: Callable[[int], bool]) -> Turn:
    return Turn(time.monotonic(), os.getpid(), place=place, should_give_way=gives_way)


def noting(taken: list[int]) -> Callable[[int], bool]:
    """Return a function that says that another job should have the place, and notes what it is given."""

    def gives_way(taken_bytes: int) -> bool:
        taken.append(taken_bytes)
        return True

    return gives_way


def reached(checkpoint: Any, rows: int = 1) -> EpochDone:
    return EpochDone.model_construct(
        metrics={"rows": rows}, progress={"total_rows": 2}, checkpoint=checkpoint
    )


def test_what_runs_beside_a_job_has_the_memory_that_is_left() -> None:
    asked, taken = list[int](), list[int]()

    def run(taken_bytes: int) -> bool:
        taken.append(taken_bytes)
        return False

    place = SharedPlace(run)
    turn = turn_of(place, noting(asked))
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic(), Writes())
    place.close()
    assert taken == asked
    assert taken[0] > 2**20


def test_a_job_ends_its_turn_where_it_can_continue_and_not_before() -> None:
    place = SharedPlace(None)
    turn = turn_of(place, lambda _taken: True)
    assert not turn.is_to_end(time.monotonic(), Writes())
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic(), Writes())
    turn.received(reached("a checkpoint"))
    assert turn.is_to_end(time.monotonic(), Writes())

    turn = turn_of(place, lambda _taken: True)
    turn.received(reached("a checkpoint", rows=2))
    assert not turn.is_to_end(time.monotonic(), Writes()), "the last row is computed"


@pytest.mark.fault(763)
def test_fault_763_a_pass_of_a_training_without_checkpoints_shares_its_place_and_goes_on() -> None:
    began = threading.Event()

    def run(_taken: int) -> bool:
        began.wait()
        return False

    place, looks = SharedPlace(run), list[int]()
    turn = turn_of(place, noting(looks))
    turn.received(reached("a checkpoint"))
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic(), Writes())
    assert place.is_shared
    assert not turn.is_to_end(time.monotonic() + 60, Writes())
    assert len(looks) == 1, "one job at a time runs beside another"

    turn.received(reached("a later checkpoint"))
    assert not turn.is_to_end(time.monotonic() + 60, Writes()), "its end would free no place"
    began.set()
    place.close()
    assert turn.is_to_end(time.monotonic() + 60, Writes())


@pytest.mark.fault(880)
def test_fault_880_a_job_shares_its_place_until_its_first_checkpoint() -> None:
    place = SharedPlace(lambda _taken: False)
    turn = turn_of(place, noting([]))

    assert not turn.is_to_end(time.monotonic(), Writes())

    assert place._thread is not None, "nothing ran beside the start of the job"
    place.close()
    turn.received(reached("the first checkpoint"))
    assert turn.is_to_end(time.monotonic() + 60, Writes())
