"""Whole responses count in the memory of bodies until their callers have read them."""

import asyncio
from types import SimpleNamespace

import pytest
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import Response

from app.auth.callers import Caller
from app.http.body_memory import BodyMemory
from app.http.streaming import StreamedResponse
from app.http.unread_responses import UnreadResponse
from app.problems.problem import Problem
from app.server.request_middleware import _problem
from models_store.keys import Scope

SIZE = 100_000


class Connection:
    """Connection to a caller who reads nothing: the server waits before it sends more."""

    def __init__(self):
        self.messages = []
        self.read = asyncio.Event()

    async def send(self, message):
        if sum(len(sent.get("body", b"")) for sent in self.messages) >= SIZE:
            await self.read.wait()
        self.messages.append(dict(message))


@pytest.fixture
def memory():
    return BodyMemory(8 * SIZE)


def scope_of(memory, project="a"):
    caller = None if project is None else Caller(project, Scope.READ)
    app = SimpleNamespace(state=SimpleNamespace(body_memory=memory))
    return {"type": "http", "app": app, "state": {"caller": caller}}


async def receive():
    """Receive nothing, as from a caller who waits."""
    await asyncio.Event().wait()
    return {}


def begin(response, memory, project="a"):
    """Begin to send a response; return its connection and the task that sends it."""
    connection, scope = Connection(), scope_of(memory, project)
    sender = UnreadResponse(scope, connection.send)
    return connection, asyncio.create_task(response(scope, receive, sender.send))


def test_whole_responses_count_until_they_are_read(memory):
    async def main():
        begun = [begin(Response(bytes(SIZE)), memory) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert memory.held == 3 * SIZE
        refused, task = begin(Response(bytes(SIZE)), memory)
        with pytest.raises(Problem, match="wait to be read") as told:
            await task
        assert told.value.status == 503
        assert refused.messages == []
        other, of_other = begin(Response(bytes(SIZE)), memory, "b")
        await asyncio.sleep(0.01)
        assert memory.held == 4 * SIZE
        for connection, task in [*begun, (other, of_other)]:
            connection.read.set()
            await task
            assert b"".join(sent.get("body", b"") for sent in connection.messages) == bytes(SIZE)
            assert [bool(sent.get("more_body")) for sent in connection.messages] == [
                False,
                True,
                False,
            ]
        assert memory.held == 0

    asyncio.run(main())


def test_a_route_whose_response_has_no_room_is_overloaded(memory):
    routed = ExceptionMiddleware(Response(bytes(SIZE)), handlers={Problem: lambda *_: Response()})

    async def main():
        begun = [begin(Response(bytes(SIZE)), memory) for _ in range(3)]
        await asyncio.sleep(0.01)
        scope, connection = scope_of(memory), Connection()
        sender = UnreadResponse(scope, connection.send)
        with pytest.raises(RuntimeError) as told:
            await routed(scope, receive, sender.send)
        assert connection.messages == []
        assert _problem(told.value).status == 503
        for one, task in begun:
            one.read.set()
            await task

    asyncio.run(main())


def test_what_is_cut_off_counts_no_more(memory):
    async def main():
        _, task = begin(Response(bytes(SIZE)), memory)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        assert memory.held == 0

    asyncio.run(main())


@pytest.mark.parametrize("project", ["a", None])
def test_small_ones_streamed_ones_and_those_of_nobody_count_nothing(memory, project):
    async def pieces():
        yield bytes(SIZE // 2)
        yield bytes(SIZE // 2)

    async def main():
        streamed = StreamedResponse(
            pieces(), media_type="text/plain", headers={"Content-Length": str(SIZE)}
        )
        responses = [Response(bytes(1000)), streamed]
        if project is None:
            responses.append(Response(bytes(SIZE)))
        for response in responses:
            connection, task = begin(response, memory, project)
            await asyncio.sleep(0.01)
            assert memory.held == 0
            connection.read.set()
            await task
            assert [sent["type"] for sent in connection.messages][:2] == [
                "http.response.start",
                "http.response.body",
            ]

    asyncio.run(main())
