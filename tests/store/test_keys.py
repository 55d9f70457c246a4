"""API keys: shown once, kept as hashes, checked by the database's clock."""

import re

import pytest
from sqlalchemy import func, select, text, update

from models_store.database.clock import db_now
from models_store.database.schema import ApiKeyRow
from models_store.errors import FirstKeyError, NotFoundError
from models_store.keys import Keys, Scope, make_first_key


@pytest.fixture
def keys(database):
    return Keys(database)


def test_a_token_opens_its_project_with_its_scope(keys):
    assert not keys.exist()
    new = keys.create("people", Scope.WRITE, rate=5.0)
    assert re.fullmatch(r"key_[0-9a-f]{32}\.[0-9a-f]{64}", new.token)
    found = keys.bearer(new.token)
    assert found == new.key
    assert (found.project, found.scope, found.rate) == ("people", Scope.WRITE, 5.0)
    assert (found.usable, found.expires_at) == (True, None)
    assert keys.exist()


def test_whatever_is_not_a_token_opens_nothing(keys):
    token = keys.create("p", Scope.READ).token
    other = keys.create("p", Scope.READ).token
    key_id, _, secret = token.partition(".")
    assert keys.bearer(f"{key_id}.{other.partition('.')[2]}") is None
    assert keys.bearer(f"key_{'0' * 32}.{secret}") is None
    for wrong in ("", key_id, secret, f"{token} ", f"{token}\n", token.upper(), f"{token}0"):
        assert keys.bearer(wrong) is None
    assert keys.bearer(token) is not None


def test_a_revoked_key_opens_nothing_but_stays_as_a_record(keys):
    new, other = keys.create("p", Scope.READ), keys.create("q", Scope.ADMIN)
    revoked = keys.revoke(new.key.id)
    assert revoked.revoked_at is not None
    assert keys.revoke(new.key.id).revoked_at == revoked.revoked_at
    assert keys.bearer(new.token) is None
    assert keys.bearer(other.token) == other.key
    assert [(one.id, one.usable) for one in keys.list()] == [
        (new.key.id, False),
        (other.key.id, True),
    ]
    keys.revoke(other.key.id)
    assert keys.exist()


def test_a_key_expires_by_the_databases_clock(keys, database):
    new = keys.create("p", Scope.READ, expires_days=2)
    with database.write() as session:
        assert session.scalar(
            select(ApiKeyRow.id).where(
                ApiKeyRow.expires_at > db_now(48 * 3600 - 60),
                ApiKeyRow.expires_at < db_now(48 * 3600 + 60),
            )
        )
    assert keys.bearer(new.token) == new.key
    with database.write() as session:
        session.execute(update(ApiKeyRow).values(expires_at=db_now(-1)))
    assert keys.bearer(new.token) is None
    assert [one.usable for one in keys.list()] == [False]


def test_only_a_key_can_be_revoked(keys):
    for key_id in ("key_" + "0" * 32, "job_" + "0" * 32, "", "a\0b"):
        with pytest.raises(NotFoundError):
            keys.revoke(key_id)


def test_a_project_has_a_plain_name_and_days_and_rates_are_above_0(keys):
    for project in ("", "A", "a/b", "../a", "a" * 65, "a\0"):
        with pytest.raises(ValueError, match="project"):
            keys.create(project, Scope.READ)
    for wrong in ({"expires_days": 0}, {"expires_days": 1e9}, {"rate": 0}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match="above 0"):
            keys.create("p", Scope.READ, **wrong)
    assert keys.create("p", Scope.READ, expires_days=1e6, rate=1e6).key.rate == 1e6


def test_the_secret_is_nowhere_in_the_database(keys, database):
    token = keys.create("p", Scope.READ).token
    with database.read() as session:
        stored = str(session.execute(text("SELECT * FROM api_key")).one())
    assert token.partition(".")[2] not in stored
    assert token not in repr(keys.list())


def test_scopes_include_those_below():
    table = [[mine.includes(other) for other in Scope] for mine in Scope]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]


def test_the_first_key_is_made_once_and_does_not_come_back(database, tmp_path):
    token = f"key_{'a1' * 16}.{'b2' * 32}"
    file = tmp_path / "first"
    for wrong in ("", "a" * 100, f"{token}0"):
        file.write_text(wrong)
        with pytest.raises(FirstKeyError, match="DENSITYD_FIRST_KEY_FILE"):
            make_first_key(database, file)
    with pytest.raises(FirstKeyError, match="cannot be read"):
        make_first_key(database, tmp_path / "none")
    file.write_text(f"{token}\n")
    for _ in range(2):
        make_first_key(database, file)
    keys = Keys(database)
    [key] = keys.list()
    assert (key.project, key.scope) == ("default", Scope.ADMIN)
    assert keys.bearer(token) is not None
    keys.revoke(key.id)
    for one in (token, f"key_{'c3' * 16}.{'d4' * 32}"):
        file.write_text(one)
        make_first_key(database, file)
        assert keys.bearer(one) is None


@pytest.mark.parametrize(("days", "grace_s", "ends_s"), [(90, 3600, 3600), (1, 604_800, 86_400)])
def test_a_rotated_key_ends_with_its_grace_unless_it_would_expire_before(
    database, keys, days, grace_s, ends_s
):
    old = keys.create("p", Scope.WRITE, expires_days=days, rate=5.0, label="nightly")
    new = keys.rotate("p", old.key.id, grace_s=grace_s)
    assert (new.key.expires_at, new.key.rate) == (old.key.expires_at, 5.0)
    assert (new.key.scope, new.key.label) == (Scope.WRITE, "nightly")
    assert keys.bearer(old.token) is not None
    with database.write() as session:  # as if so much time had passed, and a minute more
        moved = ApiKeyRow.expires_at - text("interval '1 second' * :passed")
        if session.get_bind().dialect.name == "sqlite":
            moved = func.strftime(
                "%Y-%m-%dT%H:%M:%fZ", ApiKeyRow.expires_at, text("'-' || :passed || ' seconds'")
            )
        change = update(ApiKeyRow).where(ApiKeyRow.id == old.key.id).values(expires_at=moved)
        session.execute(change, {"passed": ends_s + 60})
    assert keys.bearer(old.token) is None
    assert keys.bearer(new.token) is not None
