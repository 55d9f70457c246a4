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

from models_store.errors import StorageFullError
from models_store.job_states import JobKind, JobState
from models_store.jobs.leases import JobWork
from tests.waiting import wait_until
from tests.workers.place import ENDLESS, Place, Running
from workers.protocol import EpochDone, Message, Started, Uninterruptible
from workers.supervisor.attempt import Attempt
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.turns import Place as SharedPlace, Turn, resident_bytes
from workers.supervisor.writes import Writes

Supervise = Callable[..., Running]

SHORT = {"iterations": 20, "report_every": 10, "batch_size": 50}
TARGET = {"potential": "U1"}
MEMORY_BYTES = 2**30


@pytest.fixture
def at_once() -> int:
    """Number of trainers that stand still."""
    return 1


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, at_once: int) -> Iterator[list[int]]:
    """Process ids of trainers that stand still: of bulk jobs once they have computed all, of trainings at the start."""
    receive, pids, stood = Attempt._receive, list[int](), list[bool]()

    stands: dict[JobKind, type] = {JobKind.SAMPLING: Uninterruptible, JobKind.TRAINING: Started}

    def stop_at_the_file(attempt: Attempt, message: Message) -> None:
        receive(attempt, message)
        at = stands.get(attempt._job.kind)
        if at is not None and isinstance(message, at) and len(stood) < at_once:
            stood.append(True)
            os.kill(attempt._trainer.pid, signal.SIGSTOP)
            pids.append(attempt._trainer.pid)

    monkeypatch.setattr(Attempt, "_receive", stop_at_the_file)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def submit_for_another_project(
    place: Place, project: str = "other", *, iterations: int | None = None
) -> str:
    """Submit a job of another project, a short one unless told otherwise, which has waited for long."""
    job_id = place.submit_variational(TARGET, optimisation=SHORT)
    give(place, job_id, project)
    if iterations is not None:
        with place.database.write() as session:
            session.execute(
                text(
                    "UPDATE job SET request = json_set(request, '$.optimisation.iterations', :most)"
                    " WHERE id = :id"
                ),
                {"id": job_id, "most": iterations},
            )
    return job_id


def submit_one_that_needs_all_memory(place: Place) -> str:
    """Submit a job of a third project that needs as much as a trainer may have."""
    job_id = place.submit_variational(TARGET, optimisation=SHORT)
    with place.database.write() as session:
        session.execute(
            text("UPDATE job SET memory_bytes = :most WHERE id = :id"),
            {"id": job_id, "most": MEMORY_BYTES},
        )
    give(place, job_id, "third")
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


def test_a_file_that_is_written_keeps_no_place_from_another_project(
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


def test_no_job_of_the_same_project_runs_beside_a_file_that_is_written(
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


def test_a_worker_that_stops_ends_both(
    place: Place, supervise: Supervise, stopped: list[int]
) -> None:
    bulk = place.submit_sampling(place.add_model(), 200_000, output="csv")
    running = supervise(turn_s=0.01, stop_grace_s=1.0)
    wait_until(lambda: stopped)
    other = submit_for_another_project(place, iterations=100_000)
    wait_until(lambda: place.jobs.get("other", other).state is JobState.RUNNING, within_s=60)

    running.end()

    stopped.clear()
    assert place.state(bulk) is JobState.QUEUED
    assert place.jobs.get("other", other).state is JobState.QUEUED


def test_what_ran_beside_a_job_that_ended_gives_way_to_one_that_needs_all_memory(
    place: Place, supervise: Supervise, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.turns._GIVE_WAY_S", 0.1)
    bulk = place.submit_sampling(place.add_model(), 200_000, output="csv")
    running = supervise(turn_s=0.01, trainer_memory_bytes=MEMORY_BYTES)
    wait_until(lambda: stopped)
    other = submit_for_another_project(place, iterations=100_000)
    wait_until(lambda: place.jobs.get("other", other).state is JobState.RUNNING, within_s=60)
    os.kill(stopped.pop(), signal.SIGCONT)
    wait_until(lambda: place.state(bulk) is JobState.SUCCEEDED, within_s=60)

    third = submit_one_that_needs_all_memory(place)

    wait_until(lambda: place.jobs.get("other", other).state is JobState.QUEUED, within_s=60)
    running.join()
    supervise(trainer_memory_bytes=MEMORY_BYTES)
    wait_until(lambda: place.jobs.get("third", third).state is JobState.SUCCEEDED, within_s=60)


def test_two_jobs_that_share_a_place_leave_it_to_one_that_needs_all_memory(
    place: Place, supervise: Supervise, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.turns._GIVE_WAY_S", 0.1)
    first = place.submit(place.add_dataset(rows=20_000), **ENDLESS)
    running = supervise(turn_s=0.01, trainer_memory_bytes=MEMORY_BYTES)
    wait_until(lambda: stopped)
    other = submit_for_another_project(place, iterations=100_000)
    wait_until(lambda: place.jobs.get("other", other).state is JobState.RUNNING, within_s=60)
    os.kill(stopped.pop(), signal.SIGCONT)
    wait_until(lambda: place.job(first).checkpoints, within_s=60)
    assert place.state(first) is JobState.RUNNING, "nobody else waits"

    third = submit_one_that_needs_all_memory(place)

    wait_until(lambda: place.state(first) is JobState.QUEUED, within_s=60)
    wait_until(lambda: place.jobs.get("other", other).state is JobState.QUEUED, within_s=60)
    running.join()
    supervise(trainer_memory_bytes=MEMORY_BYTES)
    wait_until(lambda: place.jobs.get("third", third).state is JobState.SUCCEEDED, within_s=60)


def has_succeeded(place: Place, job_id: str) -> bool:
    return place.jobs.get("other", job_id).state is JobState.SUCCEEDED


def turn_of(place: SharedPlace, gives_way: Callable[[bool], bool]) -> Turn:
    return Turn(time.monotonic(), place=place, should_give_way=gives_way)


def noting(looks: list[bool]) -> Callable[[bool], bool]:
    """Return a function that says that another job should have the place, and notes what it is given."""

    def gives_way(shares: bool) -> bool:
        looks.append(shares)
        return True

    return gives_way


def reached(checkpoint: Any, rows: int = 1) -> EpochDone:
    return EpochDone.model_construct(
        metrics={"rows": rows}, progress={"total_rows": 2}, checkpoint=checkpoint
    )


def test_the_memory_of_a_process_is_known_while_it_runs() -> None:
    assert resident_bytes(os.getpid()) > 2**20
    assert resident_bytes(0) == 0


def test_a_job_goes_on_where_no_thread_can_be_started_for_the_one_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = threading.Event()

    def run() -> bool:
        ran.set()
        return False

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    place = SharedPlace(run)
    turn = turn_of(place, lambda _beside: True)
    turn.received(Uninterruptible())
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        assert not turn.is_to_end(time.monotonic(), Writes())
    place.close()
    assert not ran.is_set()
    assert not turn.is_to_end(time.monotonic() + 60, Writes())
    assert ran.wait(60)
    place.close()


def test_a_job_ends_its_turn_where_it_can_continue_and_not_before() -> None:
    place = SharedPlace(None)
    turn = turn_of(place, lambda _shares: True)
    assert not turn.is_to_end(time.monotonic(), Writes())
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic(), Writes())
    turn.received(reached("a checkpoint"))
    assert turn.is_to_end(time.monotonic(), Writes())

    turn = turn_of(place, lambda _shares: True)
    turn.received(reached("a checkpoint", rows=2))
    assert not turn.is_to_end(time.monotonic(), Writes()), "the last row is computed"


def test_a_pass_of_a_training_without_checkpoints_shares_its_place_and_goes_on() -> None:
    began = threading.Event()

    def run() -> bool:
        began.wait()
        return False

    place, looks = SharedPlace(run), list[bool]()
    turn = turn_of(place, noting(looks))
    turn.received(reached("a checkpoint"))
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic(), Writes())
    assert place.is_shared
    assert not turn.is_to_end(time.monotonic() + 60, Writes())
    assert looks == [True], "one job at a time runs beside another"

    turn.received(reached("a later checkpoint"))
    assert turn.is_to_end(time.monotonic() + 60, Writes()), "a third job waits for both"
    assert looks == [True, False]
    began.set()
    place.close()


def test_a_job_shares_its_place_until_its_first_checkpoint() -> None:
    place = SharedPlace(lambda: False)
    turn = turn_of(place, noting([]))

    assert not turn.is_to_end(time.monotonic(), Writes())

    assert place._thread is not None, "nothing ran beside the start of the job"
    place.close()
    turn.received(reached("the first checkpoint"))
    assert turn.is_to_end(time.monotonic() + 60, Writes())


def test_what_has_no_checkpoint_is_not_ended_where_no_job_can_run_beside_it() -> None:
    turn = turn_of(SharedPlace(None), noting([]))
    turn.received(reached("a checkpoint"))
    turn.received(Uninterruptible())
    assert not turn.is_to_end(time.monotonic() + 60, Writes())
    turn.received(reached("a later checkpoint"))
    assert turn.is_to_end(time.monotonic() + 60, Writes())


def test_a_job_shares_its_place_once_all_is_computed() -> None:
    place, looks = SharedPlace(lambda: False), list[bool]()
    turn = turn_of(place, noting(looks))
    turn.received(reached("a checkpoint", rows=2))
    assert not turn.is_to_end(time.monotonic(), Writes())
    assert looks == [True]
    place.close()
    turn.received(reached("a checkpoint of the evaluation"))
    assert turn.is_to_end(time.monotonic() + 60, Writes())


def test_a_place_is_promised_for_as_long_as_a_trainer_takes_to_end(
    place: Place, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    promised, gives_way = list[float | None](), JobWork.should_give_way

    def noted(*arguments: Any, promise_s: float | None, **named: Any) -> bool:
        promised.append(promise_s)
        return gives_way(*arguments, promise_s=promise_s, **named)

    monkeypatch.setattr(JobWork, "should_give_way", noted)
    place.submit(place.add_dataset(), **ENDLESS)
    running = supervise(turn_s=0.01, stop_grace_s=3.0)
    wait_until(lambda: promised, within_s=60)
    running.end()
    assert promised[0] == 3.0 + 10.0


def test_a_job_that_cannot_be_given_back_keeps_its_project_from_no_place(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageFullError

    monkeypatch.setattr(Supervisor, "_carry_through", fail)
    submit_for_another_project(place)
    supervisor, beside = Supervisor(place.database, place.settings, worker="w"), {"third": 1}
    with pytest.raises(StorageFullError):
        supervisor._run_one("cpu", beside=beside)
    assert beside == {"third": 1}


def test_no_job_runs_beside_one_that_could_not_be_given_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_supervisor: Supervisor, _job: Any, _devices: Any, shared: SharedPlace) -> None:
        shared.share()
        raise StorageFullError

    monkeypatch.setattr(Supervisor, "_carry_through", fail)
    submit_for_another_project(place)
    supervisor = Supervisor(place.database, place.settings, worker="w")
    with pytest.raises(StorageFullError):
        supervisor._run_one("cpu")
    assert "shared-place" not in {thread.name for thread in threading.enumerate()}
