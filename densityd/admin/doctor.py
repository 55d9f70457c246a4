"""A check of an installation: its settings, and what works."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from app.server.broker import Broker
from app.settings import ApiSettings
from densityd.admin.doctor_store import (
    Finding,
    Verdict,
    examine_files,
    examine_identity,
    examine_staging,
    examine_workers,
)
from models_store.database.database import Database
from models_store.database.engines import parse_url, sqlite_file
from models_store.errors import StoreError
from models_store.files.blobs import Blobs
from workers.settings import WorkerSettings

GRACE_S = 24 * 3600.0
"""Age from which a file without a row is of no use, in seconds."""

_PREFIX = "DENSITYD_"
# A password may have any sign that SQLAlchemy takes for a part of it, slashes and spaces among them.
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^\n]*@")
_PASSWORD_PARAMETER = re.compile(r"((?:^|[?&])\w*(?:password|secret|token)\w*=)[^&\n]*", re.I)
_LOW_SPACE_BYTES = 2**30
_MOST_ITEMS = 20


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
) -> Report:
    """Check the installation that the settings describe; only a probe file is written.

    Args:
        api: Settings of the API.
        worker: Settings of the worker.
        deep: Read every stored file and check its hash.
        grace_s: Age from which a file that nothing needs is reported, in seconds.
    """
    blobs = Blobs(api.store_address)
    database, store = _examine_database(api), _examine_store(api)
    findings = [database, _examine_broker(api), store, _examine_disk(api)]
    findings.append(examine_staging(blobs, grace_s=grace_s))
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
        for name, field in type(group).model_fields.items():
            variable = _PREFIX + name.upper()
            if field.exclude or variable in seen:
                continue
            seen.add(variable)
            value = getattr(group, name)
            yield Setting(
                variable=variable,
                value="" if value is None else mask(str(value)),
                source="environment" if os.environ.get(variable) else "default",
            )


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
        together, workers = examine_identity(database, blobs), examine_workers(database)
        if together.verdict == "problem":
            return [together, workers]  # another store: what is in it says nothing
        files = examine_files(database, blobs, deep=deep, grace_s=grace_s)
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
