"""Submission of jobs of every kind: checked, idempotent, stored durably, then announced to the workers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response, status
from pydantic import BaseModel

from app.dependencies import REPLAYED, IdempotencyKey, ProjectDep, built
from app.http.exchange import exchange_of
from app.jobs.views import JobView
from app.problems.problem import problem_responses, request_id_of
from app.resources.etags import respond
from app.root_path import rooted
from app.settings import ApiSettings
from app.state import state_of
from models_store.job_states import Idempotency, JobKind, JobRole, NewJob
from models_store.jobs.queue import Outlook
from models_store.records import Dataset, Version
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import ASKED, Placed
from tabular.slugs import Slug


def training_limits(settings: ApiSettings) -> TrainingLimits:
    """Return the limits of a flow, and of a job that fits one."""
    return TrainingLimits(
        max_parameters=settings.max_parameters,
        max_layers=settings.max_layers,
        max_memory_bytes=settings.max_training_memory_bytes,
        max_model_bytes=settings.max_model_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Accepted request, and what it was accepted for.

    Attributes:
        request: Request with a value for every option, which the job keeps.
        datasets: Datasets that the job reads; those after the first one are held out.
        memory_bytes: Least memory of a worker that the job fits on.
        estimate_s: About how long it takes, in seconds; None: not known.
        role: `JobRole.PARENT` for a job whose work children do.
    """

    request: BaseModel
    model_name: str
    model_version: int | None = None
    datasets: Sequence[Dataset] = ()
    memory_bytes: int
    estimate_s: float | None = None
    role: JobRole | None = None


class JobSubmission:
    """Submission of the job that an HTTP request asks for."""

    def __init__(
        self, request: Request, project: ProjectDep, idempotency_key: IdempotencyKey = None
    ) -> None:
        self._state = state_of(request)
        self.settings = self._state.settings
        self._request = request
        self._project = project
        self._key = idempotency_key

    @property
    def limits(self) -> TrainingLimits:
        """Limits of a job that fits a flow."""
        return training_limits(self.settings)

    def version(self, ref: str) -> Version:
        """Return the caller's version that a reference stands for now.

        Raises:
            NotFoundError: There is no such model, version or alias.
        """
        return self._state.registry.resolve(self._project, ref)

    def dataset(self, dataset_id: str) -> Dataset:
        """Return the caller's dataset.

        Raises:
            NotFoundError: There is no such dataset.
        """
        return self._state.registry.dataset(self._project, dataset_id)

    def outlook(self) -> Outlook:
        """Return what earlier trainings and the queue tell of the time that a new one takes."""
        return self._state.jobs.outlook()

    def start(self, kind: JobKind, body: Placed, accept: Callable[[], Accepted]) -> Response:
        """Accept a job, store it durably and announce it; return the response that shows it.

        Args:
            accept: Function that checks the body and fills in its defaults. It is not called for a
                repeated request, whose dataset may be gone by now.

        Raises:
            StoreError: The job is refused.
        """
        jobs = self._state.jobs
        idempotency = self._idempotency(kind, body)
        submitted = idempotency and jobs.submitted(self._project, idempotency)
        if not submitted:
            submitted = jobs.submit(
                self._new(kind, body, accept()),
                idempotency=idempotency,
                max_queued=self.settings.max_queued_jobs,
                max_bytes=self.settings.max_project_bytes,
            )
        job = submitted.job
        headers = {"Location": rooted(f"/v1/jobs/{job.id}")}
        if submitted.replayed:
            headers["Idempotent-Replayed"] = "true"
        else:
            self._state.broker.announce(job)
        view = JobView.whole(job, jobs.place(self._project, job.id))
        return respond(view, status_code=status.HTTP_202_ACCEPTED, headers=headers)

    def _idempotency(self, kind: JobKind, body: Placed) -> Idempotency | None:
        """Return the key with a fingerprint, which is equal for bodies of equal meaning."""
        if self._key is None:
            return None
        fields = body.model_dump(mode="json")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return Idempotency.of(self._key, kind, canonical)

    def _new(self, kind: JobKind, body: Placed, accepted: Accepted) -> NewJob:
        ids = [dataset.id for dataset in accepted.datasets]
        request = accepted.request.model_dump(mode="json")
        if kind is JobKind.TRAINING:
            request[ASKED] = body.model_dump(mode="json", exclude_unset=True)
        return NewJob(
            project=self._project,
            kind=kind,
            model_name=accepted.model_name,
            model_version=accepted.model_version,
            dataset_id=ids[0] if ids else None,
            held_out_ids=tuple(ids[1:]),
            request=request,
            request_id=request_id_of(self._request),
            traceparent=exchange_of(self._request).traceparent,
            memory_bytes=accepted.memory_bytes,
            estimate_s=accepted.estimate_s,
            role=accepted.role,
            priority=body.priority,
            accelerator=body.resources.accelerator,
            description=body.description,
            tags=body.tags,
            tables={dataset.id: dataset.key for dataset in accepted.datasets},
        )


SubmissionDep = Annotated[JobSubmission, Depends(built(JobSubmission))]

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
