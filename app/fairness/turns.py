"""Turns at what there is little of, such as threads: shared fairly by the projects that ask."""

import asyncio
import gc
import traceback
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

NOBODY = ""
"""The owner of what no project asked for."""


class QueueFullError(Exception):
    """So many of one owner wait that no further one may."""


class Turns:
    """Holders of a thing, of which there may be so many at once.

    What waits is served in turn by owner, and within one owner in the order of asking: whoever asks
    for much waits for their own, not the others for them. Belongs to one event loop.

    Args:
        at_once: holders of all owners.
        each: holders of one owner.
        waiting: of one owner; None: any number, which something else bounds.
    """

    def __init__(self, at_once: int, *, each: int, waiting: int | None = None) -> None:
        self._free = at_once
        self._each = each
        self._most_waiting = waiting
        self._held: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Hold one as long as the context lasts.

        Raises:
            QueueFullError: too many of the owner wait.
        """
        if not self.take_now(owner):
            await self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    def take_now(self, owner: str) -> bool:
        """Take one that is free, if nobody is passed over by that."""
        held = self._held.get(owner, 0)
        if self._free == 0 or held >= self._each or owner in self._queues:
            return False
        self._free -= 1
        self._held[owner] = held + 1
        return True

    async def take(self, owner: str) -> None:
        """Take one, or wait for it.

        Raises:
            QueueFullError: too many of the owner wait.
        """
        if self.take_now(owner):
            return
        queue = self._queues.get(owner, deque())
        if self._most_waiting is not None and len(queue) >= self._most_waiting:
            raise QueueFullError
        self._queues[owner] = queue
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
        """Have the next one of those who wait take it."""
        self._free += 1
        if self._held[owner] == 1:
            del self._held[owner]
        else:
            self._held[owner] -= 1
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
    """Threads that projects share fairly.

    Args:
        name: of the threads.
        at_once: their number.
        each: those that work for one project.
        alone: thread for what keeps the interpreter's lock, one call at a time; None: these.
    """

    def __init__(
        self, name: str, at_once: int, *, each: int, alone: "Threads | None" = None
    ) -> None:
        self.alone = alone or self
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
        except RuntimeError:
            self._turns.give_back(owner)
            raise
        work.add_done_callback(lambda _: self._end(loop, owner))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Take nothing more; what is at work is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self.alone is not self:
            self.alone.close()

    def _end(self, loop: asyncio.AbstractEventLoop, owner: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._turns.give_back, owner)


_account: ContextVar[tuple[Threads, str] | None] = ContextVar("account", default=None)


@contextmanager
def on_account_of(owner: str, threads: Threads) -> Iterator[None]:
    """Have all that `in_thread` is asked for in this context done on a project's account.

    Args:
        owner: the project.
        threads: those that requests share.
    """
    token = _account.set((threads, owner))
    try:
        yield
    finally:
        _account.reset(token)


def owner_here() -> str:
    """Return the project on whose account this context works."""
    account = _account.get()
    return NOBODY if account is None else account[1]


async def in_thread(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function off the event loop, on the account of whoever sent the request.

    Use this where `asyncio.to_thread` would do: its threads are served in the order of asking, so
    that one caller's hundred calls are in the way of everybody's next.
    """
    account = _account.get()
    if account is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    threads, owner = account
    return await threads.run(owner, function, *args, **kwargs)


async def in_thread_alone(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function as `in_thread` does, but no two at a time: for the parsing of documents.

    It makes many objects and keeps the interpreter's lock: several at a time stop the event loop
    for seconds, and their objects are in memory together.
    """
    account = _account.get()
    call = partial(_forgetting, partial(function, *args, **kwargs))
    if account is None:
        return await asyncio.to_thread(call)
    threads, owner = account
    return await threads.alone.run(owner, call)


def _forgetting(call: Callable[[], _Result]) -> _Result:
    """Call a function; what it made is not kept by the error that it raises.

    A million objects would stay until the collector of cycles comes, which stops everybody. Neither
    does it come while they are made: it would look through all of them again and again.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return call()
    except BaseException as error:
        kept: BaseException | None = error
        while kept is not None:
            traceback.clear_frames(kept.__traceback__)
            kept = kept.__context__
        raise
    finally:
        if collecting:
            gc.enable()
