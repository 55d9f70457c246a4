"""The requests about jobs."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from densityd.client.call import EVENTS, Call, Retry, json_body, new_key, nothing
from densityd.client.options import (
    JobFilters,
    SamplingOptions,
    ScoringOptions,
    TrainingOptions,
    VariationalOptions,
)
from densityd.client.records import EventPage, Job, JobSummary, Page

PATH = "/v1/jobs"


def train(
    model_name: str, dataset_id: str, options: TrainingOptions, *, key: str | None
) -> Call[Job]:
    """Start a training. However often this is sent, there is one job, told by the key.

    Args:
        model_name: the model that gets a new version.
        dataset_id: of the rows.
        options: what is not left to the service.
        key: of the caller's own; None: a new one.
    """
    body = {"model_name": model_name, "dataset_id": dataset_id, **options}
    return _start("training", body, key)


def variational(
    model_name: str, target: Mapping[str, object], options: VariationalOptions, *, key: str | None
) -> Call[Job]:
    """Start the fit to a target; as `train`."""
    return _start("variational", {"model_name": model_name, "target": target, **options}, key)


def score(ref: str, dataset_id: str, options: ScoringOptions, *, key: str | None) -> Call[Job]:
    """Start the scoring of a dataset; as `train`."""
    return _start("scoring", {"model": ref, "dataset_id": dataset_id, **options}, key)


def sample(ref: str, n: int, options: SamplingOptions, *, key: str | None) -> Call[Job]:
    """Start the drawing of many rows; as `train`."""
    return _start("sampling", {"model": ref, "n": n, **options}, key)


def result(job_id: str, *, media_type: str | None = None) -> Call[None]:
    """The stream of a bulk job's file, or of its rows in another format."""
    headers = {"Accept": media_type or "*/*"}
    return Call("GET", f"{_path(job_id)}/result", nothing, headers=headers)


def delete_result(job_id: str) -> Call[None]:
    """Delete a bulk job's file."""
    return Call("DELETE", f"{_path(job_id)}/result", nothing, retry=Retry.REFUSED)


def page(
    filters: JobFilters, *, cursor: str | None = None, limit: int | None = None
) -> Call[Page[JobSummary]]:
    """A page of jobs."""
    params: dict[str, Any] = {**filters, "cursor": cursor, "limit": limit}
    return Call("GET", PATH, Page[JobSummary].of, params=params)


def get(job_id: str) -> Call[Job]:
    """One job."""
    return Call("GET", _path(job_id), Job.of)


def cancel(job_id: str) -> Call[Job]:
    """Cancel a job; doing so twice is no error."""
    return Call("POST", f"{_path(job_id)}/cancel", Job.of)


def resume(job_id: str) -> Call[Job]:
    """Queue a job again that has failed or was cancelled."""
    return Call("POST", f"{_path(job_id)}/resume", Job.of, retry=Retry.REFUSED)


def event_page(job_id: str, *, after: int) -> Call[EventPage]:
    """The events that there are."""
    params: dict[str, str | int | None] = {"format": "json", "after": after}
    return Call("GET", f"{_path(job_id)}/events", EventPage.of, params=params)


def follow(job_id: str, *, after: int) -> Call[None]:
    """The stream of events."""
    return Call(
        "GET",
        f"{_path(job_id)}/events",
        nothing,
        params={"after": after},
        headers={"Accept": EVENTS},
    )


def _start(kind: str, body: Mapping[str, object], key: str | None) -> Call[Job]:
    headers = {"Idempotency-Key": key or new_key()}
    return Call("POST", f"{PATH}/{kind}", Job.of, headers=headers, body=json_body(body))


def _path(job_id: str) -> str:
    return f"{PATH}/{quote(job_id, safe='')}"
