"""Jobs whose work their children do: steps, claims, cancelling, resuming, deletion, storage."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from models_store.computed import Usage
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import CancelledInsteadError, ConflictError, LimitError, NotFoundError
from models_store.job_states import Accelerator, EventKind, Job, JobKind, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.parents import MOST_OPEN
from models_store.jobs.retries import Failure, verdict
from models_store.plans.parts import parts_account
from models_store.plans.plan import Child, Finish, Start
from models_store.plans.search import SCORE, search_step
from models_store.quotas import stored_bytes
from models_store.registry import Registry
from models_store.webhooks.webhooks import Webhooks
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_job,
    a_search,
    a_version,
    claimed,
    no_wait,
    record,
    submitted,
)


def a_parent(jobs: Jobs, *, trials: int = 3, **changes: Any) -> Job:
    request = a_search(trials=trials, **changes)
    return submitted(jobs, role=JobRole.PARENT, request=request)


def ended(work: JobWork, job: Job, score: float) -> None:
    metrics = {SCORE: score, "epoch": 5, "seconds": 2.0}
    work.finish(job.id, job.attempt, metrics=metrics, product=vars(a_version(job, metrics=metrics)))


def children_of(jobs: Jobs, parent: Job) -> list[Any]:
    return jobs.list(PROJECT, limit=100, parent_id=parent.id).items[::-1]


def storage(database: Database) -> int:
    with database.read() as session:
        return stored_bytes(session, PROJECT)


def test_a_search_trains_all_then_the_best_and_makes_one_version(database, jobs, work):
    webhooks = Webhooks(database)
    hook = webhooks.create(PROJECT, "https://example.org/", events=["job.succeeded"])
    parent = a_parent(jobs)
    first = [claimed(work) for _ in range(3)]
    assert all(job.parent_id == parent.id and job.role is JobRole.CHILD for job in first)
    assert work.claim("w2", lease_s=LEASE_S) is None
    for job, score in zip(first, (1.0, 3.0, 2.0), strict=True):
        ended(work, job, score)
    best = claimed(work)
    assert best.request["optimisation"]["max_epochs"] == 40
    assert first[0].request["optimisation"]["max_epochs"] == 14
    assert storage(database) == 3 * a_version(best).checkpoint_bytes
    ended(work, best, 4.0)
    assert work.claim("w1", lease_s=LEASE_S) is None
    done = jobs.get(PROJECT, parent.id)
    assert (done.state, done.model_version) == (JobState.SUCCEEDED, 1)
    version = Registry(database).version(PROJECT, "shuttle", 1)
    assert version.job_id == parent.id
    assert version.checkpoint_key == a_version(best).checkpoint_key
    assert done.metrics is not None
    assert [row["state"] for row in done.metrics["trials"]] == ["succeeded"] * 4
    assert done.metrics["seconds"] == 8.0
    assert done.progress is not None
    assert (done.progress["fraction"], done.progress["eta_seconds"]) == (1.0, 0.0)
    told = [event for event in jobs.events(PROJECT, parent.id) if event.event is EventKind.CHILD]
    assert [event.data["number"] for event in told] == [0, 1, 2, 1]
    [delivery] = webhooks.deliveries(PROJECT, hook.id, limit=9).items
    assert delivery.data["id"] == parent.id
    assert storage(database) == 4 * a_version(best).checkpoint_bytes, "until they are forgotten"


def test_children_do_not_fill_the_queue(jobs: Jobs, work: JobWork, database: Database) -> None:
    a_parent(jobs)
    claimed(work)
    jobs.submit(a_job(), max_queued=1)
    usage = Usage(database).of_project(PROJECT)
    assert (usage.waiting, usage.jobs) == (1, {"queued": 3, "running": 2})
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_queued=1)


def test_a_parent_fails_when_all_children_do_and_tries_them_again_when_resumed(jobs, work):
    parent = a_parent(jobs, trials=2)
    for child in (claimed(work), claimed(work)):
        work.fail(child.id, child.attempt, code="diverged", detail="It diverged.")
    assert work.claim("w1", lease_s=LEASE_S) is None
    failed = jobs.get(PROJECT, parent.id)
    assert failed.state is JobState.FAILED
    assert failed.error == {
        "code": "diverged",
        "detail": "All of its 2 children failed. The first one: It diverged.",
    }
    jobs.resume(PROJECT, parent.id)
    for child in (claimed(work), claimed(work)):
        assert child.attempt == 2
        ended(work, child, 1.0)
    ended(work, claimed(work), 1.0)
    assert work.claim("w1", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED


def test_a_parent_whose_children_fail_for_several_reasons_names_them(jobs, work):
    parent = a_parent(jobs, trials=2)
    for code in ("oom", "diverged"):
        child = claimed(work)
        work.fail(child.id, child.attempt, code=code, detail=None)
    assert jobs.get(PROJECT, parent.id).error == {
        "code": "children_failed",
        "detail": "All of its children failed: diverged, oom.",
    }


def test_failures_of_earlier_stages_are_not_tried_again_when_a_parent_is_resumed(jobs, work):
    parent = a_parent(jobs, trials=3, stages=((1, 1.0), (3, 0.25), (1, 1.0)), max_seconds=60.0)
    failing = [claimed(work)]
    for child in failing:
        work.fail(child.id, child.attempt, code="diverged", detail="It diverged.")
        while (more := work.claim("w1", lease_s=LEASE_S)) is not None:
            failing.append(more)
    assert jobs.get(PROJECT, parent.id).state is JobState.FAILED
    jobs.resume(PROJECT, parent.id)
    again = [claimed(work).id for _ in failing[1:]]
    assert again == [child.id for child in failing[1:]]
    assert len(again) == 2
    assert work.claim("w1", lease_s=LEASE_S) is None


def test_cancelling_a_parent_cancels_its_children(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs, trials=4)
    one, two, _silent = (claimed(work, lease_s=lease_s) for lease_s in (LEASE_S, LEASE_S, 0))
    ended(work, one, 1.0)
    assert jobs.cancel(PROJECT, parent.id).state is JobState.RUNNING
    with pytest.raises(CancelledInsteadError):
        ended(work, two, 1.0)
    assert work.claim("w1", lease_s=LEASE_S) is None
    states = Counter(child.state for child in children_of(jobs, parent))
    assert states == {JobState.SUCCEEDED: 1, JobState.CANCELLED: 3}
    told = [event.event for event in jobs.events(PROJECT, parent.id)]
    assert told.count(EventKind.CHILD) == 4
    assert jobs.get(PROJECT, parent.id).state is JobState.CANCELLED
    jobs.cancel(PROJECT, parent.id)


def test_a_parent_whose_children_wait_is_cancelled_at_once_and_goes_on_where_it_was(jobs, work):
    parent = a_parent(jobs)
    first = claimed(work)
    record(work, first, 1)
    work.release(first.id, first.attempt)
    assert jobs.cancel(PROJECT, parent.id).state is JobState.CANCELLED
    assert work.claim("w1", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, parent.id)
    again = claimed(work)
    assert (again.id, again.checkpoints) == (first.id, [a_checkpoint(first, 1)])
    assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING


def test_a_child_is_resumed_and_deleted_with_its_parent_alone(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    child = claimed(work)
    work.fail(child.id, child.attempt, code="diverged", detail=None)
    with pytest.raises(ConflictError, match=parent.id):
        jobs.resume(PROJECT, child.id)
    with pytest.raises(ConflictError, match=parent.id):
        jobs.delete(PROJECT, child.id)
    jobs.cancel(PROJECT, parent.id)
    deleted = jobs.delete(PROJECT, parent.id)
    assert len(deleted) == 4
    assert deleted[-1] == parent.id
    with pytest.raises(NotFoundError):
        jobs.get(PROJECT, child.id)


def test_a_plan_that_cannot_be_carried_out_fails_and_no_other_job(jobs, work, caplog):
    broken = submitted(jobs, role=JobRole.PARENT, request={"no": "plan"})
    other = submitted(jobs)
    assert claimed(work).id == other.id
    assert jobs.get(PROJECT, broken.id).state is JobState.FAILED
    assert "cannot be worked out" in caplog.text


def test_files_of_children_go_when_nothing_needs_them(jobs, work, retention):
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    one, two = claimed(work), claimed(work)
    ended(work, one, 1.0)
    assert retention.forget_children(keep_s=0, limit=10) == []
    ended(work, two, 2.0)
    work.claim("w1", lease_s=LEASE_S)
    # That of the second is the version's.
    assert retention.forget_children(keep_s=3600, limit=10) == [(one.id, 1)]
    assert retention.forget_children(keep_s=3600, limit=10) == []
    assert len(children_of(jobs, parent)) == 2


def test_children_of_a_parent_that_nobody_resumed_are_forgotten_at_once(
    database, jobs, work, retention
):
    parent = a_parent(jobs, trials=2)
    ended(work, claimed(work), 1.0)
    jobs.cancel(PROJECT, parent.id)
    old = [child.id for child in children_of(jobs, parent)]
    assert retention.forget_children(keep_s=3600, limit=10) == []
    with database.write() as session:
        session.execute(
            update(JobRow).where(JobRow.id == parent.id).values(finished_at=db_now(-7200))
        )
    forgotten = retention.forget_children(keep_s=3600, limit=10)
    assert [job_id for job_id, _ in forgotten] == old
    assert children_of(jobs, parent) == []
    assert retention.forget_children(keep_s=3600, limit=10) == []
    jobs.resume(PROJECT, parent.id)
    assert claimed(work).id not in old, "it begins again"


def a_parent_whose_step_fails(jobs: Jobs, work: JobWork) -> tuple[Job, Job, dict[str, Any]]:
    """A parent, its child, and the product of that, of which no version can be made."""
    broken = a_parent(jobs, trials=1, stages=((1, 1.0),))
    child = claimed(work)
    unstorable = vars(a_version(child, seed=2**70))  # beyond the integers of both databases
    work.finish(child.id, 1, metrics={SCORE: 1.0, "epoch": 5}, product=unstorable)
    assert jobs.get(PROJECT, child.id).state is JobState.SUCCEEDED, "its end is kept"
    return broken, child, unstorable


def test_a_step_that_fails_is_tried_again_and_keeps_nobody_waiting(database, jobs, work, caplog):
    broken, child, unstorable = a_parent_whose_step_fails(jobs, work)
    alone = submitted(jobs)
    assert claimed(work).id == alone.id
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert caplog.text.count(f"the next step of {broken.id} failed") == 1, "it waits meanwhile"
    waits = jobs.get(PROJECT, broken.id)
    assert waits.state is JobState.RUNNING
    assert waits.not_before is not None
    with database.write() as session:
        product = unstorable | {"seed": 1}
        session.execute(update(JobRow).where(JobRow.id == child.id).values(product=product))
    no_wait(database, broken.id)
    assert work.claim("worker", lease_s=LEASE_S) is None
    done = jobs.get(PROJECT, broken.id)
    assert (done.state, done.not_before) == (JobState.SUCCEEDED, None)


def test_a_parent_whose_step_fails_each_time_fails(database, jobs, work):
    broken, _, _ = a_parent_whose_step_fails(jobs, work)
    for before in (
        JobState.RUNNING,
        JobState.QUEUED,
    ):  # it has as many tries again when it is resumed
        looks = 0
        while (found := jobs.get(PROJECT, broken.id)).state is before:
            assert work.claim("worker", lease_s=LEASE_S) is None
            no_wait(database, broken.id)
            looks += 1
        assert looks == 5
        assert found.error is not None
        assert (found.state, found.error["code"]) == (JobState.FAILED, "internal")
        with database.read() as session:
            failures = session.scalars(select(JobRow.failures).where(JobRow.id == broken.id)).one()
        known = [Failure(**failure) for failure in failures]  # type: ignore[typeddict-item] # JSON
        assert verdict(known) is None, "nothing speaks against the job itself"
        jobs.resume(PROJECT, broken.id)


def test_children_keep_the_place_of_their_parent_in_the_queue(jobs: Jobs, work: JobWork) -> None:
    needs = {"priority": 7, "accelerator": Accelerator.PREFERRED, "memory_bytes": 2**30}
    search = a_search(trials=2, stages=((2, 1.0),))
    parent = submitted(jobs, role=JobRole.PARENT, request=search, **needs)
    later = submitted(jobs, **needs)
    assert work.claim("small", lease_s=LEASE_S, memory_bytes=2**29) is None
    children = [claimed(work) for _ in range(2)]
    told = {(child.parent_id, child.priority, child.accelerator) for child in children}
    assert told == {(parent.id, 7, Accelerator.PREFERRED)}
    assert claimed(work).id == later.id


def test_a_project_has_so_many_open_parents(jobs: Jobs) -> None:
    parents = [a_parent(jobs, trials=1) for _ in range(MOST_OPEN)]
    with pytest.raises(LimitError, match="have not ended"):
        a_parent(jobs, trials=1)
    jobs.cancel(PROJECT, parents[0].id)
    a_parent(jobs, trials=1)
    with pytest.raises(LimitError):
        jobs.resume(PROJECT, parents[0].id)


LIMITED = ((1, 1.0), (4, 0.25), (2, 1.0))


def a_child(
    stage: int,
    number: int,
    score: float,
    *,
    epochs: int = 40,
    seconds: float = 1.0,
    stop_reason: str = "max_epochs",
) -> Child:
    return Child(
        id=f"job_{stage}_{number}",
        kind=JobKind.TRAINING,
        stage=stage,
        number=number,
        state=JobState.SUCCEEDED,
        metrics={SCORE: score, "epoch": epochs, "seconds": seconds, "stop_reason": stop_reason},
        product=lambda: {"checkpoint_key": f"{number}", "checkpoint_sha256": "0", "flow": {}},
    )


def next_of(search: dict[str, Any], children: list[Child]) -> list[Any]:
    """The children that a search starts next."""
    step = search_step(search, children)
    assert isinstance(step, Start), step
    return [*step.children]


def started(search: dict[str, Any], children: list[Child]) -> list[tuple[int, int]]:
    return [(child.stage, child.number) for child in next_of(search, children)]


def members(search: dict[str, Any], children: list[Child]) -> list[int]:
    (ensemble,) = next_of(search, children)
    return [member["trial"] for member in ensemble.request["members"]]


def options(search: dict[str, Any], children: list[Child], name: str) -> list[Any]:
    return [child.request["optimisation"][name] for child in next_of(search, children)]


def limited(max_seconds: float, **changes: Any) -> dict[str, Any]:
    return a_search(trials=4, stages=LIMITED, max_seconds=max_seconds, **changes)


def test_a_limited_search_trains_the_default_alone_for_all_of_the_time_first() -> None:
    assert started(limited(30.0), []) == [(0, 0)]
    assert options(limited(30.0), [], "max_seconds") == [30.0]
    assert options(limited(30.0), [], "max_epochs") == [40]


def test_a_limit_that_the_default_uses_up_gives_the_default() -> None:
    default = a_child(0, 0, 1.0, epochs=20, seconds=30.0)
    assert search_step(limited(30.0), [default]) == Finish(default)


def test_the_others_share_what_the_default_leaves() -> None:
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    assert started(limited(30.0), [default]) == [(1, 1), (1, 2), (1, 3)]
    slices = options(limited(30.0), [default], "max_seconds")
    assert sum(slices) == pytest.approx(20.0 * 1.0 / 3.0)


@pytest.mark.parametrize(("left_s", "kept"), [(100.0, [(2, 2), (2, 3)]), (15.0, [(2, 2)])])
def test_only_as_many_are_trained_to_their_end_as_the_time_allows(left_s, kept):
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    others = [
        a_child(1, number, score, epochs=10, seconds=2.5)  # 10 s for their 40 epochs
        for number, score in ((1, 0.0), (2, 3.0), (3, 2.0))
    ]
    search = limited(10.0 + 7.5 + left_s)
    assert started(search, [default, *others]) == kept


def test_the_default_competes_with_what_was_trained_after_it() -> None:
    default = a_child(0, 0, 9.0, epochs=40, seconds=10.0)
    others = [a_child(1, n, 1.0, epochs=10, seconds=1.0) for n in (1, 2, 3)]
    last = a_child(2, 1, 5.0, epochs=40, seconds=4.0)
    assert search_step(limited(60.0), [default, *others, last]) == Finish(default)
    assert members(limited(60.0, ensemble=2), [default, *others, last]) == [0, 1]


def test_without_a_limit_all_trainings_take_six_times_the_default() -> None:
    search = a_search(trials=4, stages=LIMITED)
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    assert started(search, []) == [(0, 0)]
    slices = options(search, [default], "max_seconds")
    assert sum(slices) == pytest.approx(50.0 * 1.0 / 3.0)
    others = [a_child(1, number, 9.0 - number, epochs=10, seconds=2.5) for number in (1, 2, 3)]
    assert started(search, [default, *others]) == [(2, 1), (2, 2)]


def test_the_default_is_among_those_that_an_ensemble_is_chosen_of() -> None:
    children = [a_child(0, 0, -9.0), *(a_child(1, n, 0.0) for n in (1, 2, 3))]
    children += [a_child(2, n, float(n)) for n in (1, 2, 3)]
    assert members(a_search(trials=4, stages=LIMITED, ensemble=2), children) == [3, 0]


def test_a_default_that_fails_leaves_the_search_to_the_others() -> None:
    failed = replace(a_child(0, 0, 1.0), state=JobState.FAILED, metrics={"seconds": 1.0})
    assert started(limited(30.0), [failed]) == [(1, 1), (1, 2), (1, 3)]


def test_a_search_without_a_limit_begins_with_all() -> None:
    assert started(a_search(trials=3), []) == [(0, 0), (0, 1), (0, 2)]


MIXTURE = 1


def with_mixture(**changes: Any) -> dict[str, Any]:
    """A search of four trials in three stages, the second of which is a mixture of Gaussians."""
    search = a_search(trials=4, stages=((4, 0.1), (2, 0.4), (1, 1.0)), **changes)
    search["trials"][MIXTURE]["flow"] = {"family": "gaussian_mixture"}
    return search


def first_stage(mixture: float, **of_mixture: Any) -> list[Child]:
    others = [a_child(0, number, float(number)) for number in (0, 2, 3)]
    return [*others, a_child(0, MIXTURE, mixture, **of_mixture)]


def test_a_mixture_is_fitted_to_its_end_at_once() -> None:
    assert options(with_mixture(), [], "max_epochs") == [10, 40, 10, 10]


@pytest.mark.parametrize(
    ("mixture", "second"), [(9.0, [(1, 3)]), (2.5, [(1, 3)]), (0.5, [(1, 3), (1, 2)])]
)
def test_a_mixture_is_fitted_once_and_competes_to_the_end(mixture, second):
    search, children = with_mixture(), first_stage(mixture, stop_reason="converged")
    assert started(search, children) == second
    children += [a_child(stage, number, float(number)) for stage, number in second]
    last = search_step(search, children)
    if mixture > 4:
        assert last == Finish(children[3])
        return
    assert started(search, children) == [(2, 3)]
    children.append(a_child(2, 3, 1.0))
    best = children[3] if mixture > 1 else children[-1]
    assert search_step(search, children) == Finish(best)


def test_a_mixture_is_a_member_of_the_ensemble_as_it_was_fitted() -> None:
    children = [*first_stage(9.0, stop_reason="converged"), a_child(1, 3, 3.0)]
    assert members(with_mixture(ensemble=2), children) == [MIXTURE, 3]


def test_a_mixture_that_ran_out_of_time_goes_on_in_the_next_stage() -> None:
    children = first_stage(9.0, stop_reason="max_seconds")
    assert (1, MIXTURE) in started(with_mixture(max_seconds=600.0), children)


REQUEST = {"total_rows": 25, "part_rows": 10}


def test_rows_of_parts_follow_from_the_request() -> None:
    states = JobState.SUCCEEDED, JobState.RUNNING, JobState.SUCCEEDED
    parts = [replace(a_child(0, at, 0.0), state=state) for at, state in enumerate(states)]
    metrics, progress = parts_account(REQUEST, parts, elapsed_s=9.0)
    assert metrics == {"rows": 15}
    assert progress["children_ended"] == 2
    assert progress["fraction"] == 0.54
