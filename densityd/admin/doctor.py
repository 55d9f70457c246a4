"""A check of an installation: its settings, and what works."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic_settings import BaseSettings

from app.server.broker import Broker
from app.settings import ApiSettings
from models_store.consistency import Comparison, abandoned_jobs, compare
from models_store.database.database import Database
from models_store.database.engines import parse_url, sqlite_file
from models_store.errors import StoreError
from models_store.files.blobs import Blobs, FoundFile
from models_store.files.store_identity import known_identity
from models_store.jobs.live_workers import Workers
from workers.settings import WorkerSettings

GRACE_S = 24 * 3600.0
"""Age from which a file without a row is of no use, in seconds."""

_PREFIX = "DENSITYD_"
# A password may have any sign that SQLAlchemy takes for a part of it, slashes and spaces among them.
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^\n]*@")
_PASSWORD_PARAMETER = re.compile(r"((?:^|[?&])\w*(?:password|secret|token)\w*=)[^&\n]*", re.I)
_LOW_SPACE_BYTES = 2**30
_MOST_ITEMS = 20
_ABANDONED_S = 60.0
_MIB, _GIB = 2**20, 2**30
_CLOCK_NOTED_S, _CLOCK_OFF_S = 2.0, 30.0
Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        verdict: Result; a note needs no action, a problem does.
        detail: One sentence for people.
        items: Objects that the detail is about, each with one line.
    """

    check: str
    verdict: Verdict
    detail: str
    items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """A setting in effect; `source` is "environment" or "default"."""

    variable: str
    value: str
    source: str


@dataclass(frozen=True)
class Report:
    """The settings and findings of a check."""

    settings: list[Setting]
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """True if no check found a problem."""
        return all(finding.verdict != "problem" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"healthy": self.healthy} | asdict(self)

    def as_text(self) -> str:
        """Return the report as two tables for people; long lists are cut."""
        width = max(len(setting.variable) for setting in self.settings)
        lines = [
            f"{setting.variable:{width}}  {setting.value or '-'}  ({setting.source})"
            for setting in self.settings
        ]
        lines.append("")
        for finding in self.findings:
            lines.append(f"{finding.verdict:7}  {finding.check:8}  {finding.detail}")
            lines += [f"{'':19}{item}" for item in finding.items[:_MOST_ITEMS]]
            if len(finding.items) > _MOST_ITEMS:
                more = len(finding.items) - _MOST_ITEMS
                lines.append(f"{'':19}and {more} more; --json lists them all")
        return "\n".join(lines)


def examine(
    api: ApiSettings,
    worker: WorkerSettings,
    *,
    deep: bool = False,
    grace_s: float = GRACE_S,
    unknown: Mapping[str, str] | None = None,
) -> Report:
    """Check the installation that the settings describe; only a probe file is written.

    Args:
        deep: Read every stored file and check its hash.
        grace_s: Age from which a file that nothing needs is reported, in seconds.
        unknown: Variables that are no settings, each with the nearest one that is.
    """
    blobs = Blobs(api.store_address)
    database, store = _examine_database(api), _examine_store(api)
    findings = [database, _examine_broker(api), store, _examine_disk(api)]
    findings.append(_examine_staging(blobs, grace_s=grace_s))
    findings += [_examine_names(unknown or {}), _examine_memory(api, worker)]
    if database.verdict == "ok":
        findings.append(_examine_clock(api))
    if database.verdict == store.verdict == "ok":
        findings += _examine_both(api, blobs, deep=deep, grace_s=grace_s)
    findings.append(_examine_device(worker))
    return Report(settings=list(_list_settings(api, worker)), findings=findings)


def mask(value: str) -> str:
    """Return a text with the passwords and tokens of URLs replaced by `***`."""
    return _PASSWORD_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", value))


def _list_settings(*groups: BaseSettings) -> Iterator[Setting]:
    seen: set[str] = set()
    for group in groups:
        for name, declared in type(group).model_fields.items():
            variable = _PREFIX + name.upper()
            if declared.exclude or variable in seen:
                continue
            seen.add(variable)
            value = getattr(group, name)
            yield Setting(
                variable=variable,
                value="" if value is None else mask(str(value)),
                source="environment" if os.environ.get(variable) else "default",
            )


def _examine_names(unknown: Mapping[str, str]) -> Finding:
    if not unknown:
        return Finding("settings", "ok", "Every DENSITYD_ variable is a setting.")
    items = [f"{name}: the nearest setting is {near}" for name, near in unknown.items()]
    detail = f"{len(unknown)} variables are no settings, with which no process starts:"
    return Finding("settings", "problem", detail, items)


def _examine_memory(api: ApiSettings, worker: WorkerSettings) -> Finding:
    """Compare what the processes may take together with what there is."""
    from workers.supervisor.assignment import machine_bytes  # noqa: PLC0415 - as below

    there = machine_bytes()
    of_api = api.api_processes * api.memory_bytes
    of_trainers = worker.worker_concurrency * (worker.trainer_memory_bytes or 0)
    summed = f"{api.api_processes} x DENSITYD_MEMORY_BYTES"
    if of_trainers:
        summed += f" + {worker.worker_concurrency} x DENSITYD_TRAINER_MEMORY_BYTES"
    took, has = (of_api + of_trainers) / _GIB, there / _GIB
    if of_api + of_trainers <= there:
        return Finding("memory", "ok", f"{summed} = {took:.1f} GiB, of {has:.1f} GiB.")
    names = {"memory_bytes", "api_processes"} & api.model_fields_set
    names |= {"trainer_memory_bytes"} & worker.model_fields_set
    detail = f"{summed} = {took:.1f} GiB is more than the {has:.1f} GiB of this machine or container; set less."
    return Finding("memory", "problem" if names else "note", detail)


def _examine_clock(settings: ApiSettings) -> Finding:
    """Compare the clock of this machine with that of the database, by which leases and keys end."""
    database = Database(settings.resolved_database_url)
    try:
        began = time.time()
        off_s = database.now().timestamp() - (began + time.time()) / 2
    except StoreError as error:
        return Finding("clock", "problem", f"The database's clock cannot be read: {error}")
    finally:
        database.dispose()
    ahead = "behind" if off_s > 0 else "ahead of"
    detail = f"This machine's clock is {abs(off_s):.1f} s {ahead} that of the database."
    if abs(off_s) < _CLOCK_NOTED_S:
        return Finding("clock", "ok", "The clocks of this machine and of the database agree.")
    return Finding("clock", "problem" if abs(off_s) > _CLOCK_OFF_S else "note", detail)


def _examine_database(settings: ApiSettings) -> Finding:
    url = settings.resolved_database_url
    path = sqlite_file(parse_url(url)) if settings.database_url is None else None
    if path is not None and not path.exists():
        return Finding("database", "note", f"{path} does not exist yet; `densityd up` creates it.")
    database = Database(url)
    try:
        database.check_revision()
        return Finding("database", "ok", f"{mask(url)} is at revision {database.revision()}.")
    except StoreError as error:
        return Finding("database", "problem", f"{mask(url)}: {error}")
    finally:
        database.dispose()


def _examine_broker(settings: ApiSettings) -> Finding:
    url = settings.resolved_broker_url
    if Broker(settings).ping() is None:
        return Finding("broker", "ok", f"{mask(url)} responds.")
    if settings.broker_url is None:
        return Finding("broker", "note", "The private Redis is not running; `densityd up` runs it.")
    return Finding("broker", "problem", f"{mask(url)} does not respond.")


def _examine_store(settings: ApiSettings) -> Finding:
    address = settings.store_address
    if not address.is_remote and not Path(address.url).exists():
        detail = f"{address.url} does not exist yet; the first start creates it."
        return Finding("store", "note", detail)
    try:
        Blobs(address).ping()
    except (StoreError, OSError) as error:
        return Finding("store", "problem", f"{address.url}: {error}")
    return Finding("store", "ok", f"{address.url} can be written.")


def _examine_disk(settings: ApiSettings) -> Finding:
    folder = settings.blob_root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "ok" if free >= _LOW_SPACE_BYTES else "problem"
    return Finding("disk", verdict, f"{free / 2**30:.1f} GiB are free below {folder}.")


def _examine_both(
    settings: ApiSettings, blobs: Blobs, *, deep: bool, grace_s: float
) -> list[Finding]:
    database = Database(settings.resolved_database_url)
    try:
        together, workers = _examine_identity(database, blobs), _examine_workers(database)
        if together.verdict == "problem":
            return [together, workers]  # another store: what is in it says nothing
        files = _examine_files(database, blobs, deep=deep, grace_s=grace_s)
        return [together, workers, *files]
    finally:
        database.dispose()


def _examine_device(settings: WorkerSettings) -> Finding:
    # This import takes seconds, and only this check needs it.
    from workers.devices import devices_of  # noqa: PLC0415
    from workers.errors import UnfitError  # noqa: PLC0415
    from workers.trainer.devices import find_device  # noqa: PLC0415

    names = sorted(set(devices_of(settings)))
    try:
        devices = ", ".join(str(find_device(name)) for name in names)
    except UnfitError as error:
        return Finding("device", "problem", str(error))
    return Finding("device", "ok", f"{settings.device}: trainers compute on {devices}.")


def _examine_files(
    database: Database, blobs: Blobs, *, deep: bool, grace_s: float
) -> list[Finding]:
    try:
        compared = compare(database, blobs, deep=deep, grace_s=grace_s)
        return [
            _check_named(compared, deep=deep),
            _check_orphans(compared),
            *_check_foreign(compared.foreign),
            _check_jobs(database),
        ]
    except (StoreError, OSError) as error:
        return [Finding("files", "problem", f"Rows and files cannot be compared: {error}")]


def _examine_identity(database: Database, blobs: Blobs) -> Finding:
    """Check that the store is the one that belongs to the database."""
    try:
        identity = known_identity(database)
        if identity is None:
            return Finding("identity", "note", "No API has tied the store to the database yet.")
        blobs.check_identity(identity)
    except StoreError as error:
        return Finding("identity", "problem", str(error))
    return Finding("identity", "ok", f"Database and store belong together: {identity}.")


def _examine_workers(database: Database) -> Finding:
    """Check that all workers take jobs."""
    try:
        alive = Workers(database).alive()
    except StoreError as error:
        return Finding("workers", "problem", f"The workers cannot be listed: {error}")
    out = [f"{worker.name}: {worker.unfit}" for worker in alive if worker.unfit is not None]
    if out:
        return Finding("workers", "problem", f"{len(out)} of {len(alive)} take no jobs:", out)
    return Finding("workers", "ok" if alive else "note", f"Workers that take jobs: {len(alive)}.")


def _examine_staging(blobs: Blobs, *, grace_s: float) -> Finding:
    """Check for files that crashed writers left."""
    left = blobs.staged_files(older_than_s=grace_s)
    if not left:
        return Finding("staging", "ok", "No crash left files behind.")
    detail = f"{format_count(left)} were left by crashes; densityd doctor --delete deletes them."
    return Finding("staging", "note", detail)


def _check_named(compared: Comparison, *, deep: bool) -> Finding:
    bad = compared.unusable
    if not bad:
        how = "have the right hash" if deep else "are there with the right size"
        return Finding("files", "ok", f"{compared.checked} files that rows name {how}.")
    detail = f"{len(bad)} of {compared.checked} files that rows name cannot be used:"
    items = [f"{unusable.file.owner}: {unusable.error}" for unusable in bad]
    return Finding("files", "problem", detail, items)


def _check_orphans(compared: Comparison) -> Finding:
    orphans = compared.orphans
    if not orphans:
        return Finding("orphans", "ok", "Every file has its row.")
    detail = f"{format_count(orphans)} have no row; densityd doctor --delete deletes them:"
    return Finding("orphans", "note", detail, [format_file(file) for file in orphans])


def _check_foreign(foreign: Sequence[FoundFile]) -> list[Finding]:
    if not foreign:
        return []
    detail = f"{format_count(foreign)} in the store are not of this service, and are never used:"
    return [Finding("foreign", "note", detail, [format_file(file) for file in foreign])]


def _check_jobs(database: Database) -> Finding:
    abandoned = abandoned_jobs(database, for_s=_ABANDONED_S)
    if not abandoned:
        return Finding("jobs", "ok", "No job waits for a worker that went silent to be replaced.")
    detail = (
        f"{len(abandoned)} jobs lost their worker over {_ABANDONED_S:g} s ago and no other took"
        " over; they continue by themselves as soon as a worker runs:"
    )
    return Finding("jobs", "note", detail, abandoned)


def format_count(files: Sequence[FoundFile]) -> str:
    """Return the number and the bytes of some files."""
    size = sum(file.bytes for file in files)
    return f"{len(files)} files ({size / _MIB:.1f} MiB)"


def format_file(file: FoundFile) -> str:
    """Return one line about a file."""
    return f"{file.key}  {file.bytes} bytes, {file.age_s / 3600:.1f} h old"


def delete_unneeded(database: Database, blobs: Blobs, *, grace_s: float) -> Iterator[str]:
    """Delete files of the store that no row names, and leftovers of crashes; yield a line for each.

    Args:
        grace_s: Age from which a file is deleted, in seconds.

    Raises:
        StoreError: The database names no file of the store, which probably belongs to another.
    """
    compared = compare(database, blobs, deep=False, grace_s=grace_s)
    staged = blobs.staged_files(older_than_s=grace_s)
    if compared.orphans and compared.checked == len(compared.unusable):
        raise StoreError("the database names no file of this store; is it the right one?")
    for file in compared.orphans:
        blobs.delete(file.key)
        yield f"deleted {format_file(file)}"
    blobs.sweep_staging(older_than_s=grace_s)
    yield f"deleted {format_count([*compared.orphans, *staged])}"
