"""Quotas of a project, and uploads that come twice."""

import pytest

from models_store.errors import IdempotencyReusedError, LimitError, NotFoundError
from models_store.job_states import Idempotency, JobResult
from models_store.jobs import JobKind
from tests.models_store.makers import LEASE_S, a_dataset, a_job, a_version, added, submitted

BEFORE = 1000 + 200 + 3 * 2**30
KEY = Idempotency(key="k", fingerprint="f")


@pytest.mark.fault(100)
def test_datasets_weights_and_results_count_against_the_quota(registry, jobs, work):
    added(registry, bytes=1000)
    submitted(jobs)
    job = work.claim("w", lease_s=LEASE_S)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job, checkpoint_bytes=200))
    submitted(jobs, kind=JobKind.SAMPLING, model_version=1)
    job = work.claim("w", lease_s=LEASE_S)
    result = JobResult(key="r", sha256="e" * 64, bytes=3 * 2**30, rows=1, media_type="text/csv")
    work.finish_bulk(job.id, job.attempt, metrics={}, result=result)

    registry.check_storage("default", max_bytes=BEFORE + 1)
    with pytest.raises(LimitError) as caught:
        registry.check_storage("default", max_bytes=BEFORE)
    assert caught.value.slug == "quota-storage"
    with pytest.raises(LimitError):
        registry.add_dataset(a_dataset(bytes=11), max_bytes=BEFORE + 10)
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_bytes=BEFORE)
    assert len(registry.datasets("default", limit=10).items) == 1
    registry.check_storage("other", max_bytes=1)
    registry.add_dataset(a_dataset(bytes=10), max_bytes=BEFORE + 10)


def test_an_upload_that_comes_twice_gives_the_first_dataset(registry):
    first = registry.add_dataset(a_dataset(), idempotency=KEY)
    assert registry.add_dataset(a_dataset(), idempotency=KEY) == first
    assert registry.datasets("default", limit=10).items == [first]
    with pytest.raises(IdempotencyReusedError):
        registry.add_dataset(a_dataset(), idempotency=Idempotency(key="k", fingerprint="g"))


@pytest.mark.fault(190)
def test_keys_of_projects_are_apart_and_end_with_their_dataset(registry):
    first = registry.add_dataset(a_dataset(), idempotency=KEY)
    other = registry.add_dataset(a_dataset(project="other"), idempotency=KEY)
    assert other.id != first.id
    registry.delete_dataset("default", first.id)
    again = registry.add_dataset(a_dataset(), idempotency=KEY)
    assert again.id != first.id
    assert registry.add_dataset(a_dataset(project="other"), idempotency=KEY) == other
    with pytest.raises(NotFoundError):
        registry.dataset("default", first.id)
