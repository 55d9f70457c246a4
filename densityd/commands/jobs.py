"""``densityd jobs``: the jobs on the service."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densityd.terminal.console import (
    confirm,
    echo_facts,
    echo_record,
    echo_records,
    echo_table,
    make_printable,
    service,
)
from densityd.terminal.options import AsJson, Limit, OldestFirst, Tag, Url, Yes, parse_tags
from densityd.terminal.waiting import echo_outcome, wait_for

if TYPE_CHECKING:
    from densityd.client import Event, Job, JobFilters, JobSummary

app = typer.Typer(
    help="Training and bulk jobs on the service.", no_args_is_help=True, rich_markup_mode=None
)
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job, job_...")]
Kind = Literal["training", "ensemble", "variational", "scoring", "sampling"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="State of the jobs to list.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Kind of the jobs to list.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the jobs to list.")] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="Job whose children to list.")
    ] = None,
    tag: Tag = None,
    oldest_first: OldestFirst = False,
    limit: Limit = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List jobs; the children of a search are listed with --parent alone.

    Examples: densityd jobs list --state running; densityd jobs list --model shuttle --json;
    densityd jobs list --kind scoring;
    densityd jobs list --parent job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    filters: JobFilters = {"order": "asc" if oldest_first else "desc", "tags": parse_tags(tag)}
    if state is not None:
        filters["state"] = state
    if kind is not None:
        filters["kind"] = kind
    if model is not None:
        filters["model_name"] = model
    if parent is not None:
        filters["parent_id"] = parent
    with service(url) as client:
        found = list(islice(client.jobs.list(**filters), limit))
        if as_json:
            return echo_records(found)
        header = ("ID", "KIND", "STATE", "MODEL", "PROGRESS", "CREATED")
        rows = [
            (
                one.id,
                one.kind,
                one.state,
                one.ref or one.model.name,
                _format_progress(one),
                one.created_at,
            )
            for one in found
        ]
        return echo_table(header, rows)


@app.command()
def show(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Show a job: its state, its progress and metrics, and its request with all options.

    Example: densityd jobs show job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --json
    """
    with service(url) as client:
        _echo_job(client.jobs.get(job_id), as_json=as_json)


@app.command()
def cancel(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a job; a running one stops within seconds, and can be resumed.

    Example: densityd jobs cancel job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        job = client.jobs.cancel(job_id)
        _echo_state(job, as_json=as_json)


@app.command()
def resume(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Queue a failed or cancelled job again; it continues from its last checkpoint.

    Example: densityd jobs resume job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        _echo_state(client.jobs.resume(job_id), as_json=as_json)


@app.command()
def download(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write.", show_default="ID and the format's suffix"
        ),
    ] = None,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Delete the file on the service afterwards; the job stays."),
    ] = False,
    url: Url = None,
) -> None:
    """Download the file of a scoring or sampling job, and print its path.

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
    after: Annotated[int, typer.Option(min=0, help="Number of the last known event.")] = 0,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow",
            help="Print events until the job has ended, or only those so far.",
        ),
    ] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the events of a job as they happen, and why it failed; with --json one object on each line.

    Example: densityd jobs events job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --no-follow
    """
    with service(url) as client:

        def echo(event: "Event") -> None:
            _echo_event(event, as_json=as_json)
            if not as_json and dict(event.data) == {"state": "failed"}:
                echo_facts([_reason(client.jobs.get(job_id))])

        if follow:
            for event in client.jobs.events(job_id, after=after):
                echo(event)
            return
        while True:
            page = client.jobs.event_page(job_id, after=after)
            for event in page.items:
                echo(event)
            if not page.items or page.ended:
                return
            after = page.next_after


@app.command()
def wait(
    job_id: JobId,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Maximum number of seconds to wait.", show_default="no limit"),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended; the exit status is 0 if it succeeded.

    Example: densityd jobs wait job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --timeout 3600
    """
    with service(url) as client:
        echo_outcome(wait_for(client, job_id, timeout_s=timeout), as_json=as_json)


def _echo_job(job: "Job", *, as_json: bool) -> None:
    if as_json:
        return echo_record(job)
    echo_facts(
        [
            ("id", job.id),
            ("kind", job.kind),
            ("state", "stopping" if job.cancel_requested else job.state),
            ("model", job.ref or job.model.name),
            ("progress", _format_progress(job)),
            ("left", _format_eta(job)),
            ("attempt", job.attempt),
            ("created", job.created_at),
            ("started", job.started_at),
            ("finished", job.finished_at),
            ("result", _format_result(job)),
            _reason(job),
        ]
    )
    for title, values in (("metrics", job.metrics), ("request", job.request)):
        if values:
            typer.echo(f"\n{title}")
            echo_facts([(f"  {name}", _format(value)) for name, value in values.items()])
    return None


@app.command()
def delete(job_id: JobId, yes: Yes = False, url: Url = None) -> None:
    """Delete a job that has ended, with its events and its result.

    The job of a version is deleted after the version.

    Example: densityd jobs delete job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        job = client.jobs.get(job_id)
        confirm(f"Delete {job.kind} job {job.id}, which is {job.state}?", yes=yes)
        client.jobs.delete(job.id)


def _format_eta(job: "Job") -> str | None:
    if job.final or job.progress is None or job.progress.eta_seconds is None:
        return None
    from densityd.client.progress import format_duration  # noqa: PLC0415 - slow to import

    return f"about {format_duration(job.progress.eta_seconds)}"


def _format_result(job: "Job") -> str | None:
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
    data = " ".join(f"{name}={_format(value)}" for name, value in event.data.items())
    return typer.echo(make_printable(f"{event.id:5} {event.event:8} {data}"))


def _reason(job: "Job") -> tuple[str, str | None]:
    return "error", f"{job.error.code}: {job.error.detail}" if job.error else None


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _format_progress(job: "JobSummary") -> str | None:
    if job.progress is None or job.final:
        return None
    return f"{100 * job.progress.fraction:.0f} %"
