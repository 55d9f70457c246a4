"""Calls about jobs."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from densityd.client.call import EVENTS, Call, Retry, encode_json, ignore, new_key
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
    """Return the start of a training; every attempt has the same key, so that there is one job.

    Args:
        model_name: Name of the model that gets a new version.
        dataset_id: Id of the dataset to train on.
        options: Options of the training.
        key: Idempotency key; None for a new one.
    """
    body = {"model_name": model_name, "dataset_id": dataset_id, **options}
    return _start("training", body, key)


def variational(
    model_name: str, target: Mapping[str, object], options: VariationalOptions, *, key: str | None
) -> Call[Job]:
    """Return the start of a fit to a target, as `train` does."""
    return _start("variational", {"model_name": model_name, "target": target, **options}, key)


def score(ref: str, dataset_id: str, options: ScoringOptions, *, key: str | None) -> Call[Job]:
    """Return the start of the scoring of a dataset, as `train` does."""
    return _start("scoring", {"model": ref, "dataset_id": dataset_id, **options}, key)


def sample(ref: str, n: int, options: SamplingOptions, *, key: str | None) -> Call[Job]:
    """Return the start of the drawing of many rows, as `train` does."""
    return _start("sampling", {"model": ref, "n": n, **options}, key)


def result(job_id: str, *, media_type: str | None = None) -> Call[None]:
    """Return the request for a bulk job's file, or its rows in another format."""
    headers = {"Accept": media_type or "*/*"}
    return Call("GET", f"{_path(job_id)}/result", ignore, headers=headers)


def delete_result(job_id: str) -> Call[None]:
    """Return the deletion of a bulk job's file."""
    return Call("DELETE", f"{_path(job_id)}/result", ignore, retry=Retry.REFUSED)


def page(
    filters: JobFilters, *, cursor: str | None = None, limit: int | None = None
) -> Call[Page[JobSummary]]:
    """Return the request for a page of jobs."""
    params: dict[str, Any] = {**filters, "cursor": cursor, "limit": limit}
    return Call("GET", PATH, Page[JobSummary].of, params=params)


def get(job_id: str) -> Call[Job]:
    """Return the request for a job."""
    return Call("GET", _path(job_id), Job.of)


def cancel(job_id: str) -> Call[Job]:
    """Return the cancellation of a job, which may be sent twice."""
    return Call("POST", f"{_path(job_id)}/cancel", Job.of)


def resume(job_id: str) -> Call[Job]:
    """Return the resumption of a failed or cancelled job."""
    return Call("POST", f"{_path(job_id)}/resume", Job.of, retry=Retry.REFUSED)


def event_page(job_id: str, *, after: int) -> Call[EventPage]:
    """Return the request for the events so far."""
    params: dict[str, str | int | None] = {"format": "json", "after": after}
    return Call("GET", f"{_path(job_id)}/events", EventPage.of, params=params)


def follow(job_id: str, *, after: int) -> Call[None]:
    """Return the request for the stream of events."""
    return Call(
        "GET",
        f"{_path(job_id)}/events",
        ignore,
        params={"after": after},
        headers={"Accept": EVENTS},
    )


def _start(kind: str, body: Mapping[str, object], key: str | None) -> Call[Job]:
    headers = {"Idempotency-Key": key or new_key()}
    return Call("POST", f"{PATH}/{kind}", Job.of, headers=headers, body=encode_json(body))


def _path(job_id: str) -> str:
    return f"{PATH}/{quote(job_id, safe='')}"
