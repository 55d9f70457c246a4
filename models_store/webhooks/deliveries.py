"""Deliveries as those who send them see them: what is due, and what became of it."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, Rows, reading, writing
from models_store.database.schema import WebhookDeliveryRow, WebhookRow
from models_store.jobs.rows import storable
from models_store.records import Record

# As Standard Webhooks has it: the last attempt is some three days after the first one.
PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_KEPT = 200
"""Deliveries of a webhook that have ended and are kept."""

_JITTER = 0.2
_GONE = 410
_KEEP_S = 7 * 24 * 3600
_MAX_ERROR = 300
_OF_A_PROJECT = 2  # under way at a time, so that slow receivers of one keep no others waiting
_IS_DUE = (WebhookDeliveryRow.ended_at.is_(None), WebhookDeliveryRow.due_at <= db_now())


@dataclass(frozen=True, kw_only=True)
class DueDelivery(Record):
    """Delivery that its taker alone sends, until its lease ends.

    Attributes:
        attempt: Number of this attempt, from 1.
        taken_at: Time at which it was taken for this attempt.
    """

    id: str
    webhook_id: str
    project: str
    url: str
    secret: str
    event: str
    data: dict[str, Any]
    attempt: int
    taken_at: datetime
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of an attempt.

    Attributes:
        status: HTTP status of the response; None: there was none.
        error: Reason of the failure; None: the response was 2xx.
    """

    status: int | None = None
    error: str | None = None


class Deliveries(Rows):
    """Deliveries of all projects; between the attempts at one are pauses, after the last one it is given up."""

    def __init__(self, database: Database, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        super().__init__(database)
        self._pauses_s = pauses_s

    def take(self, most: int, busy: Mapping[str, int], *, lease_s: float) -> list[DueDelivery]:
        """Take deliveries that are due, the oldest of each webhook first.

        Args:
            most: Largest number of deliveries.
            busy: Number of deliveries of each project that the caller is sending.
            lease_s: Seconds after which another attempt is due, if nobody calls `end`.
        """
        # A look takes no lock, of which SQLite has one for all that write.
        positions = self._oldest(most, busy) if most > 0 else []
        return self._take(positions, lease_s=lease_s) if positions else []

    @reading
    def _oldest(self, session: Session, most: int, busy: Mapping[str, int]) -> list[int]:
        oldest = (
            select(func.min(WebhookDeliveryRow.position), WebhookDeliveryRow.project)
            .where(*_IS_DUE)
            .group_by(WebhookDeliveryRow.webhook_id, WebhookDeliveryRow.project)
            .order_by(func.min(WebhookDeliveryRow.due_at))
        )
        chosen, under_way = list[int](), Counter(busy)
        for position, project in session.execute(oldest):
            if len(chosen) < most and under_way[project] < _OF_A_PROJECT:
                chosen.append(position)
                under_way[project] += 1
        return chosen

    @writing
    def _take(
        self, session: Session, positions: Sequence[int], *, lease_s: float
    ) -> list[DueDelivery]:
        due = (
            select(WebhookDeliveryRow, WebhookRow, db_now())
            .join(WebhookRow, WebhookRow.id == WebhookDeliveryRow.webhook_id)
            .where(WebhookDeliveryRow.position.in_(positions), *_IS_DUE)
            .with_for_update(of=WebhookDeliveryRow, skip_locked=True)
        )
        taken = []
        for row, webhook, now in session.execute(due):
            row.attempts += 1
            row.due_at = db_now(lease_s)
            told = {"url": webhook.url, "secret": webhook.secret, "taken_at": now}
            taken.append(DueDelivery.of_row(row, attempt=row.attempts, **told))
        return taken

    @writing
    def end(self, session: Session, delivery_id: str, attempt: int, outcome: Outcome) -> None:
        """Note what became of an attempt, unless a later one began since."""
        # The webhook first, as whoever deletes it with its deliveries.
        session.execute(
            select(WebhookRow.id)
            .join(WebhookDeliveryRow, WebhookRow.id == WebhookDeliveryRow.webhook_id)
            .where(WebhookDeliveryRow.id == delivery_id)
            .with_for_update(of=WebhookRow, key_share=True)
        )
        row = session.scalar(
            select(WebhookDeliveryRow)
            .where(
                WebhookDeliveryRow.id == delivery_id,
                WebhookDeliveryRow.attempts == attempt,
                WebhookDeliveryRow.ended_at.is_(None),
            )
            .with_for_update()
        )
        if row is None:
            return
        row.status = outcome.status
        row.error = None if outcome.error is None else storable(outcome.error[:_MAX_ERROR])
        row.delivered = outcome.error is None
        given_up = attempt > len(self._pauses_s) or outcome.status == _GONE
        if row.delivered or given_up:
            row.ended_at = db_now()
        else:
            pause_s = self._pauses_s[attempt - 1]
            row.due_at = db_now(pause_s * (1 + _JITTER * random.random()))  # noqa: S311 - no secret
        if given_up and not row.delivered:
            _disable(session, row.webhook_id)
        if row.ended_at is not None:
            session.flush()
            _keep_newest(session, row.webhook_id)

    @writing
    def forget(self, session: Session) -> None:
        """Delete deliveries that ended long ago."""
        old = delete(WebhookDeliveryRow).where(WebhookDeliveryRow.ended_at <= db_now(-_KEEP_S))
        session.execute(old, execution_options={"synchronize_session": False})


def _keep_newest(session: Session, webhook_id: str) -> None:
    """Delete the deliveries of a webhook that have ended, but for the newest."""
    ended = (WebhookDeliveryRow.webhook_id == webhook_id, WebhookDeliveryRow.ended_at.is_not(None))
    newest = select(WebhookDeliveryRow.position).where(*ended)
    last = session.scalar(
        newest.order_by(WebhookDeliveryRow.position.desc()).offset(MAX_KEPT - 1).limit(1)
    )
    if last is not None:
        session.execute(
            delete(WebhookDeliveryRow).where(*ended, WebhookDeliveryRow.position < last),
            execution_options={"synchronize_session": False},
        )


def _disable(session: Session, webhook_id: str) -> None:
    """Disable a webhook and give up what waits for it."""
    session.execute(
        update(WebhookRow)
        .where(WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None))
        .values(disabled_at=db_now())
    )
    session.execute(
        update(WebhookDeliveryRow)
        .where(WebhookDeliveryRow.webhook_id == webhook_id, WebhookDeliveryRow.ended_at.is_(None))
        .values(ended_at=db_now(), error="The webhook was disabled.")
        .execution_options(synchronize_session=False)
    )
