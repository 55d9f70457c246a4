"""The wait for a job at a terminal, and its outcome."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from densityd.terminal.console import (
    INTERRUPTED,
    echo_json,
    echo_record,
    fail,
    make_printable,
    note,
)

if TYPE_CHECKING:
    from densityd.client import Client, Dataset, Job

_BULK = ("scoring", "sampling")


def wait_for(client: "Client", job_id: str, *, timeout_s: float | None = None) -> "Job":
    """Return a job once it has succeeded, with a progress bar until then."""
    from densityd.client.progress import ProgressBar  # noqa: PLC0415 - only a wait needs it

    try:
        with ProgressBar() as bar:
            return client.jobs.wait(job_id, on_progress=bar, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(
            f"{job_id} continues.",
            f"`densityd jobs wait {job_id}` waits again; `densityd jobs cancel {job_id}` stops it.",
            status=INTERRUPTED,
        )


def follow(
    client: "Client", job: "Job", *, wait: bool, as_json: bool, dataset: "Dataset | None" = None
) -> None:
    """Print the outcome of an accepted job, after it has ended or at once.

    Args:
        client: Client of the service.
        job: Accepted job.
        wait: Wait until the job has ended.
        as_json: Print the job as JSON.
        dataset: Dataset that it uses; JSON has it as a member, with its types and warnings.
    """
    note(f"accepted {job.id}")
    if wait:
        job = wait_for(client, job.id)
    if as_json:
        more = {} if dataset is None else {"dataset": dataset.model_dump(mode="json")}
        echo_json({**job.model_dump(mode="json"), **more})
    else:
        typer.echo(_format_outcome(job))
    if wait and (as_json or not sys.stdout.isatty()):
        note(_format_outcome(job))
    for text in (job.metrics or {}).get("summary", []):
        note(make_printable(str(text)))


def echo_outcome(job: "Job", *, as_json: bool) -> None:
    """Print the outcome of a job: its model or file, or its id while there is none."""
    if as_json:
        echo_record(job)
    else:
        typer.echo(_format_outcome(job))


def _format_outcome(job: "Job") -> str:
    if job.kind in _BULK:
        result = job.result
        line = job.id if result is None else f"{job.id}  {result.rows} rows, {result.bytes} bytes"
    else:
        line = job.ref or job.id
        if job.ref:
            line += _format_quality(job.metrics or {})
    return make_printable(line)


def _format_quality(metrics: Mapping[str, object]) -> str:
    for name, error, label, unit in (
        ("test_log_likelihood", "test_standard_error", "test log-likelihood", "nats per row"),
        ("elbo", "elbo_standard_error", "ELBO", "nats"),
    ):
        if isinstance(value := metrics.get(name), float):
            deviation = metrics.get(error)
            margin = f" +- {2 * deviation:.3f}" if isinstance(deviation, float) else ""
            return f"  {label} {value:.3f}{margin} {unit}"
    return ""
