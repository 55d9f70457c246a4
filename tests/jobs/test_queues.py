"""Order in which workers take jobs, the workers that jobs suit, and running jobs that give way to others."""

import dataclasses
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from models_store.database.database import Database
from models_store.job_states import Accelerator, EventKind, Job, JobKind, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from models_store.jobs.memory import bulk_memory, search_memory, training_memory
from models_store.jobs.queue import Outlook
from models_store.records import Dataset
from models_store.registry import Registry
from models_store.requests.accept_search import accept_auto
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from tests.jobs.test_jobs import a_result
from tests.store.makers import LEASE_S, a_dataset, a_search, claimed, finished, submitted


def submit(jobs: Jobs, name: str, **changes: Any) -> Job:
    values = {"project": "p", "kind": JobKind.VARIATIONAL, "model_name": name, "request": {}}
    return submitted(jobs, **{**values, **changes})


@pytest.fixture
def workers(database: Database) -> Workers:
    return Workers(database)


def taken(work: JobWork, *, accelerator: bool | None = None) -> str | None:
    job = work.claim("w", lease_s=LEASE_S, accelerator=accelerator)
    return None if job is None else job.model_name


def test_projects_take_turns_and_in_each_priorities_come_first_then_age(jobs, work):
    for name in ("a1", "a2", "a3"):
        submit(jobs, name, project="a")
    submit(jobs, "b1", project="b")
    submit(jobs, "low", project="c", priority=-1)
    submit(jobs, "high", project="a", priority=5)
    order = [taken(work) for _ in range(7)]
    assert order == ["high", "b1", "low", "a1", "a2", "a3", None]
    assert jobs.list("a", limit=1).items[0].priority == 5


def test_short_jobs_come_before_longer_ones_of_their_project_alone(jobs, work):
    submit(jobs, "training", project="a")
    submit(jobs, "long", project="a", estimate_s=90.0)
    submit(jobs, "short", project="a", estimate_s=4.0)
    submit(jobs, "urgent", project="a", priority=1)
    submit(jobs, "other", project="b")
    order = [taken(work) for _ in range(5)]
    assert order == ["urgent", "other", "short", "training", "long"]


def test_a_job_that_waits_knows_its_place(jobs, work, database):
    submit(jobs, "ended", project="a")
    ended = claimed(work)
    waiting = {
        name: submit(jobs, name, project=name[0]).id for name in ("a1", "a2", "a3", "b1", "b2")
    }
    assert jobs.place("a", ended.id) is None, "it runs"

    def positions() -> dict[str, int]:
        places = {name: jobs.place(name[0], job_id) for name, job_id in waiting.items()}
        return {name: place.position for name, place in places.items() if place is not None}

    # Project a runs a job already, so one of b comes before each of its own.
    assert positions() == {"b1": 1, "a1": 2, "b2": 2, "a2": 4, "a3": 5}
    place = jobs.place("a", waiting["a1"])
    assert place is not None
    assert place.starts_in_s is None, "no job has ended yet"
    work.finish(ended.id, ended.attempt, metrics={}, result=a_result(ended))
    running = claimed(work)
    assert running.model_name == "b1"
    place = jobs.place("a", waiting["a1"])
    assert place is not None
    assert place.position == 1
    assert place.starts_in_s is not None
    assert place.starts_in_s >= 0
    for number, project in enumerate("ba"):
        set_turn(database, project, number)
        claimed(work)
    with database.write() as session:
        session.execute(text("UPDATE job SET run_seconds = 60 WHERE state = 'succeeded'"))
    place = jobs.place("a", waiting["a2"])
    assert place is not None
    assert (place.position, place.starts_in_s) == (1, 20.0), "three jobs run"


def test_the_pace_of_trainings_follows_from_those_that_ended(jobs, work):
    submit(jobs, "other", estimate_s=1e-9)
    ended = claimed(work)
    work.finish(ended.id, ended.attempt, metrics={}, result=a_result(ended))
    assert jobs.outlook() == Outlook(pace=1.0, trainings=0, queued=0), "it was no training"
    for name in ("slow", "waits"):
        submit(jobs, name, kind=JobKind.TRAINING, estimate_s=990.0)
    ended = claimed(work)
    work.finish(ended.id, ended.attempt, metrics={}, result=a_result(ended))
    found = jobs.outlook()
    assert (found.trainings, found.queued) == (1, 1)
    assert 0.01 <= found.pace < 0.1, "it took less than it should"


def set_turn(database: Database, project: str, second: int) -> None:
    """Move the last turn of a project: SQLite's clock counts thousandths, and two may be equal."""
    with database.write() as session:
        session.execute(
            text("UPDATE project SET turn_at = :at WHERE name = :project"),
            {"at": f"2026-01-01T00:00:{second:02}.000Z", "project": project},
        )


def test_a_project_that_runs_fewer_jobs_comes_first_though_its_turn_was_later(jobs, work, database):
    submit(jobs, "a1", project="a")
    assert taken(work) == "a1"
    submit(jobs, "b1", project="b")
    ended = claimed(work)
    work.finish(ended.id, ended.attempt, metrics={}, result=a_result(ended))
    set_turn(database, "a", 1)
    set_turn(database, "b", 2)
    submit(jobs, "a2", project="a")
    submit(jobs, "b2", project="b")
    assert [taken(work), taken(work)] == ["b2", "a2"]


def test_a_job_that_is_resumed_or_deleted_wins_no_turn(jobs, work, database):
    submit(jobs, "a0", project="a")
    for number in range(4):
        submit(jobs, f"b{number}", project="b")
    order = []
    for number in range(5):
        job = claimed(work)
        order.append(job.project)
        jobs.cancel(job.project, job.id)
        work.cancelled(job.id, job.attempt)
        set_turn(database, job.project, number)
        if job.project == "a":
            jobs.resume("a", job.id)
        else:
            jobs.delete("b", job.id)
    assert order == ["a", "b", "a", "b", "a"]


def let_wait(database: Database) -> None:
    """Let the time pass that a job waits for until a running one gives way to it."""
    with database.write() as session:
        long_ago = {"at": "2026-01-01T00:00:00.000Z"}
        session.execute(text("UPDATE job SET queued_at = :at WHERE state = 'queued'"), long_ago)


def test_a_job_that_requires_an_accelerator_waits_for_one(jobs, work):
    submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    assert taken(work, accelerator=False) is None
    assert taken(work, accelerator=True) == "gpu"


@pytest.mark.parametrize(
    ("wanted", "better"), [(Accelerator.PREFERRED, True), (Accelerator.NONE, False)]
)
def test_a_job_waits_some_seconds_for_the_workers_that_suit_it(
    jobs, work, workers, database, wanted, better
):
    submit(jobs, "first", accelerator=wanted)
    assert taken(work, accelerator=not better) == "first"  # no better worker is at work
    submit(jobs, "second", accelerator=wanted)
    workers.beat("better", accelerator=better)
    assert taken(work, accelerator=not better) is None
    let_wait(database)
    assert taken(work, accelerator=not better) == "second"
    submit(jobs, "third", accelerator=wanted)
    workers.beat("better", accelerator=better, unfit="It has no store.")
    assert taken(work, accelerator=not better) == "third"
    submit(jobs, "fourth", accelerator=wanted)
    workers.beat("better", accelerator=better)
    assert taken(work, accelerator=better) == "fourth"


def test_no_worker_takes_a_job_that_does_not_fit_and_others_pass_it(jobs, work):
    submit(jobs, "large", memory_bytes=3 * 2**30)
    submit(jobs, "small", memory_bytes=2**30)
    submit(jobs, "unknown")
    claim_small = partial(work.claim, "w", lease_s=LEASE_S, memory_bytes=2 * 2**30)
    names = [job and job.model_name for job in (claim_small() for _ in range(3))]
    assert names == ["small", "unknown", None]
    large = work.claim("large", lease_s=0.0, memory_bytes=3 * 2**30)
    assert large is not None
    assert claim_small() is None, "its lease ran out, and it fits no better"
    assert work.claim("w", lease_s=LEASE_S) is not None, "of a worker that does not know its memory"


@pytest.mark.parametrize(
    ("wanted", "needed", "told"),
    [
        (
            Accelerator.NONE,
            2**31,
            "2,048 MiB of memory for it, and the largest that is at work has 1,024",
        ),
        (Accelerator.NONE, 2**30, None),
        (Accelerator.NONE, None, None),
        (Accelerator.REQUIRED, 2**20, "No worker that is at work has the GPU"),
    ],
)
def test_a_job_that_no_worker_at_work_can_take_says_so(
    database, jobs, workers, wanted, needed, told
):
    alone = submit(jobs, "x", accelerator=wanted, memory_bytes=needed)
    workers.beat("b", accelerator=False, memory_bytes=2**30)
    Workers(database).beat("a", accelerator=False, memory_bytes=2**29)
    job = submit(jobs, "y", accelerator=wanted, memory_bytes=needed)
    for one, expected in ((alone, None), (job, told)):
        events = jobs.events("p", one.id)
        texts = [one.data["text"] for one in events if one.event is EventKind.MESSAGE]
        assert len(texts) == (expected is not None)
        assert expected is None or expected in texts[0]
    jobs.cancel("p", job.id)
    jobs.resume("p", job.id)
    assert len(jobs.events("p", job.id)) == (4 if told is None else 6), "told again"


def test_a_running_job_gives_way_to_the_project_whose_turn_it_is(jobs, work, database):
    give_way = partial(work.should_give_way, accelerator=False)
    for name in ("a1", "a2", "a3"):
        submit(jobs, name, project="a", priority=100)
    first, second = (work.claim("w", lease_s=LEASE_S) for _ in range(2))
    assert first is not None
    assert second is not None
    let_wait(database)
    assert not give_way(first), "its own project alone waits"
    submit(jobs, "gpu", project="b", accelerator=Accelerator.REQUIRED)
    submit(jobs, "large", project="b", memory_bytes=2**30)
    let_wait(database)
    assert not give_way(first, memory_bytes=2**29), "nothing for this worker"
    submit(jobs, "b1", project="b")
    assert not give_way(first, memory_bytes=2**29), "an idle worker may take it"
    let_wait(database)
    assert give_way(first, memory_bytes=2**29)

    work.release(first.id, first.attempt, gives_way=True)
    other = work.claim("w", lease_s=LEASE_S, accelerator=False, memory_bytes=2**29)
    assert other is not None
    assert other.model_name == "b1"
    submit(jobs, "b2", project="b")
    let_wait(database)
    set_turn(database, "b", 1)
    assert not give_way(second, memory_bytes=2**29), "both projects run one job"
    again = jobs.get("a", first.id)
    assert (again.state, again.not_before) == ("queued", None)
    assert "another project" in jobs.events("a", first.id)[-2].data["text"]


def test_the_only_place_of_a_worker_goes_round(jobs, work, database):
    submit(jobs, "a1", project="a")
    submit(jobs, "b1", project="b")
    let_wait(database)
    order = []
    for number in range(4):
        job = claimed(work)
        order.append(job.project)
        set_turn(database, job.project, number)
        assert work.should_give_way(job)
        work.release(job.id, job.attempt, gives_way=True)
    assert order == ["a", "b", "a", "b"]


def test_a_job_gives_way_to_a_search_whose_first_step_nobody_took(jobs, work, database):
    """Check that a look for work takes the steps of parents, which nobody else does then."""
    submit(jobs, "a1", project="a")
    job = claimed(work)
    submit(
        jobs,
        "search",
        project="b",
        kind=JobKind.TRAINING,
        role=JobRole.PARENT,
        request=a_search(trials=1),
    )
    assert not work.should_give_way(job), "an idle worker may take it"
    let_wait(database)
    assert work.should_give_way(job)


def test_a_running_job_gives_way_to_one_whose_worker_is_gone(jobs, work, database):
    for name in ("a1", "b1"):
        submit(jobs, name, project=name[0])
    job = claimed(work)
    lost = work.claim("gone", lease_s=LEASE_S)
    assert lost is not None
    assert not work.should_give_way(job), "its worker is at work"
    work.renew(lost.id, lost.attempt, lease_s=-30.0)
    assert not work.should_give_way(job), "it has not waited yet"
    let_wait(database)

    assert work.should_give_way(job)
    work.release(job.id, job.attempt, gives_way=True)
    assert [(one.model_name, one.attempt) for one in (claimed(work), claimed(work))] == [
        ("b1", 2),
        ("a1", 2),
    ]


@pytest.mark.parametrize(
    ("cancels", "state"), [(False, JobState.QUEUED), (True, JobState.CANCELLED)]
)
def test_a_job_whose_worker_is_gone_waits_or_ends_though_no_worker_suits_it(
    jobs, work, cancels, state
):
    gpu = submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    assert work.claim("gone", lease_s=-30.0, accelerator=True) is not None
    if cancels:
        jobs.cancel("p", gpu.id)

    assert work.claim("w", lease_s=LEASE_S, accelerator=False) is None
    assert jobs.get("p", gpu.id).state is state


MIB = 2**20
LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)


@pytest.fixture
def dataset(registry: Registry) -> Dataset:
    moments = {"dtype": "float64", "mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
    columns = [moments | {"name": name, "distinct": 900} for name in "abcd"]
    return registry.add_dataset(a_dataset(rows=1000, columns=columns))


def needed(
    dataset: Dataset, *, rows: int = 1000, held_out: int = 0, hidden: int = 16, **fields: Any
) -> float:
    """MiB of a training."""
    large, other = (dataclasses.replace(dataset, rows=count) for count in (rows, held_out))
    flow = {"family": "maf", "layers": 2, "hidden": [hidden]}
    request = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": dataset.id, "flow": flow, **fields}
    )
    accepted = accept_training(request, large, limits=LIMITS)
    return training_memory(accepted, [large, other]) / MIB


def test_memory_grows_with_the_flow_and_less_with_rows_that_may_stay_in_their_file(dataset):
    small = needed(dataset)
    assert 320 < small < 368, "a process with PyTorch, and next to nothing"
    assert needed(dataset, hidden=4096) - small > 10 * 4 * (4096 * 12) / MIB
    million, hundred = needed(dataset, rows=10**6), needed(dataset, rows=10**8)
    assert million - small == pytest.approx(3 * 4 * 4e6 / MIB, rel=0.2)
    assert hundred < 3 * 4 * 4e8 / MIB / 1.5, "most of its rows stay in the file"
    assert hundred - 4 / 3 * small == pytest.approx(4 / 3 * 16e8 / MIB, rel=0.2)


def test_memory_grows_with_the_step_the_contexts_and_the_rows_that_are_held_out(dataset):
    one, two, four = (
        needed(dataset, rows=10**6, optimisation={"batch_size": n * 2**16}) for n in (1, 2, 4)
    )
    assert four - two == pytest.approx(2 * (two - one), rel=1e-6)
    assert two - one > 2**16 * 4 * 16 / MIB
    alone = partial(needed, dataset, columns=["a", "b"])
    contexts = partial(alone, context_columns=["c", "d"])
    assert contexts(hidden=2**18) - alone(hidden=2**18) > 2 * 2 * 4 * 2**18 / MIB
    million = needed(dataset, rows=10**6) - needed(dataset)
    assert contexts(rows=10**6) - contexts() == pytest.approx(million, rel=0.01)
    assert needed(dataset, held_out=10**6) - needed(dataset) == pytest.approx(million, rel=0.01)


def test_a_bulk_job_needs_the_memory_of_its_flow_and_of_the_rows_of_a_step(jobs, work):
    def needed(hidden: int, **changes: Any) -> float:
        flow = {"family": "maf", "layers": 2, "hidden": [hidden]}
        submitted(jobs)
        return bulk_memory(finished(work, claimed(work), flow=flow, **changes)) / MIB

    small, large = needed(16), needed(2**16)
    assert 320 < small < 368
    assert large - small > 4 * 512 * 2**16 / MIB
    assert needed(2**16, context_columns=["c"]) - large > 4 * 2 * 2**16 / MIB


def test_a_search_needs_what_its_largest_trial_needs(dataset: Dataset) -> None:
    request = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": dataset.id, "flow": "auto"}
    )
    search = accept_auto(request, dataset, limits=LIMITS, held_out=HeldOut())
    first = request.model_copy(update={"flow": search.trials[0].flow})
    single = training_memory(accept_training(first, dataset, limits=LIMITS), [dataset])
    assert search_memory(search, [dataset]) >= single
