"""Requests that are served while the database is unavailable, while a process starts, and while it stops."""

import asyncio
import signal
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app import remembered
from app.auth.callers import ANYBODY, Callers, check_again
from app.auth.identity import Proxy
from app.engine.loaded_models import CacheLimits, LoadedModels
from app.engine.warming import preloaded
from app.main import create_app
from app.problems.problem import Problem
from app.server.readiness import Level, Lookout
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.errors import DatabaseUnavailableError
from models_store.files.blobs import Blobs
from models_store.keys import Keys, Scope
from models_store.records import Version
from models_store.registry import Registry
from tests.api.conftest import add_model, listening
from tests.api.serving import registered
from tests.store.makers import PROJECT
from tests.support.waiting import Clock, wait_until

pytestmark = pytest.mark.anyio


class Outage:
    """A registry and keys whose database can be away, or silent."""

    def __init__(self, registry: Registry, keys: Keys) -> None:
        self.registry, self.keys = registry, keys
        self.away, self.silent = False, False
        self.go_on = threading.Event()
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.silent:
            self.go_on.wait(120)
        if self.away:
            raise DatabaseUnavailableError

    def resolve(self, project: str, ref: str) -> Version:
        self._ask()
        return self.registry.resolve(project, ref)

    def bearer(self, token: str) -> Any:
        self._ask()
        return self.keys.bearer(token)

    def exist(self) -> bool:
        self._ask()
        return self.keys.exist()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of what is remembered, which goes when it is told."""
    clock = Clock()
    monkeypatch.setattr(remembered, "time", clock)
    return clock


@pytest.fixture
def outage(settings):
    database = Database(settings.resolved_database_url)
    registered(database, Blobs.in_folder(settings.blob_root))
    yield Outage(Registry(database), Keys(database))
    database.dispose()


async def test_known_models_are_served_while_the_database_is_away(settings, outage, clock):
    limits = CacheLimits(2**20, 2**30, resolved_for_s=0.01, stale_s=1.5)
    models = LoadedModels(outage, Blobs.in_folder(settings.blob_root), limits=limits)
    version = await models.resolve(PROJECT, "people")
    outage.away = True
    for _ in range(20):
        assert await models.resolve(PROJECT, "people") == version
        clock.now += 0.05
    with pytest.raises(DatabaseUnavailableError):
        await models.resolve(PROJECT, "people@other")
    clock.now += 0.7
    with pytest.raises(DatabaseUnavailableError):
        await models.resolve(PROJECT, "people")
    outage.away = False
    assert await models.resolve(PROJECT, "people") == version
    outage.silent = True  # nobody waits for as long as it takes, and one at a time waits at all
    clock.now += 0.02
    asked = outage.asked
    assert await models.resolve(PROJECT, "people") == version
    assert await models.resolve(PROJECT, "people") == version
    assert outage.asked == asked + 1
    outage.go_on.set()
    models.close()


async def test_known_keys_are_accepted_while_the_database_is_away_and_no_others(outage, clock):
    made = outage.keys.create("default", Scope.WRITE)
    header, wrong = f"Bearer {made.token}".encode(), b"Bearer key_" + b"0" * 32 + b".11"
    callers = Callers(outage, anonymous=False, known_for_s=0.05, stale_s=1.0)
    caller = await callers.identify([header])
    with pytest.raises(Problem):
        await callers.identify([wrong])
    outage.away = True
    for _ in range(20):
        assert await callers.identify([header]) == caller
        clock.now += 0.03
    with pytest.raises(DatabaseUnavailableError):
        await callers.identify([wrong])
    clock.now += 0.5
    with pytest.raises(DatabaseUnavailableError):
        await callers.identify([header])
    outage.away = False
    assert await callers.identify([header]) == caller
    outage.keys.revoke(made.key.id)
    clock.now += 0.15
    with pytest.raises(Problem):  # the database speaks again, and is believed
        await callers.identify([header])
    callers.close()


async def test_a_request_that_lasts_ends_with_its_key_and_not_with_the_database(outage, clock):
    made = outage.keys.create("default", Scope.READ)
    proxy = Proxy("10.0.0.0/8")
    callers = Callers(outage, anonymous=False, known_for_s=0.05, proxy=proxy)
    app = SimpleNamespace(state=SimpleNamespace(callers=callers))
    keyed = {"app": app, "headers": [(b"authorization", f"Bearer {made.token}".encode())]}
    person = [(b"x-forwarded-user", b"ada"), (b"x-forwarded-groups", b"densityd:a:read")]
    for project in (b"a", b"other"):  # what its scope was when it began
        headers = [*person, (b"x-project", project)]
        await check_again({"app": app, "client": ("10.1.2.3", 5), "headers": headers})
    await check_again(keyed)
    outage.away = True
    clock.now += 10
    await check_again(keyed)
    outage.away = False
    outage.keys.revoke(made.key.id)
    with pytest.raises(Problem, match="was revoked or has expired") as refused:
        await check_again(keyed)
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="densityd"'
    callers.close()


async def admitted(callers: Callers, authorization: list[bytes]) -> bool:
    try:
        await callers.identify(authorization)
    except Problem:
        return False
    return True


async def test_a_silent_database_delays_a_key_once(outage, clock):
    made = outage.keys.create("default", Scope.READ)
    header = f"Bearer {made.token}".encode()
    callers = Callers(outage, anonymous=False, known_for_s=0.05, stale_s=1e6)
    caller = await callers.identify([header])
    outage.silent = True
    clock.now += 10
    assert await callers.identify([header]) == caller
    for _ in range(5):
        clock.now += 10
        async with asyncio.timeout(60):
            assert await callers.identify([header]) == caller
    assert outage.asked == 2
    outage.keys.revoke(made.key.id)
    outage.silent = False
    outage.go_on.set()
    async with asyncio.timeout(60):
        while await admitted(callers, [header]):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    callers.close()


async def test_nobody_without_a_key_is_admitted_for_longer_than_that(outage, clock):
    callers = Callers(outage, anonymous=True, known_for_s=0.05, stale_s=1.0)
    outage.away = True
    with pytest.raises(DatabaseUnavailableError):
        await callers.identify([])
    outage.away = False
    assert await callers.identify([]) == ANYBODY
    outage.away = True
    clock.now += 0.5
    assert await callers.identify([]) == ANYBODY
    clock.now += 0.6
    with pytest.raises(DatabaseUnavailableError):
        await callers.identify([])
    callers.close()


def test_a_server_that_went_away_leaves_the_process_ready_for_a_while(settings, monkeypatch):
    database = Database(settings.resolved_database_url)
    monkeypatch.setattr(Database, "is_server", True)
    blobs = Blobs.in_folder(settings.blob_root)
    blobs.ping()  # as every start does
    lookout = Lookout(database, blobs, every_s=0.05, stale_s=1.0)
    lookout.start(wait_s=120)
    assert max(one.level for one in lookout.found().values()) is Level.OK

    def away(_self):
        raise DatabaseUnavailableError

    monkeypatch.setattr(Database, "ping", away)
    monkeypatch.setattr(Database, "check_schema", away)
    wait_until(lambda: lookout.found()["database"].level is Level.DEGRADED)
    assert "from memory" in lookout.found()["database"].detail
    wait_until(lambda: lookout.found()["database"].level is Level.UNUSABLE)
    lookout.stop()
    lookout.join(20)
    database.dispose()


@pytest.mark.usefixtures("outage")
def test_a_process_is_ready_with_its_models_in_memory(settings):
    wanted = ApiSettings(
        data_dir=settings.data_dir, preload="people, no-such-model,other/people@live"
    )
    with TestClient(create_app(wanted)) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert "densityd_models_loaded 1.0" in client.get("/metrics").text


def test_models_of_a_setting_are_told_apart_or_refused():
    for text in ("A b", "a/b/c", "../x", "name@@x", ","):
        with pytest.raises(ValidationError, match="models look like"):
            ApiSettings(preload=text)
    assert preloaded("a, p/b@c,d:1") == [("default", "a"), ("p", "b@c"), ("default", "d:1")]
    assert preloaded(None) == []


@pytest.fixture
def draining(data_dir):
    """The URL of a process that drains for 2 seconds, and the process."""
    add_model(data_dir)
    drain = {"DENSITYD_DRAIN_DELAY_S": "2", "DENSITYD_TEST_DRAIN_S": "1.5"}
    with listening(data_dir, **drain) as running:
        yield running


@pytest.mark.slow
def test_a_process_that_is_told_to_stop_serves_until_others_know(draining):
    url, process = draining
    with httpx.Client(base_url=url, timeout=60) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        body = {"rows": [[170, 70, 40]]}
        first = client.post("/v1/models/people/log_prob", json=body)
        assert first.status_code == 200
        assert "connection" not in first.headers
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        ready = client.get("/readyz")
        assert ready.json()["status"] == "draining"
        answer = client.post("/v1/models/people/log_prob", json=body)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert answer.json() == first.json()
    assert process.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


async def test_the_first_key_is_that_of_its_project_as_soon_as_it_is_made(outage):
    callers = Callers(outage, anonymous=True, known_for_s=60.0)
    assert await callers.identify([]) == ANYBODY
    made = outage.keys.create("one", Scope.WRITE)
    assert await callers.identify([]) == ANYBODY  # for a minute, as it was found
    caller = await callers.identify([f"Bearer {made.token}".encode()])
    assert (caller.project, caller.key_id) == ("one", made.key.id)
    with pytest.raises(Problem):
        await callers.identify([])
    callers.close()
