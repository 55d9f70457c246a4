"""Real servers and empty databases for every test that asks for one."""

import gc
import logging
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import httpx._config
import httpx2._config
import pytest
from _pytest.mark.expression import Expression
from _pytest.python import CallSpec
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped] # it ships no type information
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # nor this

import tests.shape_checks  # noqa: F401  adds checks to flows, which nothing may import before
from models_store.aliases import Aliases
from models_store.database.database import Database, migrate
from models_store.database.schema import METADATA
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retention import JobRetention
from models_store.process.logs import JsonFormatter
from models_store.registry import Registry
from tests.attempts import THOROUGH
from tests.servers import PostgresServer, RedisServer

_DATABASE = "densityd"
_LOGGING_FLAGS = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")

# Which tests one process runs, of several: those of a file, and of files that share a server, which
# takes seconds to start. Groups begin in this order; files that are not named come after them.
_GROUPS = {
    "the whole service": (
        "e2e/test_up.py",
        "e2e/test_web_page.py",
        "e2e/test_page_views.py",
        "e2e/test_page_by_keyboard.py",
        "e2e/test_guide.py",
        "e2e/test_tables.py",
    ),
    "a server with keys": (
        "app/test_schemathesis.py",
        "app/site/test_docs_pages.py",
        "app/auth/test_every_method.py",
        "app/auth/test_examples.py",
        "app/connections/test_refused_callers.py",
        "app/inference/test_tritonclient.py",
    ),
    "an attacked service": ("faults/",),
    "a server without keys": (
        "app/connections/test_http_grammar.py",
        "app/connections/test_protocol.py",
        "app/connections/test_proxies.py",
        "app/connections/test_refused_bodies.py",
        "app/connections/test_upgrading_clients.py",
        "app/connections/test_behind_nginx.py",
        "app/http/test_documents_alone.py",
        "app/http/test_packed_bodies.py",
    ),
}
# Files that wait for processes begin before those that compute, so that none is left at the end.
_ORDER = (
    "e2e/",
    "cluster/",
    "workers/",
    "app/connections/",
    "app/",
    "densityd/",
    "models_store/",
)
# Where tests share nothing, or take longer than a server of their own to start, each goes to the next
# process that is free.
_SINGLE = (
    "flows/",
    "app/test_schemathesis.py::test_every_answer_is_a_documented_one[1-",
)

# Marks of tests that the default run leaves out.
_OTHER_RUNS = ("long", "slow", "gpu", "cluster")

# What is imported and collected stays for the whole run: to look through a million such objects again
# and again takes a third of the time of the collection.
gc.disable()

# Before the options are read. No test asserts a time: a busy machine is no fault. The same values in
# each run, so that none fails by chance; the thorough profile draws others each time.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(THOROUGH, _patient)
settings.register_profile("repeatable", _patient, derandomize=True)
settings.load_profile("repeatable")

# A caller that names no time-out of its own waits for five seconds otherwise, too short for a busy machine.
for _default in (httpx._config.DEFAULT_TIMEOUT_CONFIG, httpx2._config.DEFAULT_TIMEOUT_CONFIG):
    for _part in ("connect", "read", "write", "pool"):
        setattr(_default, _part, 120.0)


def _place_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")


def _group_of(nodeid: str) -> str:
    """Return the name of what one process runs without a break."""
    if nodeid.removeprefix("tests/").startswith(_SINGLE):
        return nodeid
    place = _place_of(nodeid)
    for group, places in _GROUPS.items():
        if place.startswith(places):
            return group
    return place


def _turn_of(item: pytest.Item) -> tuple[int, int]:
    """Return which of the groups, and then which of the folders, a test belongs to."""
    place = _place_of(item.nodeid)
    groups = [place.startswith(places) for places in _GROUPS.values()]
    folders = [place.startswith(folder) for folder in _ORDER]
    return (*groups, True).index(True), (*folders, True).index(True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases",
        type=int,
        help="of each parametrised test leave so many cases as they are, and mark the others `long`",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)  # once all others have said which cases there are
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Leave some cases of each test to another run; a run without them does not even make them."""
    yield
    most: int | None = metafunc.config.getoption("cases")
    if not most or any(map(metafunc.definition.get_closest_marker, _OTHER_RUNS)):
        return
    further = _further_cases(metafunc.definition.nodeid, metafunc._calls, most)
    if _asks_for_long(metafunc.config.option.markexpr):
        for case in further:
            case.marks.append(pytest.mark.long.mark)
    else:
        left_out = set(map(id, further))
        metafunc._calls = [case for case in metafunc._calls if id(case) not in left_out]


@cache
def _asks_for_long(marks: str) -> bool:
    return Expression.compile(marks).evaluate(_is_long)


def _is_long(name: str, /, **_: object) -> bool:
    return name == "long"


def _further_cases(name: str, cases: list[CallSpec], most: int) -> list[CallSpec]:
    """Return the cases of a test but some, spread evenly; which ones differs from test to test."""
    usual = [case for case in cases if not any(mark.name in _OTHER_RUNS for mark in case.marks)]
    if len(usual) <= most:
        return []
    step = len(usual) / most
    first = zlib.crc32(name.encode()) % 1000 / 1000
    kept = {int((first + number) * step) for number in range(most)}
    return [case for number, case in enumerate(usual) if number not in kept]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest."""
    items.sort(key=_turn_of)


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc] # of no known type
    """Gives a group to one process, which starts what its tests share once."""

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid)


@pytest.hookimpl(optionalhook=True)  # which runs without xdist do not know
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByGroup:
    # xdist 3.8 writes its own groups where pytest 9.2 does not read them.
    return _ByGroup(config, log)


def pytest_collection_finish() -> None:
    """Leave what is loaded out of all later garbage collections, and speed up pytest's logging."""
    gc.freeze()
    gc.enable()
    # pytest adds and removes two handlers in each phase of each test, for each logger that ends the way
    # of its records: torch has forty, which makes half of the time that a small test takes.
    for logger in filter(_is_logger, logging.root.manager.loggerDict.values()):
        logger.propagate |= logger.name.startswith("torch.")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Give every test the process's own umask: what starts a service changes it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def _is_logger(found: logging.Logger | logging.PlaceHolder) -> TypeGuard[logging.Logger]:
    return isinstance(found, logging.Logger)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Give every test the logging of before: the entry of a process sets its level and handlers."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    known = [root, *filter(_is_logger, root.manager.loggerDict.values())]
    loggers = [(logger, logger.level, logger.propagate, logger.disabled) for logger in known]
    flags = {name: getattr(logging, name) for name in _LOGGING_FLAGS}
    hooks = sys.excepthook, threading.excepthook
    yield
    for logger, level, propagate, disabled in loggers:
        if logger.level != level:  # which empties the caches of all loggers
            logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
    for name, value in flags.items():
        setattr(logging, name, value)
    logging.captureWarnings(capture=False)
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter) and handler not in handlers:
            root.removeHandler(handler)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the whole run; a test that stops it starts it again."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis, as redis-py spells it."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run, with a migrated database; no test stops it."""
    server = PostgresServer()
    migrate(server.create(_DATABASE))
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a migrated PostgreSQL database without rows."""
    # Making a database takes most of a second; emptying one takes none.
    tables = reversed(METADATA.sorted_tables)
    postgres_server.empty(_DATABASE, [table.name for table in tables])
    return postgres_server.url(_DATABASE)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows, to copy."""
    file = tmp_path_factory.mktemp("template") / "densityd.sqlite3"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """The URL of a migrated SQLite file without rows."""
    file = tmp_path / "densityd.sqlite3"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database without rows: the test runs once on each kind."""
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(kind))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database without rows, of each kind."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def retention(database: Database) -> JobRetention:
    return JobRetention(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def aliases(database: Database) -> Aliases:
    return Aliases(database)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs.in_folder(tmp_path / "blobs")
