"""``densityd list``, ``show``, ``delete``, ``cancel``, ``wait`` and ``download``: by what an id names."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from densityd.commands.options import AsJson, Url, Yes
from densityd.terminal import (
    confirm,
    echo_facts,
    echo_json,
    echo_outcome,
    echo_table,
    service,
    wait_for,
)

if TYPE_CHECKING:
    from densityd.client import Client, Dataset, Job, Version
    from densityd.client.record import Record

_LIKELIHOOD = "best_robust_validation_log_likelihood"
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Thing = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a dataset (ds_...) or a job (job_...), or NAME, NAME:VERSION or NAME@ALIAS of a model.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, job_...")]


class Kind(Enum):
    """What there is to list."""

    models = "models"
    jobs = "jobs"
    datasets = "datasets"


def list_(
    kind: Annotated[
        Kind | None, typer.Argument(help="What to list.", show_default="the newest of each")
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME[=VALUE]", help="Tag of the entries. Repeatable."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Beginning of the names of models or datasets.")
    ] = None,
    state: Annotated[State | None, typer.Option(help="State of the jobs.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the jobs.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of entries.", show_default="50, or 5 of each"),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List models, jobs or datasets, the newest first; without an argument some of each.

    Examples: densityd list; densityd list jobs --state running;
    densityd list models --tag stage=trial --prefix claims; densityd list datasets --limit 10 --json
    """
    if (state or model) and kind is not Kind.jobs:
        raise typer.BadParameter("--state and --model are of `densityd list jobs`.")
    split = (tag.partition("=") for tag in tags or ())
    by_tag = {"tags": {name: value if equals else None for name, equals, value in split} or None}
    named = _given(by_tag | {"name_prefix": prefix})
    of_jobs = _given(by_tag | {"state": state, "model_name": model})
    kinds = list(Kind) if kind is None else [kind]
    most = limit or (5 if kind is None else 50)
    with service(url) as client:
        lists: dict[Kind, Iterator[Any]] = {
            Kind.models: client.models.list(**named),
            Kind.jobs: client.jobs.list(**of_jobs),
            Kind.datasets: client.datasets.list(**named),
        }
        found = {one: list(islice(lists[one], most)) for one in kinds}
    if as_json:
        listed = {one.value: [_json(item) for item in items] for one, items in found.items()}
        return echo_json(listed if kind is None else listed[kind.value])
    for place, (one, items) in enumerate(found.items()):
        if place:
            typer.echo()
        echo_table(_HEADERS[one], map(_row_of[one], items))
    return None


def _given(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


def _json(record: "Record") -> dict[str, Any]:
    return record.model_dump(mode="json")


def show(thing: Thing, url: Url = None, as_json: AsJson = False) -> None:
    """Show a dataset, a job, a model or a version.

    Examples: densityd show claims; densityd show claims:2; densityd show claims@production;
    densityd show ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f;
    densityd show job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --json
    """
    with service(url) as client:
        if thing.startswith("ds_"):
            dataset = client.datasets.get(thing)
            return echo_json(_json(dataset)) if as_json else _echo_dataset(dataset)
        if thing.startswith("job_"):
            job = client.jobs.get(thing)
            return echo_json(_json(job)) if as_json else _echo_job(job)
        if ":" in thing or "@" in thing:
            version = client.models.find(thing)
            return echo_json(_json(version)) if as_json else _echo_version(version)
        return _echo_model(client, thing, as_json=as_json)


def delete(thing: Thing, yes: Yes = False, url: Url = None) -> None:
    """Delete a dataset, a job that has ended, a version, or all versions of a model.

    What an unfinished job uses, or an alias points at, is not deleted. Models stay when their dataset is
    deleted; the job of a version is deleted after the version.

    Examples: densityd delete ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f;
    densityd delete job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f; densityd delete claims:1;
    densityd delete claims --yes
    """
    if "@" in thing:
        raise typer.BadParameter(
            "give NAME or NAME:VERSION; `densityd alias --delete` is for an alias."
        )
    with service(url) as client:
        if thing.startswith("ds_"):
            dataset = client.datasets.get(thing)
            confirm(f"Delete dataset {dataset.name or thing} of {dataset.rows} rows?", yes=yes)
            client.datasets.delete(thing)
        elif thing.startswith("job_"):
            job = client.jobs.get(thing)
            confirm(f"Delete {job.kind} job {job.id}, which is {job.state}?", yes=yes)
            client.jobs.delete(thing)
        elif ":" in thing:
            version = client.models.find(thing)
            confirm(f"Delete version {thing}?", yes=yes)
            client.models.delete_version(version.name, version.version)
        else:
            count = sum(1 for _ in client.models.versions(thing))
            confirm(f"Delete model {thing} with its {count} versions?", yes=yes)
            client.models.delete(thing)


def cancel(job: JobId, url: Url = None) -> None:
    """Cancel a job; a running one stops within seconds.

    `densityd call POST /v1/jobs/JOB/resume` queues it again, from its last checkpoint.

    Example: densityd cancel job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        found = client.jobs.cancel(job)
        typer.echo(f"{found.id} {'stopping' if found.cancel_requested else found.state}")


def wait(
    job: JobId,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Maximum number of seconds to wait.", show_default="no limit"),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended; the exit status is 0 if it succeeded.

    Example: densityd wait job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f --timeout 3600
    """
    with service(url) as client:
        echo_outcome(wait_for(client, job, timeout_s=timeout), as_json=as_json)


def download(
    job: JobId,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; the suffix of its name is its format.",
            show_default="JOB and the format's suffix",
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Download the file of a scoring, sampling or imputation job, and print its path.

    Example: densityd download job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f -o scores.parquet
    """
    with service(url) as client:
        if output is None:
            output = Path(f"{job}.{client.jobs.get(job).request.get('output', 'file')}")
        client.jobs.download(job, output)
        typer.echo(output)


def _echo_dataset(found: "Dataset") -> None:
    names = ("id", "name", "rows", "bytes", "sha256", "description", "created_at")
    echo_facts({name: getattr(found, name) for name in names})
    typer.echo()
    fields = ("name", "type", "mean", "std", "min", "max", "distinct", "reason")
    echo_table(
        ("COLUMN", "TYPE", "MEAN", "STD", "MIN", "MAX", "DISTINCT", "WHY"),
        _fields_of(found.columns, fields),
    )
    if found.warnings:
        typer.echo()
        echo_table(
            ("WARNING", "COLUMN", "DETAIL"),
            _fields_of(found.warnings, ("code", "column", "detail")),
        )


def _echo_job(job: "Job") -> None:
    result = job.result
    echo_facts(
        {
            "id": job.id,
            "kind": job.kind,
            "state": "stopping" if job.cancel_requested else job.state,
            "model": job.ref or job.model.name,
            "progress": _format_progress(job),
            "attempt": job.attempt,
            "created": job.created_at,
            "started": job.started_at,
            "finished": job.finished_at,
            "result": result
            and f"{result.rows} rows, {result.bytes} bytes: densityd download {job.id}",
            "error": job.error and f"{job.error.code}: {job.error.detail}",
        }
    )
    for title, values in (("metrics", job.metrics), ("request", job.request)):
        if values:
            typer.echo(f"\n{title}")
            echo_facts(values, indent="  ")


def _echo_model(client: "Client", name: str, *, as_json: bool) -> None:
    model = client.models.get(name)
    versions = list(client.models.versions(name))
    if as_json:
        return echo_json({**_json(model), "versions": [_json(version) for version in versions]})
    echo_facts({"name": model.name, "aliases": _format_aliases(model.aliases)})
    typer.echo()
    header = ("VERSION", "FAMILY", "COLUMNS", "PARAMETERS", "LOG LIKELIHOOD", "ALIASES", "CREATED")
    rows = [
        (
            one.version,
            one.family,
            one.dim,
            one.parameters,
            one.metrics.get(_LIKELIHOOD),
            ", ".join(one.aliases) or None,
            one.created_at,
        )
        for one in versions
    ]
    return echo_table(header, rows)


def _echo_version(version: "Version") -> None:
    echo_facts(
        {
            "model": version.ref,
            "aliases": ", ".join(version.aliases) or None,
            "family": version.family,
            "flow": json.dumps(version.flow),
            "preprocessing": json.dumps(version.preprocessing),
            "columns": ", ".join(version.columns),
            "context": ", ".join(version.context_columns) or None,
            "parameters": version.parameters,
            "checkpoint": f"{version.checkpoint.bytes} bytes, sha256 {version.checkpoint.sha256}",
            "job": version.lineage.job_id,
            "dataset": version.lineage.dataset_id,
            "created": version.created_at,
        }
    )
    typer.echo("\nmetrics")
    echo_facts(version.metrics, indent="  ")


def _fields_of(items: Iterable[object], names: Sequence[str]) -> Iterable[Sequence[object]]:
    return ([getattr(item, name) for name in names] for item in items)


def _format_progress(job: Any) -> str | None:  # noqa: ANN401 - a job, whole or in a list
    if job.progress is None or job.final:
        return None
    text = f"{100 * job.progress.fraction:.0f} %"
    if job.progress.eta_seconds is None:
        return text
    from densityd.client.progress import format_duration  # noqa: PLC0415 - slow to import

    return f"{text}, about {format_duration(job.progress.eta_seconds)} left"


def _format_aliases(aliases: dict[str, int]) -> str | None:
    return ", ".join(f"{label} -> {version}" for label, version in aliases.items()) or None


_HEADERS = {
    Kind.models: ("MODEL", "NEWEST", "LOG LIKELIHOOD", "ALIASES", "CREATED"),
    Kind.jobs: ("JOB", "KIND", "STATE", "MODEL", "PROGRESS", "CREATED"),
    Kind.datasets: ("DATASET", "NAME", "ROWS", "COLUMNS", "BYTES", "CREATED"),
}
_row_of: dict[Kind, Callable[[Any], Sequence[object]]] = {
    Kind.models: lambda one: (
        one.name,
        one.latest_version,
        one.latest.metrics.get(_LIKELIHOOD),
        _format_aliases(one.aliases),
        one.created_at,
    ),
    Kind.jobs: lambda one: (
        one.id,
        one.kind,
        one.state,
        one.ref or one.model.name,
        _format_progress(one),
        one.created_at,
    ),
    Kind.datasets: lambda one: (
        one.id,
        one.name,
        one.rows,
        one.column_count,
        one.bytes,
        one.created_at,
    ),
}
