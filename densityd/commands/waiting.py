"""Waiting for a job, and telling what came of it."""

from typing import TYPE_CHECKING, Any

import typer

from densityd.commands.console import INTERRUPTED, echo_record, fail, printable

if TYPE_CHECKING:
    from densityd.client import Client, Job

_BULK = ("scoring", "sampling")


def wait_for(client: "Client", job_id: str, *, timeout_s: float | None = None) -> "Job":
    """Wait for a job that succeeds; the progress is there for a person to see."""
    from densityd.client.progress import ProgressBar  # noqa: PLC0415 - only a wait needs it

    try:
        with ProgressBar() as bar:
            return client.jobs.wait(job_id, on_progress=bar, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(
            f"{job_id} goes on.",
            f"`densityd jobs wait {job_id}` waits again; `densityd jobs cancel {job_id}` stops it.",
            status=INTERRUPTED,
        )


def tell_job(job: "Job", *, as_json: bool) -> None:
    """Print what came of a job: the model, or its id while there is none."""
    if as_json:
        echo_record(job)
        return
    if job.kind in _BULK:
        result = job.result
        line = job.id if result is None else f"{job.id}  {result.rows} rows, {result.bytes} bytes"
    else:
        line = job.ref or job.id
        if job.ref:
            line += _reached(job.metrics or {})
    typer.echo(printable(line))


def _reached(metrics: dict[str, Any]) -> str:
    """How good a model is, in words."""
    for name, error, words in (
        ("test_log_likelihood", "test_standard_error", "test log-likelihood"),
        ("elbo", "elbo_standard_error", "ELBO"),
    ):
        if isinstance(reached := metrics.get(name), float):
            spread = metrics.get(error)
            doubt = f" +- {2 * spread:.3f}" if isinstance(spread, float) else ""
            return f"  {words} {reached:.3f}{doubt} nats" + (" a row" if name != "elbo" else "")
    return ""
