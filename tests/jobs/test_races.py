"""Jobs under contention: real threads and processes on both databases, every race many times."""

import operator
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

from models_store.database.database import Database
from models_store.errors import (
    CancelledInsteadError,
    ConflictError,
    FencedError,
    LimitError,
    NotFoundError,
    StoreError,
)
from models_store.files.blobs import next_table_key
from models_store.job_states import Idempotency, Job, JobKind, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Keys, NewKey, Scope
from models_store.plans.search import SCORE
from models_store.records import DatasetSummary, Version
from models_store.registry import Registry
from models_store.webhooks.webhooks import Webhooks
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_dataset,
    a_job,
    a_search,
    a_version,
    added,
    claimed,
    finished,
    slug_of,
    submitted,
)

URL = "https://example.org/hook"


def race(*racers: Callable[[], Any]) -> list[Any]:
    """Start all at one moment; return what each returned or raised."""
    barrier = Barrier(len(racers))

    def run(racer: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return racer()
        except StoreError as error:
            return error

    with ThreadPoolExecutor(len(racers)) as pool:
        return list(pool.map(run, racers))


def finish(work: JobWork, job: Job) -> Callable[[], object]:
    return partial(work.finish, job.id, job.attempt, metrics={}, version=a_version(job))


def test_submissions_that_race_never_pass_the_limit_of_waiting_jobs(jobs: Jobs) -> None:
    for number in range(8):
        project = f"project-{number}"
        racers = [lambda p=project: jobs.submit(a_job(project=p), max_queued=3)] * 6
        refused = [result for result in race(*racers) if isinstance(result, LimitError)]
        assert [error.slug for error in refused] == ["limit-queued-jobs"] * 3
        assert len(jobs.list(project, limit=10).items) == 3


def test_a_job_is_resumed_or_its_dataset_gets_other_types(jobs: Jobs, registry: Registry) -> None:
    for _ in range(10):
        dataset = added(registry)
        job = submitted(jobs, dataset_id=dataset.id)
        jobs.cancel(PROJECT, job.id)
        key = next_table_key(dataset.id)
        new = replace(a_dataset(id=dataset.id), key=key, sha256="e" * 64)
        resumed, retyped = race(
            partial(jobs.resume, PROJECT, job.id), partial(registry.retype_dataset, dataset, new)
        )
        refused = slug_of(resumed) == "job-not-resumable", slug_of(retyped) == "dataset-in-use"
        assert sorted(refused) == [False, True], (resumed, retyped)


def test_a_job_is_submitted_or_a_dataset_of_it_gets_other_types(jobs, registry):
    for number in range(10):
        dataset, held_out = added(registry), added(registry)
        tables = {one.id: one.key for one in (dataset, held_out)}
        job = a_job(dataset_id=dataset.id, held_out_ids=(held_out.id,), tables=tables)
        changed = (dataset, held_out)[number % 2]
        new = replace(a_dataset(id=changed.id), key=next_table_key(changed.id), sha256="e" * 64)
        accepted, retyped = race(
            partial(jobs.submit, job), partial(registry.retype_dataset, changed, new)
        )
        refused = isinstance(accepted, ConflictError), slug_of(retyped) == "dataset-in-use"
        assert sorted(refused) == [False, True], (accepted, retyped)


def test_many_claimers_share_many_jobs_each_once(jobs: Jobs, work: JobWork) -> None:
    wanted = sorted(submitted(jobs).id for _ in range(24))

    def drain() -> list[str]:
        taken = []
        while (job := work.claim("w", lease_s=LEASE_S)) is not None:
            taken.append(job.id)
        return taken

    shares = race(*[drain] * 6)
    taken = [job_id for share in shares if isinstance(share, list) for job_id in share]
    # A claimer may find the queue locked and leave; what it left, the others took.
    assert sorted(taken) == wanted


def test_cancel_against_finish_ends_in_exactly_one_of_them(jobs, work, registry):
    outcomes: Counter[JobState] = Counter()
    for _ in range(12):
        submitted(jobs)
        job = claimed(work)
        cancelled, finished = race(partial(jobs.cancel, PROJECT, job.id), finish(work, job))
        state = jobs.get(PROJECT, job.id).state
        outcomes[state] += 1
        if state is JobState.SUCCEEDED:
            assert slug_of(cancelled) == "job-final"
            assert not isinstance(finished, StoreError)
        else:
            assert state is JobState.CANCELLED
            assert isinstance(cancelled, Job)
            assert isinstance(finished, CancelledInsteadError)
    models = registry.models(PROJECT, limit=1).items
    assert sum(model.latest_version for model in models) == outcomes[JobState.SUCCEEDED]


def test_a_child_is_claimed_or_cancelled_with_its_parent(jobs: Jobs, work: JobWork) -> None:
    for _ in range(8):
        parent = submitted(jobs, role=JobRole.PARENT, request=a_search(trials=4))
        running = [claimed(work)]
        cancelled, *others = race(
            partial(jobs.cancel, PROJECT, parent.id),
            *[partial(work.claim, "w", lease_s=LEASE_S)] * 3,
        )
        assert isinstance(cancelled, Job)
        running += [one for one in others if isinstance(one, Job)]
        for child in running:
            now = jobs.get(PROJECT, child.id)
            assert (now.state, now.cancel_requested) == (JobState.RUNNING, True)
            work.cancelled(child.id, child.attempt)
        assert jobs.get(PROJECT, parent.id).state is JobState.CANCELLED


def test_the_end_of_the_last_child_against_cancelling_its_parent(jobs: Jobs, work: JobWork) -> None:
    for _ in range(12):
        request = a_search(trials=1, stages=((1, 1.0),))
        parent = submitted(jobs, role=JobRole.PARENT, request=request)
        child = claimed(work)
        metrics = {SCORE: 1.0, "epoch": 5}
        product = vars(a_version(child, metrics=metrics))
        cancelled, finished = race(
            partial(jobs.cancel, PROJECT, parent.id),
            partial(work.finish, child.id, child.attempt, metrics=metrics, product=product),
        )
        states = {jobs.get(PROJECT, job.id).state for job in (parent, child)}
        if isinstance(cancelled, Job):
            assert states == {JobState.CANCELLED}
            assert isinstance(finished, CancelledInsteadError)
        else:
            assert states == {JobState.SUCCEEDED}
            assert slug_of(cancelled) == "job-final"
            assert finished is None


def test_a_zombie_against_the_new_owner_gives_one_version(jobs, work, registry):
    for number in range(1, 7):
        submitted(jobs)
        zombie = claimed(work, lease_s=0)

        def take_over(job_id: str = zombie.id) -> object:
            # A claimer may find the job locked by the zombie that is being fenced, and comes again.
            while jobs.get(PROJECT, job_id).state is not JobState.SUCCEEDED:
                if (job := work.claim("owner", lease_s=LEASE_S)) is not None:
                    return finish(work, job)()
            return None

        owner, woken = race(take_over, finish(work, zombie))
        assert isinstance(woken, FencedError) != (owner is None)
        assert registry.model(PROJECT, "shuttle").latest_version == number
        assert jobs.get(PROJECT, zombie.id).state is JobState.SUCCEEDED


def test_one_key_in_many_threads_makes_one_job(jobs: Jobs) -> None:
    for number in range(4):
        key = Idempotency(key=f"key-{number}", fingerprint="f")
        results = race(*[partial(jobs.submit, a_job(), idempotency=key)] * 6)
        answers = [result for result in results if not isinstance(result, StoreError)]
        assert len({answer.job.id for answer in answers}) == 1
        assert Counter(answer.replayed for answer in answers) == {True: 5, False: 1}
        assert len(jobs.list(PROJECT, limit=100).items) == number + 1


def test_versions_that_race_have_no_gap_and_no_double(jobs, work, registry):
    def train() -> int:
        job = claimed(work)
        return finished(work, job).version

    for _ in range(12):
        submitted(jobs)
    numbers = race(*[lambda: [train(), train()]] * 6)
    flat = [number for pair in numbers if isinstance(pair, list) for number in pair]
    assert sorted(flat) == list(range(1, 13))
    versions = registry.versions(PROJECT, "shuttle", limit=100).items
    assert [version.version for version in versions] == list(range(12, 0, -1))


def test_deleting_a_dataset_against_a_submission_lets_one_win(jobs, registry):
    for _ in range(10):
        dataset = added(registry)
        accepted, deleted = race(
            partial(submitted, jobs, dataset_id=dataset.id),
            partial(registry.delete_dataset, PROJECT, dataset.id),
        )
        if isinstance(accepted, Job):
            assert slug_of(deleted) == "dataset-in-use"
            assert registry.dataset(PROJECT, dataset.id) == dataset
        else:
            assert isinstance(accepted, NotFoundError)
            assert isinstance(deleted, DatasetSummary)


def test_an_alias_moved_by_two_at_once_has_one_winner(jobs, work, aliases):
    for _ in range(2):
        _trained(jobs, work)
    seen: int | None = None
    for _ in range(6):
        unmoved = partial(operator.eq, seen)
        move = partial(aliases.set, PROJECT, "shuttle", "production", condition=unmoved)
        results = race(partial(move, version=1), partial(move, version=2))
        losers = [result for result in results if isinstance(result, StoreError)]
        assert [type(loser) for loser in losers] == [ConflictError]
        seen = aliases.get(PROJECT, "shuttle", "production").revision


def _trained(jobs: Jobs, work: JobWork) -> Version:
    job = submitted(jobs)
    held = claimed(work)
    assert held.id == job.id
    return finished(work, held)


def test_deleting_a_version_against_a_submission_lets_one_win(jobs, work, registry):
    for number in range(1, 13):
        version = _trained(jobs, work)
        submit = partial(submitted, jobs, kind=JobKind.SAMPLING, model_version=version.version)
        delete = partial(registry.delete_version, PROJECT, "shuttle", version.version)
        if number % 2 == 0:
            delete = partial(registry.delete_model, PROJECT, "shuttle")
        accepted, deleted = race(partial(submit, request={"model": version.ref}), delete)
        if isinstance(accepted, Job):
            assert slug_of(deleted) == "version-in-use"
            assert registry.version(PROJECT, "shuttle", number) == version
            jobs.cancel(PROJECT, accepted.id)
            registry.delete_model(PROJECT, "shuttle")
        else:
            assert isinstance(accepted, NotFoundError)
            assert deleted == [version.checkpoint_key]


def test_deleting_a_model_against_a_new_version_repeats_no_number(jobs, work, registry):
    seen = []
    for _ in range(12):
        seen.append(_trained(jobs, work).version)
        submitted(jobs)
        delete = partial(registry.delete_model, PROJECT, "shuttle")
        made, deleted = race(finish(work, claimed(work)), delete)
        assert isinstance(deleted, list)
        assert isinstance(made, int)
        seen.append(made)
        if len(deleted) == 1:  # the new one came after it
            assert registry.resolve(PROJECT, "shuttle").version == made
            registry.delete_model(PROJECT, "shuttle")
    assert seen == sorted(set(seen))


def test_jobs_that_end_while_webhooks_are_deleted_end(database: Database, jobs: Jobs) -> None:
    webhooks = Webhooks(database)
    for _ in range(15):
        urls = [webhooks.create(PROJECT, URL, events=["job.cancelled"]) for _ in range(3)]
        ending = [submitted(jobs).id for _ in range(3)]
        results = race(
            *(partial(jobs.cancel, PROJECT, job_id) for job_id in ending),
            *(partial(webhooks.delete, PROJECT, webhook.id) for webhook in urls),
        )
        assert [type(result) for result in results] == [Job] * 3 + [type(None)] * 3
        assert {jobs.get(PROJECT, job_id).state for job_id in ending} == {JobState.CANCELLED}


def test_keys_that_are_made_at_once_are_not_too_many(database: Database) -> None:
    keys = Keys(database)
    for number in range(5):
        project = f"project-{number}"
        made = race(*[partial(keys.create, project, Scope.READ, most=3)] * 6)
        assert Counter(type(result) for result in made) == {NewKey: 3, ConflictError: 3}
