"""API keys with their projects and scopes. A key's secret is shown once and stored as a hash."""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.database import Database, Rows, reading, writing
from models_store.database.dialects import dialect_of, insert_into
from models_store.database.ids import is_id, is_name, new_id
from models_store.database.schema import ApiKeyRow
from models_store.errors import ConflictError, FirstKeyError, NotFoundError
from models_store.quotas import hold_project
from models_store.records import Record

log = logging.getLogger(__name__)

_SECRET_BYTES = 32
_TOKEN = re.compile(r"(?P<id>key_[0-9a-f]{32})\.(?P<secret>[0-9a-f]{64})")
_DAY_S = 24 * 3600.0
_MOST = 1_000_000
MAX_KEYS = 1000
"""Keys of a project, ended ones included, that may be made over HTTP."""


class Scope(StrEnum):
    """Scope of a key; each scope includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        """Return whether this scope allows all that `other` allows."""
        return _ORDER[self] >= _ORDER[other]


_ORDER = {scope: place for place, scope in enumerate(Scope)}


@dataclass(frozen=True, kw_only=True)
class ApiKey(Record):
    """API key without its secret.

    Attributes:
        rate: Requests a second; None: the service's setting.
        last_used_at: Time of a recent request, to a minute.
        usable: True if it is neither revoked nor expired, by the database's clock.
    """

    id: str
    project: str
    scope: Scope
    rate: float | None
    label: str | None
    usable: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def state(self) -> Literal["usable", "expired", "revoked"]:
        """State of the key."""
        if self.revoked_at is not None:
            return "revoked"
        return "usable" if self.usable else "expired"


@dataclass(frozen=True)
class NewKey:
    """New key, and the only copy of the token that its bearer sends."""

    key: ApiKey
    token: str


class Keys(Rows):
    """API keys of all projects; methods raise `NotFoundError` for a key that the project does not have."""

    @writing
    def create(  # noqa: PLR0913 - each is another property of the key
        self,
        session: Session,
        project: str,
        scope: Scope,
        *,
        expires_days: float | None = None,
        rate: float | None = None,
        label: str | None = None,
        most: int | None = None,
    ) -> NewKey:
        """Make a key.

        Args:
            project: Project that the key opens, which may be empty.
            expires_days: Days after which the key expires; None: never.
            rate: Requests a second; None: the service's setting.
            label: Free text that says what the key is for.
            most: Most keys of the project, ended ones included; None: any number.

        Raises:
            ConflictError: The project has as many.
            ValueError: The project is not a valid name, or a number is not above 0 or too large.
        """
        if not is_name(project):
            raise ValueError("a project matches ^[a-z0-9][a-z0-9._-]{0,63}$")
        if not all(value is None or 0 < value <= _MOST for value in (expires_days, rate)):
            raise ValueError(f"days and rates are numbers above 0, at most {_MOST}")
        _check_number(session, project, most)
        row = ApiKeyRow(
            project=project,
            scope=scope.value,
            rate=rate,
            label=label,
            expires_at=None if expires_days is None else db_now(expires_days * _DAY_S),
        )
        return _add(session, row)

    @writing
    def make_first(self, session: Session, token: str) -> bool:
        """Make a key with a given token, for administrators of the project default.

        Nothing is done if any key was ever made, so one that is revoked does not come back; it returns whether it
        was made.

        Raises:
            ValueError: The text is no token.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise ValueError("a key is key_, 32 hexadecimal digits, a dot and 64 more of them")
        if session.scalar(select(ApiKeyRow.id).limit(1)) is not None:
            return False
        values = {
            "id": match["id"],
            "project": "default",
            "scope": Scope.ADMIN.value,
            "secret_sha256": _hash(match["secret"]),
            "label": "first key",
        }
        new = insert_into(dialect_of(session), ApiKeyRow).values(values)
        # Another process may make it at the same time.
        added = new.on_conflict_do_nothing(index_elements=[ApiKeyRow.id]).returning(ApiKeyRow.id)
        return session.scalar(added) is not None

    @reading
    def get(self, session: Session, project: str, key_id: str) -> ApiKey:
        """Return a key of a project."""
        row = _find(session, key_id, project)
        return _to_key(row, usable=_is_usable(session, row))

    @writing
    def rotate(self, session: Session, project: str, key_id: str, *, grace_s: float) -> NewKey:
        """Make a key like another one, which ends.

        The old one stays valid for the grace, in seconds; the new one expires when it would have.

        Raises:
            ConflictError: It is revoked or has expired, or the project has too many keys.
        """
        old = _find(session, key_id, project, lock=True)
        if not _is_usable(session, old):
            raise ConflictError("The key is revoked or has expired; create a new one.")
        _check_number(session, project, MAX_KEYS)
        new = ApiKeyRow(
            project=old.project,
            scope=old.scope,
            rate=old.rate,
            label=old.label,
            expires_at=old.expires_at,
        )
        end = session.scalars(select(db_now(grace_s))).one()
        if grace_s <= 0:
            old.revoked_at = db_now()
        elif old.expires_at is None or old.expires_at > end:
            old.expires_at = end
        return _add(session, new)

    @writing
    def note_uses(self, session: Session, key_ids: Iterable[str]) -> None:
        """Note that keys were used a moment ago."""
        session.execute(
            update(ApiKeyRow)
            .where(
                ApiKeyRow.id.in_(key_ids),
                or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < db_now(-60)),
            )
            .values(last_used_at=db_now())
            .execution_options(synchronize_session=False)
        )

    @reading
    def list(self, session: Session, project: str | None = None) -> "list[ApiKey]":
        """Return the keys of a project, or all, oldest first, with revoked and expired ones."""
        of_it = [] if project is None else [ApiKeyRow.project == project]
        rows = session.scalars(select(ApiKeyRow).where(*of_it).order_by(ApiKeyRow.position))
        usable = set(session.scalars(select(ApiKeyRow.id).where(*of_it, *_USABLE)))
        return [_to_key(row, usable=row.id in usable) for row in rows]

    @writing
    def revoke(self, session: Session, key_id: str, *, project: str | None = None) -> ApiKey:
        """Revoke a key of a project, or of any, for good; a second call changes nothing."""
        row = _find(session, key_id, project, lock=True)
        if row.revoked_at is None:
            row.revoked_at = db_now()
            session.flush()
        return _to_key(row, usable=False)

    @reading
    def exist(self, session: Session) -> bool:
        """Return whether any key was ever made, revoked ones included."""
        return session.scalar(select(ApiKeyRow.id).limit(1)) is not None

    @reading
    def bearer(self, session: Session, token: str) -> ApiKey | None:
        """Return the usable key of a token; None for any other text."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.id == match["id"], *_USABLE))
        # Compared also where there is no such key, so that both take the same time.
        expected = _NO_HASH if row is None else row.secret_sha256
        same = hmac.compare_digest(_hash(match["secret"]), expected)
        return _to_key(row, usable=True) if row is not None and same else None


_NO_HASH = "0" * 64
_USABLE = (
    ApiKeyRow.revoked_at.is_(None),
    or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > db_now()),
)


def make_first_key(database: Database, file: Path) -> None:
    """Make the key whose token is in a file, if no key was ever made.

    Raises:
        FirstKeyError: The file cannot be read, or has no key.
    """
    try:
        made = Keys(database).make_first(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise FirstKeyError(f"{file} cannot be read: {reason}") from None
    except ValueError as error:
        raise FirstKeyError(f"{file}: {error}") from None
    if made:
        log.info("made the first API key, from %s", file)


def _check_number(session: Session, project: str, most: int | None) -> None:
    if most is None:
        return
    hold_project(session, project)  # so that no two count the same keys
    number = select(func.count()).select_from(ApiKeyRow).where(ApiKeyRow.project == project)
    if (session.scalar(number) or 0) >= most:
        raise ConflictError(
            f"The project has {most} keys, ended ones included; further ones are made on the machine"
            " of the service, with `densityd keys create`."
        )


def _add(session: Session, row: ApiKeyRow) -> NewKey:
    """Add a key with a new secret."""
    secret = secrets.token_hex(_SECRET_BYTES)
    row.id = new_id("key")
    row.secret_sha256 = _hash(secret)
    session.add(row)
    session.flush()
    return NewKey(_to_key(row, usable=True), f"{row.id}.{secret}")


def _find(session: Session, key_id: str, project: str | None, *, lock: bool = False) -> ApiKeyRow:
    row = None
    if is_id(key_id, "key"):
        query = select(ApiKeyRow).where(ApiKeyRow.id == key_id)
        if project is not None:
            query = query.where(ApiKeyRow.project == project)
        row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFoundError("key", key_id)
    return row


def _is_usable(session: Session, row: ApiKeyRow) -> bool:
    usable = select(ApiKeyRow.id).where(ApiKeyRow.id == row.id, *_USABLE)
    return session.scalar(usable) is not None


def _to_key(row: ApiKeyRow, *, usable: bool) -> ApiKey:
    return ApiKey.of_row(row, scope=Scope(row.scope), usable=usable)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
