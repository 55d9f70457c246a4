"""Submission of jobs of every kind: idempotent, stored durably, then sent to the queue."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response, status
from pydantic import BaseModel

from app.dependencies import (
    REPLAYED,
    BrokerDep,
    IdempotencyKey,
    JobsDep,
    ProjectDep,
    RegistryDep,
    SettingsDep,
)
from app.jobs.views import JobView
from app.limits import in_thread
from app.problems.problem import problem_responses, request_id_of
from app.resources.large_responses import respond_large
from app.root_path import rooted
from app.settings import ApiSettings
from app.state import state_of
from models_store.job_states import Idempotency, JobKind, JobRole, NewJob, Submitted
from models_store.records import Dataset, Version
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.placement import Placed
from tabular.slugs import Slug


def _limits(settings: ApiSettings) -> TrainingLimits:
    return TrainingLimits(
        max_parameters=settings.max_parameters,
        max_layers=settings.max_layers,
        max_memory_bytes=settings.max_training_memory_bytes,
        max_model_bytes=settings.max_model_bytes,
    )


async def _limits_of(settings: SettingsDep) -> TrainingLimits:
    return _limits(settings)


LimitsDep = Annotated[TrainingLimits, Depends(_limits_of)]


class JobInputs:
    """Datasets, versions and limits that the request of a job is checked against.

    Attributes:
        limits: Limits of a training job.
        max_result_bytes: Largest size of a result's numbers in bytes.
        part_rows: Rows of a part of a bulk job; None: as many as take about a minute.
        tables: Keys of the tables of the datasets that were read, by their ids.
    """

    def __init__(self, settings: SettingsDep, project: ProjectDep, registry: RegistryDep) -> None:
        self.limits = _limits(settings)
        self.max_result_bytes = settings.max_result_bytes
        self.part_rows = settings.bulk_part_rows
        self.tables: dict[str, str] = {}
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
        found = self._registry.dataset(self._project, dataset_id)
        self.tables[found.id] = found.key
        return found

    def optional(self, dataset_id: str | None) -> Dataset | None:
        """Return the caller's dataset, or None for no id."""
        return None if dataset_id is None else self.dataset(dataset_id)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Accepted request, with a value for every option.

    Attributes:
        request: Request that the job's row keeps.
        model_name: Name of the model that the job trains or uses.
        model_version: Version that the job uses.
        memory_bytes: Least memory of a worker that the job fits on.
        estimate_s: About how long it takes, in seconds; None: not known.
        role: `JobRole.PARENT` for a job whose work children do.
    """

    request: BaseModel
    model_name: str
    model_version: int | None = None
    memory_bytes: int
    estimate_s: float | None = None
    role: JobRole | None = None


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Request for a job, before it is accepted.

    Attributes:
        kind: Kind of the job.
        body: Body of the request.
        accept: Function that checks the body and fills in its defaults, or raises a StoreError.
        inputs: Datasets and versions that the function reads.
        dataset_id: Dataset that the job reads.
        held_out_ids: Further datasets that it reads.
        model: Reference of the version that it uses; None for one that makes a version.
    """

    kind: JobKind
    body: Placed
    accept: Callable[[], Accepted]
    inputs: JobInputs
    dataset_id: str | None
    held_out_ids: tuple[str, ...] = ()
    model: str | None = None


class JobSubmission:
    """Submission of the job that an HTTP request asks for."""

    def __init__(
        self,
        request: Request,
        project: ProjectDep,
        jobs: JobsDep,
        broker: BrokerDep,
        idempotency_key: IdempotencyKey = None,
    ) -> None:
        self._request = request
        self._project = project
        self._jobs = jobs
        self._broker = broker
        self._key = idempotency_key

    async def start(self, wanted: JobRequest) -> Response:
        """Accept a job, store it durably and send it to the queue.

        Raises:
            StoreError: The job is refused.
        """
        return await in_thread(self._start, wanted)

    def _start(self, wanted: JobRequest) -> Response:
        submitted = self._submit(wanted)
        job = submitted.job
        headers = {"Location": rooted(f"/v1/jobs/{job.id}")}
        if submitted.replayed:
            headers["Idempotent-Replayed"] = "true"
        else:
            self._broker.announce(job)
        view = JobView.whole(job, self._jobs.place(self._project, job.id))
        return respond_large(view, status_code=status.HTTP_202_ACCEPTED, headers=headers)

    def _submit(self, wanted: JobRequest) -> Submitted:
        idempotency = None
        if self._key:
            idempotency = _idempotency(self._key, wanted)
            if first := self._jobs.submitted(self._project, idempotency):
                return first  # also when its dataset is gone by now
        accepted = wanted.accept()
        new = NewJob(
            project=self._project,
            kind=wanted.kind,
            model_name=accepted.model_name,
            model_version=accepted.model_version,
            dataset_id=wanted.dataset_id,
            held_out_ids=wanted.held_out_ids,
            request=accepted.request.model_dump(mode="json"),
            request_id=request_id_of(self._request),
            traceparent=self._request.state.traceparent,
            memory_bytes=accepted.memory_bytes,
            estimate_s=accepted.estimate_s,
            role=accepted.role,
            priority=wanted.body.priority,
            accelerator=wanted.body.resources.accelerator,
            description=wanted.body.description,
            tags=wanted.body.tags,
            tables=wanted.inputs.tables,
        )
        state = state_of(self._request)
        return self._jobs.submit(
            new,
            idempotency=idempotency,
            max_queued=state.settings.max_queued_jobs,
            max_bytes=state.settings.max_project_bytes,
        )


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
    """Return the `responses=` of a route that starts a job."""
    return {
        202: {
            "description": "Accepted job, which is stored durably.",
            "headers": {
                "Location": {"description": "URL of the job.", "schema": {"type": "string"}},
                "Idempotent-Replayed": REPLAYED,
            },
        },
        **problem_responses(
            "not-found",
            "conflict",
            "idempotency-key-reused",
            "limit-queued-jobs",
            "quota-storage",
            *refusals,
        ),
    }


def _idempotency(key: str, wanted: JobRequest) -> Idempotency:
    """Return the key and a fingerprint, equal for bodies of equal meaning."""
    canonical = json.dumps(
        wanted.body.model_dump(mode="json"), sort_keys=True, separators=(",", ":")
    )
    return Idempotency.of(key, wanted.kind, canonical)
