"""Where requests become jobs, whatever their kind: once for each key, durably, then hinted at."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from app.dependencies import (
    REPLAYED,
    IdempotencyKey,
    JobsDep,
    ProjectDep,
    QueueDep,
    RegistryDep,
    SettingsDep,
)
from app.jobs.views import JobView
from app.problems.problem import problem_responses, request_id_of
from app.state import state_of
from models_store.jobs.job_queue import JobQueue
from models_store.jobs.jobs import Idempotency, Job, JobKind, NewJob, Submitted
from models_store.registry import Dataset, Version
from models_store.requests.flow_limits import TrainingLimits
from tables.slugs import Slug


def _limits(settings: SettingsDep) -> TrainingLimits:
    return TrainingLimits(
        max_parameters=settings.max_parameters,
        max_layers=settings.max_layers,
        max_memory_bytes=settings.max_training_memory_bytes,
        max_model_bytes=settings.max_model_bytes,
    )


LimitsDep = Annotated[TrainingLimits, Depends(_limits)]


class Grounds:
    """What a request is checked against; FastAPI makes one for each.

    Attributes:
        limits: of one job.
        max_result_bytes: of the numbers of a bulk job's result.
    """

    def __init__(self, settings: SettingsDep, project: ProjectDep, registry: RegistryDep) -> None:
        self.limits = _limits(settings)
        self.max_result_bytes = settings.max_result_bytes
        self._project = project
        self._registry = registry

    def version(self, ref: str) -> Version:
        """Return the version that a reference stands for now.

        Raises:
            NotFoundError: the caller has no such model, version or alias.
        """
        return self._registry.resolve(self._project, ref)

    def dataset(self, dataset_id: str) -> Dataset:
        """Return the caller's dataset.

        Raises:
            NotFoundError: the caller has no such dataset.
        """
        return self._registry.dataset(self._project, dataset_id)

    def optional(self, dataset_id: str | None) -> Dataset | None:
        """The same, or None for none."""
        return None if dataset_id is None else self.dataset(dataset_id)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A request with every choice made.

    Attributes:
        request: what the job row keeps.
        model_name: the model that gets a version, or that is used.
        model_version: the version that is used.
        reserved_bytes: Most bytes that the job may come to store.
    """

    request: BaseModel
    model_name: str
    model_version: int | None = None
    reserved_bytes: int


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A job that a caller asks for.

    Attributes:
        kind: what it does.
        body: the request.
        accept: checks it and makes every choice that it leaves open; raises a StoreError.
        dataset_id: the dataset that it reads.
        held_out_ids: further datasets that it reads.
    """

    kind: JobKind
    body: BaseModel
    accept: Callable[[], Accepted]
    dataset_id: str | None
    held_out_ids: tuple[str, ...] = ()


class JobDesk:
    """Takes the request that starts a job, and answers it; FastAPI makes one for each."""

    def __init__(
        self,
        request: Request,
        response: Response,
        project: ProjectDep,
        jobs: JobsDep,
        queue: QueueDep,
        idempotency_key: IdempotencyKey = None,
    ) -> None:
        self._request = request
        self._response = response
        self._project = project
        self._jobs = jobs
        self._queue = queue
        self._key = idempotency_key

    def start(self, draft: Draft) -> JobView:
        """Check and complete the draft, store it durably, tell a worker.

        Raises:
            StoreError: saying why not.
        """
        submitted = self._submit(draft)
        job = submitted.job
        self._response.headers["Location"] = f"/v1/jobs/{job.id}"
        if submitted.replayed:
            self._response.headers["Idempotent-Replayed"] = "true"
            return JobView.whole(job)
        return JobView.whole(job, sent=hint(self._queue, job))

    def _submit(self, draft: Draft) -> Submitted:
        idempotency = None
        if self._key:
            idempotency = _idempotency(self._key, draft)
            if first := self._jobs.submitted(self._project, idempotency):
                return first  # also when its dataset is gone by now
        accepted = draft.accept()
        new = NewJob(
            project=self._project,
            kind=draft.kind,
            model_name=accepted.model_name,
            model_version=accepted.model_version,
            dataset_id=draft.dataset_id,
            held_out_ids=draft.held_out_ids,
            request=accepted.request.model_dump(mode="json"),
            request_id=request_id_of(self._request),
            traceparent=self._request.state.traceparent,
            reserved_bytes=accepted.reserved_bytes,
        )
        settings = state_of(self._request).settings
        return self._jobs.submit(
            new,
            idempotency=idempotency,
            max_queued=settings.max_queued_jobs,
            max_bytes=settings.max_project_bytes,
        )


def hint(queue: JobQueue, job: Job) -> bool:
    """Tell a worker of a job; whether that went well."""
    return queue.announce(job.id, request_id=job.request_id, traceparent=job.traceparent)


FIT_REFUSALS: tuple[Slug, ...] = (
    "unknown-column",
    "duplicate-column",
    "dimension-unsupported",
    "encoder-without-context",
    "columns-overlap",
    "limit-parameters",
    "limit-memory",
)
"""Problems of the jobs that fit a flow."""


def start_responses(*refusals: Slug) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that starts a job."""
    return {
        202: {
            "description": "The job is accepted: it is stored, and will run.",
            "headers": {
                "Location": {"description": "The job.", "schema": {"type": "string"}},
                "Idempotent-Replayed": REPLAYED,
            },
        },
        **problem_responses(
            "not-found",
            "idempotency-key-reused",
            "limit-queued-jobs",
            "quota-storage",
            *refusals,
        ),
    }


def _idempotency(key: str, draft: Draft) -> Idempotency:
    """Equal for bodies that ask for the same, whatever their spelling."""
    canonical = json.dumps(
        draft.body.model_dump(mode="json"), sort_keys=True, separators=(",", ":")
    )
    return Idempotency.of(key, draft.kind, canonical)
