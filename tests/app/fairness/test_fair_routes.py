"""Routes that work in threads, which also free there what a refusal leaves."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastapi import APIRouter, FastAPI
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from app.fairness.fair_routes import FairRoute
from app.fairness.turns import Turns
from app.problems.problem import Problem, install_problem_handlers


def test_what_a_refused_request_made_is_freed_in_its_thread():
    worked, freed = [], []

    class Columns:
        def __del__(self) -> None:
            freed.append(threading.get_ident())

    router = APIRouter(route_class=FairRoute)

    @router.get("/rows")
    def rows(limit: int) -> None:
        columns = [Columns() for _ in range(limit)]
        worked.append(threading.get_ident())
        raise Problem("overloaded", f"There are {len(columns)} columns.")

    app = FastAPI()
    app.state.route_turns = Turns(1, each=1)
    app.include_router(router)
    install_problem_handlers(app)
    with TestClient(app) as client:
        assert client.get("/rows?limit=3").status_code == 503
    assert freed == worked * 3


def test_pages_of_one_project_are_made_one_after_the_other_and_leave_a_turn_to_its_other_requests():
    at_once, go_on = list[int](), threading.Event()
    working = threading.Semaphore(2)
    router = APIRouter(route_class=FairRoute)

    @router.get("/pages")
    def pages(cursor: str | None = None) -> str | None:
        with working:
            at_once.append(working._value)
            go_on.wait(10)
        return cursor

    @router.get("/other")
    def other() -> None:
        go_on.set()

    app = FastAPI()
    app.state.route_turns, app.state.page_turns = Turns(2, each=2), Turns(2, each=1)
    app.include_router(router)
    with TestClient(app) as client, ThreadPoolExecutor(2) as pool:
        lists = [pool.submit(client.get, "/pages") for _ in range(2)]
        while not app.state.page_turns._queues:
            time.sleep(0.001)
        assert client.get("/other").is_success
        assert all(one.result().is_success for one in lists)
    assert at_once == [1, 1]


async def until(holds: Callable[[], object]) -> None:
    """Wait for what other tasks and threads do."""
    while not holds():  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.001)


async def ask(
    app: FastAPI, method: str, cursor: str, left: asyncio.Event, refusal: Problem | None = None
) -> None:
    """Send a request whose caller may leave, or whose body is refused then."""

    async def receive() -> Message:
        await left.wait()
        if refusal is not None:
            raise refusal
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Take the response."""

    scope = {"type": "http", "method": method, "path": "/pages", "headers": []}
    with suppress(ClientDisconnect):
        await app({**scope, "query_string": f"cursor={cursor}".encode()}, receive, send)


def test_nothing_is_read_for_callers_who_left_while_they_waited_for_their_turn():
    read, go_on = list[str](), threading.Event()
    router = APIRouter(route_class=FairRoute)

    @router.get("/pages")
    @router.delete("/pages")
    def pages(cursor: str) -> None:
        read.append(cursor)
        go_on.wait(10)

    app = FastAPI()
    app.state.route_turns, app.state.page_turns = Turns(1, each=1), Turns(5, each=5)
    app.include_router(router)
    queues = app.state.route_turns._queues

    async def run() -> None:
        stays, leaves = asyncio.Event(), asyncio.Event()
        leaves.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(app, "GET", "first", stays))
            await until(lambda: read)
            group.create_task(ask(app, "GET", "left", leaves))
            group.create_task(ask(app, "DELETE", "change", leaves))
            group.create_task(ask(app, "GET", "stays", stays))
            # A body that nobody reads, and that comes too slowly: the caller is there (fault 1032).
            group.create_task(ask(app, "GET", "slow body", leaves, Problem("overloaded")))
            await until(lambda: sum(map(len, queues.values())) == 4)
            go_on.set()

    asyncio.run(run())
    assert read == ["first", "change", "stays", "slow body"]
    assert app.state.route_turns.take_now("")
