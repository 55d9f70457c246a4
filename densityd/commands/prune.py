"""``densityd prune``: delete old versions and jobs that nothing needs."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.terminal.console import confirm, echo_table, note, service
from densityd.terminal.options import Url, Yes

if TYPE_CHECKING:
    from densityd.client import Client, JobSummary, VersionSummary

_AGE = re.compile(r"([0-9]{1,6})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_CONFLICT = 409
_NOT_FOUND = 404


def prune(
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Age of what is deleted, such as 12h, 30d or 8w."),
    ],
    versions: Annotated[
        bool, typer.Option("--versions", help="Delete versions alone, no jobs.")
    ] = False,
    jobs: Annotated[bool, typer.Option("--jobs", help="Delete jobs alone, no versions.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted; delete nothing.")
    ] = False,
    yes: Yes = False,
    url: Url = None,
) -> None:
    """Delete old versions and ended jobs, and print them.

    A version stays while an alias points at it, while it is the newest of its model, and while a job
    uses it. A job stays while the version that it made exists; its result is deleted with it.

    Examples: densityd prune --older-than 30d --dry-run;
    densityd prune --older-than 8w --versions --yes
    """
    before = datetime.now(UTC) - parse_age(older_than)
    with service(url) as client:
        kept, old = _versions(client, before)
        old = [] if jobs and not versions else old
        kept -= {(one.name, one.version) for one in old}
        ended = [] if versions and not jobs else list(_jobs(client, before, kept))
        found = [*(f"{one.name}:{one.version}" for one in old), *(one.id for one in ended)]
        dates = [*(one.created_at for one in old), *(one.finished_at for one in ended)]
        echo_table(("VERSION OR JOB", "CREATED OR ENDED"), zip(found, dates, strict=True))
        if dry_run or not found:
            return
        confirm(f"Delete {len(old)} versions and {len(ended)} jobs?", yes=yes)
        stayed = sum(not _delete_version(client, one) for one in old)
        stayed += sum(not _delete_job(client, one) for one in ended)
        note(f"deleted {len(found) - stayed}; {stayed} stay, because something needs them now")


def parse_age(text: str) -> timedelta:
    """Return the time that a text such as `30d` stands for.

    Raises:
        typer.BadParameter: It stands for none.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no age; write a number and h, d or w, such as 30d.")
    age = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if age > timedelta(days=365_000):
        raise typer.BadParameter("an age is at most 365000d.")
    return age


def _versions(
    client: "Client", before: datetime
) -> "tuple[set[tuple[str, int]], list[VersionSummary]]":
    """Return the numbers of all versions, and those versions that are old and of no use."""
    there: set[tuple[str, int]] = set()
    old: list[VersionSummary] = []
    for model in client.models.list():
        for version in client.models.versions(model.name):
            there.add((model.name, version.version))
            needed = version.aliases or version.version >= model.latest_version
            if not needed and version.created_at < before:
                old.append(version)
    return there, old


def _jobs(client: "Client", before: datetime, kept: set[tuple[str, int]]) -> "Iterator[JobSummary]":
    for job in client.jobs.list():
        made = job.kind in ("training", "variational") and job.model.version is not None
        if made and (job.model.name, job.model.version) in kept:
            continue
        if job.finished_at is not None and job.finished_at < before:
            yield job


def _delete_version(client: "Client", version: "VersionSummary") -> bool:
    """Delete a version; return False if something needs it by now."""
    from densityd.client import ApiError  # noqa: PLC0415 - it takes a third of a second

    try:
        client.models.delete_version(version.name, version.version)
    except ApiError as error:
        if error.status not in (_CONFLICT, _NOT_FOUND):
            raise
        return False
    return True


def _delete_job(client: "Client", job: "JobSummary") -> bool:
    """Delete a job; return False as `_delete_version`."""
    from densityd.client import ApiError  # noqa: PLC0415 - as above

    try:
        client.jobs.delete(job.id)
    except ApiError as error:
        if error.status not in (_CONFLICT, _NOT_FOUND):
            raise
        return False
    return True
