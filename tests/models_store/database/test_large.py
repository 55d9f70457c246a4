"""Large columns: what changes a row, or makes one, neither reads nor encodes them under the write lock."""

from typing import Any

import pytest

from models_store.aliases import Aliases
from models_store.database.database import Database
from models_store.errors import PreconditionError
from models_store.job_states import Idempotency, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retention import JobRetention
from models_store.labels import LabelChange, Labels, any_state
from models_store.plans.search import SCORE
from models_store.records import NewDataset
from models_store.registry import Registry
from tests.models_store.makers import (
    LEASE_S,
    PROJECT,
    a_dataset,
    a_job,
    a_version,
    added,
    claimed,
    submitted,
)
from tests.models_store.searches import a_search

CHANGE = LabelChange(describes=True, description="x", tags={"a": "1"})
KEY = Idempotency(key="k", fingerprint="f")


def test_changes_of_jobs_leave_their_requests_alone(
    jobs: Jobs, work: JobWork, retention: JobRetention, database: Database
) -> None:
    request = {"model_name": "shuttle", "long": [0.5] * 1000}
    job = jobs.submit(a_job(request=request), idempotency=KEY).job
    assert jobs.submit(a_job(request=request), idempotency=KEY).job == job
    labelled = Labels(database).job(PROJECT, job.id, CHANGE, lambda before: before == job)
    assert (labelled.request, labelled.tags) == (request, {"a": "1"})
    assert jobs.cancel(PROJECT, job.id).request == request
    assert jobs.resume(PROJECT, job.id).request == request
    running = work.claim("worker", lease_s=LEASE_S)
    assert running is not None
    assert running.request == request
    assert jobs.cancel(PROJECT, job.id).state is JobState.RUNNING
    work.cancelled(job.id, 1)
    assert retention.forget_checkpoints(job.id, keep_s=-1) == 1
    assert jobs.delete(PROJECT, job.id) == [job.id]


def test_changes_of_datasets_and_versions_leave_their_columns_alone(
    registry: Registry, aliases: Aliases, jobs: Jobs, work: JobWork, database: Database
) -> None:
    labels = Labels(database, max_bytes=lambda: 10**9)
    dataset = registry.add_dataset(a_dataset(), idempotency=KEY)
    assert registry.add_dataset(a_dataset(), idempotency=KEY) == dataset
    assert labels.dataset(PROJECT, dataset.id, CHANGE, any_state).columns == dataset.columns
    job = submitted(jobs, dataset_id=dataset.id)
    claimed(work)
    version = a_version(job, checkpoint_key="models/1")
    made = work.finish(job.id, 1, metrics={}, version=version)
    assert work.finish(job.id, 1, metrics={}, version=version) == made
    assert registry.version(PROJECT, "shuttle", 1) == made
    aliases.set(PROJECT, "shuttle", "champion", version=1)
    labelled = labels.version(PROJECT, "shuttle", 1, CHANGE, any_state)
    assert (labelled.columns, labelled.aliases) == (["a", "b"], ["champion"])
    brought = a_version(job, checkpoint_key="models/2")
    again = Idempotency(key="v", fingerprint="f")
    second = registry.add_version(PROJECT, "shuttle", brought, idempotency=again)
    repeated = a_version(job, checkpoint_key="models/3")
    assert registry.add_version(PROJECT, "shuttle", repeated, idempotency=again) == second
    aliases.delete(PROJECT, "shuttle", "champion")
    assert registry.delete_version(PROJECT, "shuttle", 2) == ["models/2"]
    now = registry.dataset(PROJECT, dataset.id)
    other = NewDataset(**vars(a_dataset(id=dataset.id)) | {"columns": [{"name": "other"}]})
    assert registry.retype_dataset(now, other).columns == [{"name": "other"}]
    assert registry.delete_dataset(PROJECT, dataset.id).id == dataset.id


def test_steps_of_parents_leave_requests_and_products_alone(
    jobs: Jobs, work: JobWork, registry: Registry
) -> None:
    parent = submitted(jobs, role=JobRole.PARENT, request=a_search(trials=2, stages=((2, 1.0),)))
    child = claimed(work)
    jobs.cancel(PROJECT, parent.id)
    work.cancelled(child.id, child.attempt)
    assert work.claim("worker", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, parent.id)
    for score in (1.0, 2.0):
        child = claimed(work)
        work.finish_child(
            child.id, child.attempt, metrics={SCORE: score}, product=vars(a_version(child))
        )
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED
    assert registry.version(PROJECT, "shuttle", 1).columns == ["a", "b"]


def test_a_condition_is_tested_again_if_the_resource_has_changed_meanwhile(
    database: Database, jobs: Jobs
) -> None:
    job, labels, seen = submitted(jobs), Labels(database), []

    def queued(before: Any) -> bool:
        seen.append(before.state)
        if len(seen) == 1:
            jobs.cancel(PROJECT, job.id)
        return bool(before.state is JobState.QUEUED)

    with pytest.raises(PreconditionError):
        labels.job(PROJECT, job.id, CHANGE, queued)
    assert seen == [JobState.QUEUED, JobState.CANCELLED]
    assert jobs.get(PROJECT, job.id).tags == {}
    del seen[:]

    def anything(before: Any) -> bool:
        seen.append(before.state)
        (jobs.resume if before.state is JobState.CANCELLED else jobs.cancel)(PROJECT, job.id)
        return True

    with pytest.raises(PreconditionError):
        labels.job(PROJECT, job.id, CHANGE, anything)
    assert len(seen) == 10
    assert labels.job(PROJECT, job.id, CHANGE, any_state).tags == {"a": "1"}


def test_labels_of_a_dataset_whose_table_was_replaced_meanwhile_are_those_of_the_new_one(
    database: Database, registry: Registry
) -> None:
    dataset, labels = added(registry), Labels(database)
    tables = [{"name": "other"}]

    def replaced(before: Any) -> bool:
        if before.columns != tables:
            changes = {"columns": tables, "key": f"{dataset.key}-2"}
            registry.retype_dataset(before, a_dataset(id=dataset.id, **changes))
        return True

    assert labels.dataset(PROJECT, dataset.id, CHANGE, replaced).columns == tables
