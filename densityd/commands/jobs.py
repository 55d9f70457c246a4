"""``densityd jobs``: trainings and the like, on the service."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densityd.commands.console import (
    AsJson,
    Limit,
    Url,
    echo_facts,
    echo_record,
    echo_records,
    echo_table,
    printable,
    service,
)
from densityd.commands.waiting import tell_job, wait_for

if TYPE_CHECKING:
    from densityd.client import Event, Job, JobFilters, JobSummary

app = typer.Typer(
    help="Trainings and bulk work on the service.", no_args_is_help=True, rich_markup_mode=None
)
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job: job_...")]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    limit: Limit = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List jobs.

    Examples: densityd jobs list --state running; densityd jobs list --model shuttle --json
    """
    filters: JobFilters = {}
    if state is not None:
        filters["state"] = state
    if model is not None:
        filters["model_name"] = model
    with service(url) as client:
        found = list(islice(client.jobs.list(**filters), limit))
        if as_json:
            return echo_records(found)
        header = ("ID", "KIND", "STATE", "MODEL", "PROGRESS", "CREATED")
        return echo_table(
            header,
            [
                (one.id, one.kind, one.state, _model(one), _percent(one), one.created_at)
                for one in found
            ],
        )


@app.command()
def show(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Show a job: its state, what it has reached, and the request with every choice made.

    Example: densityd jobs show job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --json
    """
    with service(url) as client:
        _echo_job(client.jobs.get(job_id), as_json=as_json)


@app.command()
def cancel(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a job; one that runs stops within seconds, and can be resumed.

    Example: densityd jobs cancel job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        job = client.jobs.cancel(job_id)
        _echo_state(job, as_json=as_json)


@app.command()
def resume(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Queue a job again that has failed or was cancelled; it goes on from its last checkpoint.

    Example: densityd jobs resume job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        _echo_state(client.jobs.resume(job_id), as_json=as_json)


@app.command()
def download(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File.", show_default="ID and the format's suffix"),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Then delete it on the service; the job stays.")
    ] = False,
    url: Url = None,
) -> None:
    """Download the file of a scoring or a sampling; print its path.

    Example: densityd jobs download job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f -o scores.parquet
    """
    with service(url) as client:
        if output is None:
            output = Path(job_id + "." + client.jobs.get(job_id).request.get("output", "file"))
        client.jobs.download(job_id, output)
        if delete:
            client.jobs.delete_result(job_id)
        typer.echo(output)


@app.command()
def events(
    job_id: JobId,
    after: Annotated[int, typer.Option(min=0, help="Number of the last event you have.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Until the job has ended, or those by now.")
    ] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print what happens to a job, as it happens; with --json one object a line.

    Example: densityd jobs events job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --no-follow
    """
    with service(url) as client:
        if follow:
            for event in client.jobs.events(job_id, after=after):
                _echo_event(event, as_json=as_json)
            return
        while True:
            page = client.jobs.event_page(job_id, after=after)
            for event in page.items:
                _echo_event(event, as_json=as_json)
            if not page.items or page.ended:
                return
            after = page.next_after


@app.command()
def wait(
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most.", show_default="no limit")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended; the exit status is 0 if it succeeded.

    Example: densityd jobs wait job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --timeout 3600
    """
    with service(url) as client:
        tell_job(wait_for(client, job_id, timeout_s=timeout), as_json=as_json)


def _echo_job(job: "Job", *, as_json: bool) -> None:
    if as_json:
        return echo_record(job)
    echo_facts(
        [
            ("id", job.id),
            ("kind", job.kind),
            ("state", "stopping" if job.cancel_requested else job.state),
            ("model", _model(job)),
            ("progress", _percent(job)),
            ("left", _left(job)),
            ("attempt", job.attempt),
            ("created", job.created_at),
            ("started", job.started_at),
            ("finished", job.finished_at),
            ("result", _result(job)),
            ("error", f"{job.error.code}: {job.error.detail}" if job.error else None),
        ]
    )
    for title, values in (("metrics", job.metrics), ("request", job.request)):
        if values:
            typer.echo(f"\n{title}")
            echo_facts([(f"  {name}", _brief(value)) for name, value in values.items()])
    return None


def _left(job: "Job") -> str | None:
    if job.final or job.progress is None or job.progress.eta_seconds is None:
        return None
    from densityd.client.progress import format_duration  # noqa: PLC0415 - slow to import

    return f"about {format_duration(job.progress.eta_seconds)}"


def _result(job: "Job") -> str | None:
    if job.result is None:
        return None
    return f"{job.result.rows} rows, {job.result.bytes} bytes: densityd jobs download {job.id}"


def _echo_state(job: "Job", *, as_json: bool) -> None:
    if as_json:
        return echo_record(job)
    return typer.echo(f"{job.id} {'stopping' if job.cancel_requested else job.state}")


def _echo_event(event: "Event", *, as_json: bool) -> None:
    if as_json:
        return typer.echo(json.dumps(event.model_dump(mode="json")))
    data = " ".join(f"{name}={_brief(value)}" for name, value in event.data.items())
    return typer.echo(printable(f"{event.id:5} {event.event:8} {data}"))


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _model(job: "JobSummary") -> str | None:
    return job.ref or job.model.name


def _percent(job: "JobSummary") -> str | None:
    if job.progress is None or job.final:
        return None
    return f"{100 * job.progress.fraction:.0f} %"
