"""Counts of the rows that versions scored, by hour; those of several processes add up."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from models_store.counts import Counts, added
from models_store.database.announcements import announce
from models_store.database.clock import moment
from models_store.database.database import Rows, reading, writing
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.schema import ModelRow, MonitoredRow
from models_store.errors import NotFoundError
from models_store.rows.versions import find_model, find_version, pin_version

KEPT_DAYS = 90
"""Days for which counts are kept."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_DAY_HOURS = 24


@dataclass(frozen=True, kw_only=True)
class ScoredVersion:
    """Version that scored rows today.

    Attributes:
        counts: Counts of them so far.
        announced: True if webhooks were told that they have drifted.
    """

    project: str
    name: str
    version: int
    counts: Counts
    announced: bool


def add_counts(session: Session, project: str, name: str, version: int, counts: Counts) -> None:
    """Add counts to those of this hour; those of a version that was deleted meanwhile are dropped."""
    try:
        pin_version(session, project, name, version)
        model = find_model(session, project, name)
    except NotFoundError:
        return
    hour = _hour_of(moment(session))
    mine = {"model_id": model.id, "version": version, "hour": hour}
    first = insert_into(dialect_of(session), MonitoredRow)
    first = first.values(**mine, project=project, counts={}).on_conflict_do_nothing()
    session.execute(first)
    row = session.get_one(MonitoredRow, tuple(mine.values()), with_for_update=True)
    row.counts = added(row.counts, counts)


class Monitoring(Rows):
    """Counts of all projects."""

    @writing
    def add(self, session: Session, project: str, name: str, version: int, counts: Counts) -> None:
        """Add counts to those of this hour."""
        add_counts(session, project, name, version, counts)

    @reading
    def of_version(
        self,
        session: Session,
        project: str,
        name: str,
        version: int,
        *,
        since: datetime,
        until: datetime,
    ) -> dict[datetime, Counts]:
        """Return the counts of each hour that has any and begins from `since` on, before `until`.

        Raises:
            NotFoundError: The project has no such version.
        """
        model = find_model(session, project, name)
        find_version(session, model, version)
        query = (
            select(MonitoredRow.hour, MonitoredRow.counts)
            .where(MonitoredRow.model_id == model.id, MonitoredRow.version == version)
            .where(MonitoredRow.hour > _hour_of(since - timedelta.resolution))
            .where(MonitoredRow.hour <= _hour_of(until - timedelta.resolution))
        )
        found = session.execute(query.order_by(MonitoredRow.hour))
        return {_EPOCH + hour * _HOUR: counts for hour, counts in found}

    @reading
    def scored(
        self, session: Session, *, since: datetime | None
    ) -> tuple[datetime, list[ScoredVersion]]:
        """Return the present time, and the versions that have scored more rows today than at a time."""
        now = moment(session)
        today = MonitoredRow.hour >= _first_hour(now)
        its = MonitoredRow.model_id, MonitoredRow.version
        query = (
            select(MonitoredRow, ModelRow.name)
            .join(ModelRow, ModelRow.id == MonitoredRow.model_id)
            .where(today)
        )
        if since is not None:
            changed = select(*its).where(today, MonitoredRow.updated_at > since)
            query = query.where(tuple_(*its).in_(changed))
        found: dict[tuple[int, int], ScoredVersion] = {}
        for row, name in session.execute(query):
            known = found.get((row.model_id, row.version))
            found[row.model_id, row.version] = ScoredVersion(
                project=row.project,
                name=name,
                version=row.version,
                counts=row.counts if known is None else added(known.counts, row.counts),
                announced=row.announced_at is not None or (known is not None and known.announced),
            )
        return now, list(found.values())

    @writing
    def announce(
        self, session: Session, project: str, name: str, version: int, data: dict[str, Any]
    ) -> None:
        """Tell webhooks that the rows of today have drifted, unless they were told so."""
        pin_version(session, project, name, version)
        model = find_model(session, project, name)
        day = _first_hour(moment(session))
        mine = (
            MonitoredRow.model_id == model.id,
            MonitoredRow.version == version,
            MonitoredRow.hour >= day,
        )
        query = select(MonitoredRow).where(*mine).order_by(MonitoredRow.hour)
        rows = session.scalars(query.with_for_update()).all()
        if rows and all(row.announced_at is None for row in rows):
            rows[0].announced_at = moment(session)
            announce(session, project, "model.drifted", data)

    @writing
    def prune(self, session: Session) -> None:
        """Delete the counts of hours that are long past."""
        last = _hour_of(moment(session)) - KEPT_DAYS * _DAY_HOURS
        old = delete(MonitoredRow).where(MonitoredRow.hour < last)
        session.execute(old, execution_options={"synchronize_session": False})


def _hour_of(time: datetime) -> int:
    return (time - _EPOCH) // _HOUR


def _first_hour(time: datetime) -> int:
    """Return the first hour of a day."""
    return _hour_of(time) // _DAY_HOURS * _DAY_HOURS
