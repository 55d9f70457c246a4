"""Limits that keep one project from starving others: fair turns, open requests, memory of bodies."""

import asyncio
import inspect
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.problems.problem import Problem
from models_store.keys import Scope

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

NOBODY = ""
"""Owner of work that belongs to no project."""
ROUTES_EACH = 2
"""Requests of one project at once in routes that read or write the database; others of it wait."""
_KEYS_A_PROJECT = 2
_ANYBODY = 8
"""Share of a service without keys, where all callers count as one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Sender of a request.

    Args:
        project: Project that the caller belongs to.
        key_id: Id of the key, or `oidc:NAME` or `proxy:NAME` of somebody who signed in; None where none is needed.
        rate: Requests per second; None for the rate of the settings.
    """

    project: str
    scope: Scope
    key_id: str | None = None
    rate: float | None = None

    @property
    def is_person(self) -> bool:
        """True of somebody who signed in, without a key."""
        return self.key_id is not None and ":" in self.key_id


class Turns:
    """Bounded number of holders of a resource, shared fairly by owners.

    Waiting callers are served in turn by owner, and within one owner in order of arrival: an owner
    with many of them delays itself, not others. Who gives a turn back is behind all who wait then.
    Belongs to one event loop.

    Args:
        at_once: Most holders at once.
        each: Most holders of one owner.
    """

    def __init__(self, at_once: int, *, each: int) -> None:
        self._free = at_once
        self._each = each
        self._held: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Hold a turn until the end of the context."""
        await self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    def _take_now(self, owner: str) -> bool:
        """Take a free turn, unless that would pass over another caller."""
        held = self._held.get(owner, 0)
        if self._free <= 0 or held >= self._each or owner in self._queues:
            return False
        self._free -= 1
        self._held[owner] = held + 1
        return True

    async def take(self, owner: str) -> None:
        """Take a turn, or wait for one."""
        if self._take_now(owner):
            return
        queue = self._queues.setdefault(owner, deque())
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._leave(owner, place)
            else:  # it was given at the same moment
                self.give_back(owner)
            raise

    def give_back(self, owner: str) -> None:
        """Give a turn back to the next waiting caller."""
        self._free += 1
        if self._held[owner] == 1:
            del self._held[owner]
        else:
            self._held[owner] -= 1
        if owner in self._queues:
            self._queues.move_to_end(owner)
        self._serve()

    def _serve(self) -> None:
        while self._free > 0:
            owner = next((o for o in self._queues if self._held.get(o, 0) < self._each), None)
            if owner is None:
                return
            queue = self._queues.pop(owner)
            place = queue.popleft()
            if queue:
                self._queues[owner] = queue  # behind all others
            if not place.done():
                self._free -= 1
                self._held[owner] = self._held.get(owner, 0) + 1
                place.set_result(None)

    def _leave(self, owner: str, place: "asyncio.Future[None]") -> None:
        queue = self._queues.get(owner)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[owner]


class Threads:
    """Pool of threads that projects share fairly.

    Args:
        name: Name of the threads.
        at_once: Number of threads.
        each: Most threads that work for one project.
    """

    def __init__(self, name: str, at_once: int, *, each: int) -> None:
        self._turns = Turns(at_once, each=each)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix=name)

    async def run(
        self,
        owner: str,
        function: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result:
        """Call a function in a thread, when it is the owner's turn.

        A caller who is cancelled leaves the thread at work, and the turn taken until it has ended.
        """
        await self._turns.take(owner)
        loop = asyncio.get_running_loop()
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        try:
            work: Future[_Result] = self._pool.submit(call)
        except RuntimeError:  # no thread can be started
            self._turns.give_back(owner)
            raise
        work.add_done_callback(lambda _: self._end(loop, owner))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Accept no more calls, and do not wait for running ones."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _end(self, loop: asyncio.AbstractEventLoop, owner: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._turns.give_back, owner)


_account: ContextVar[tuple[Threads, str] | None] = ContextVar("account", default=None)


def charge_to(owner: str, threads: Threads) -> None:
    """Have the calls of `in_thread` in this task count as those of a project.

    Args:
        owner: Project that the calls belong to.
        threads: Pool of threads that requests share.
    """
    _account.set((threads, owner))


def owner_here() -> str:
    """Return the project that this context works for."""
    account = _account.get()
    return NOBODY if account is None else account[1]


async def in_thread(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function off the event loop, in the turn of the project that sent the request.

    Use this in place of `asyncio.to_thread`, which serves calls in order of arrival, so that a
    hundred calls of one caller would delay all others.
    """
    account = _account.get()
    if account is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    threads, owner = account
    return await threads.run(owner, function, *args, **kwargs)


class FairRoute(APIRoute):
    """Route of which a plain function runs in a thread when its project's turn comes.

    Threads and connections to the database are few: without this, one caller's hundred lists come
    before everybody's next request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request; its response is sent afterwards, without a turn."""
        handle = super().get_route_handler()
        if inspect.iscoroutinefunction(self.endpoint):
            return handle

        async def in_turn(request: Request) -> Response:
            turns: Turns = request.app.state.route_turns
            async with turns.turn(owner_here()):
                return await handle(request)

        return in_turn


class OpenBound:
    """Counter of open requests of one kind; belongs to one event loop.

    Args:
        what: Name of the kind, in the plural.
        each_key: Most of one key; the keys of a project may have twice as many together.
    """

    def __init__(self, what: str, each_key: int) -> None:
        self._what = what
        self._each_key = each_key
        self._of_projects: dict[str | None, int] = {}
        self._of_keys: dict[str | None, int] = {}

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count one more as long as the context lasts.

        Raises:
            Problem: `limit-open-requests`, when there are too many.
        """
        self.take(caller)
        try:
            yield
        finally:
            self.give_back(caller)

    def take(self, caller: Caller) -> None:
        """Count one more, until it is given back.

        Raises:
            Problem: `limit-open-requests`, when there are too many.
        """
        project, key = caller.project, caller.key_id
        of_project, of_key = self._of_projects.get(project, 0), self._of_keys.get(key, 0)
        if key is not None and of_key >= self._each_key:
            raise self._refusal("This key", self._each_key)
        most = self._each_key * (_ANYBODY if key is None else _KEYS_A_PROJECT)
        if of_project >= most:
            raise self._refusal("This project", most)
        self._of_projects[project] = of_project + 1
        self._of_keys[key] = of_key + 1

    def give_back(self, caller: Caller) -> None:
        """Count one fewer."""
        for counts, name in (self._of_projects, caller.project), (self._of_keys, caller.key_id):
            if counts[name] == 1:
                del counts[name]
            else:
                counts[name] -= 1

    def _refusal(self, whose: str, most: int) -> Problem:
        return Problem(
            "limit-open-requests",
            f"{whose} has {most} {self._what} open, which is the most at once.",
            members={"limit": most},
        )


class BodyMemory:
    """Counter of the bytes of bodies that are in memory; belongs to one event loop.

    A project holds no more than is left over: half of the memory where it is alone, a third where
    another does the same, so that a project that holds little always finds room.

    Args:
        max_bytes: Most bytes of all bodies together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes of all bodies now."""
        return self._held.total()

    def change(self, project: str, size: int) -> None:
        """Count `size` bytes more, or fewer where it is negative.

        Raises:
            Problem: `overloaded`, when that is too much.
        """
        self._held[project] += size
        if self._held[project] == 0:
            del self._held[project]
        if size > 0 and self._held[project] > self._max_bytes - self.held:
            raise Problem("overloaded", "Too many bodies are on their way. Try again.")


class Share:
    """Bytes that one request holds, until the end of its context.

    Args:
        memory: Memory of all projects.
        project: Project that the request belongs to.
    """

    def __init__(self, memory: BodyMemory, project: str) -> None:
        self._memory = memory
        self._project = project
        self._size = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes in all.

        Raises:
            Problem: `overloaded`, as soon as the bodies of a project, or all, take too much.
        """
        more, self._size = size - self._size, size
        if more != 0:
            self._memory.change(self._project, more)

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_error: object) -> None:
        self.hold(0)
