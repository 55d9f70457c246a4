"""Turns at scarce resources, such as threads, shared fairly by projects."""

import asyncio
import traceback
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import ref

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

NOBODY = ""
"""Owner of work that belongs to no project."""


MOST_DESCRIBED_BYTES = 2**16
"""Most bytes that describe a small resource; what is made of them is some times as much."""


class QueueFullError(Exception):
    """Too many callers of one owner wait."""


class Turns:
    """Bounded number of holders of a resource, shared fairly by owners.

    Waiting callers are served in turn by owner, and within one owner in order of arrival: an owner
    with many of them delays itself, not others. Who gives a turn back is behind all who wait then.
    Belongs to one event loop.

    Args:
        at_once: Most holders at once.
        each: Most holders of one owner.
        waiting: Most waiting callers of one owner; None if something else bounds them.
    """

    def __init__(self, at_once: int, *, each: int, waiting: int | None = None) -> None:
        self._free = at_once
        self._each = each
        self._most_waiting = waiting
        self._held: dict[str, int] = {}
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Hold a turn until the end of the context.

        Raises:
            QueueFullError: Too many callers of the owner wait.
        """
        if not self.take_now(owner):
            await self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    def take_now(self, owner: str) -> bool:
        """Take a free turn, unless that would pass over another caller."""
        if not self.is_free(owner):
            return False
        self._free -= 1
        self._held[owner] = self._held.get(owner, 0) + 1
        return True

    def is_free(self, owner: str) -> bool:
        """Return whether the owner need not wait for a turn."""
        held = self._held.get(owner, 0)
        return self._free > 0 and held < self._each and owner not in self._queues

    async def take(self, owner: str) -> None:
        """Take a turn, or wait for one.

        Raises:
            QueueFullError: Too many callers of the owner wait.
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
        alone: Pool of one thread for work that keeps the interpreter's lock; None for this pool.
        cells: Pool of one thread for pieces of such work that take milliseconds; None for this pool.
        files: Pool of one thread for pieces of large files; None for this pool.

    Attributes:
        pieces: Turns at pieces of long work on the event loop; see `loop_turn`.
    """

    def __init__(
        self,
        name: str,
        at_once: int,
        *,
        each: int,
        alone: "Threads | None" = None,
        cells: "Threads | None" = None,
        files: "Threads | None" = None,
    ) -> None:
        self.alone, self.cells, self.files = alone or self, cells or self, files or self
        self.pieces = Turns(1, each=1)
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

        Raises:
            RuntimeError: No thread can be started; the function is not called later either.
        """
        await self._turns.take(owner)
        loop = asyncio.get_running_loop()
        call: Callable[[], _Result] = partial(
            copy_context().run, partial(function, *args, **kwargs)
        )
        work: Future[_Result] = Future()
        try:
            self._pool.submit(_do, [(work, call)]).add_done_callback(partial(_drop, ref(work)))
        except RuntimeError:
            if work.cancel():  # it stays in the queue of the pool; another thread may have begun it
                self._turns.give_back(owner)
                raise
        work.add_done_callback(lambda _: self._end(loop, owner))
        try:
            return await asyncio.wrap_future(work)
        finally:
            del work  # an error refers to this frame, and must not find itself in it

    def is_free(self, owner: str) -> bool:
        """Return whether the owner need not wait for a thread."""
        return self._turns.is_free(owner)

    def close(self) -> None:
        """Accept no more calls, and do not wait for running ones."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self.alone, self.cells, self.files):
            if pool is not self:
                pool.close()

    def _end(self, loop: asyncio.AbstractEventLoop, owner: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._turns.give_back, owner)


def _do(held: "list[tuple[Future[_Result], Callable[[], _Result]]]") -> None:
    work, call = held.pop()  # the pool keeps its arguments, and an error the pool's frame
    if not work.set_running_or_notify_cancel():
        return
    try:
        work.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
        work.set_exception(error)
        del work  # an error refers to this frame, and must not find itself in it


def _drop(work: "ref[Future[Any]]", _queued: "Future[None]") -> None:
    waiting = work()
    if waiting is not None:
        waiting.cancel()  # unless it was begun: the pool is closed


_account: ContextVar[tuple[Threads, str] | None] = ContextVar("account", default=None)


@contextmanager
def on_account_of(owner: str, threads: Threads) -> Iterator[None]:
    """Have the calls of `in_thread` in this context count as those of a project.

    Args:
        owner: Project that the calls belong to.
        threads: Pool of threads that requests share.
    """
    token = _account.set((threads, owner))
    try:
        yield
    finally:
        _account.reset(token)


def owner_here() -> str:
    """Return the project that this context works for."""
    account = _account.get()
    return NOBODY if account is None else account[1]


@asynccontextmanager
async def loop_turn() -> AsyncIterator[None]:
    """Hold the turn at a piece of long work on the event loop until its next iteration.

    An iteration has one piece, of whichever request: with one of each of fifty requests it would last as
    long as all of them, for everybody. Projects take turns, and so do the requests of one.
    """
    account = _account.get()
    if account is None:
        yield
        await asyncio.sleep(0)
        return
    threads, owner = account
    async with threads.pieces.turn(owner):
        yield
        await asyncio.sleep(0)


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


async def in_thread_alone(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function as `in_thread` does, but one at a time: for the parsing of documents.

    Parsing makes many objects and keeps the interpreter's lock: several calls at once would stop
    the event loop for seconds, with their objects in memory together.
    """
    account = _account.get()
    call = partial(forgetting, partial(function, *args, **kwargs))
    if account is None:
        return await asyncio.to_thread(call)
    threads, owner = account
    return await threads.alone.run(owner, call)


async def in_thread_for(
    described_bytes: int,
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function off the event loop that reads or makes the description of a resource.

    Of thousands of columns, one of all projects is made at a time.

    Args:
        described_bytes: Bytes that describe the resource.
        function: Function to call.
        args: Positional arguments of the function.
        kwargs: Keyword arguments of the function.
    """
    run = in_thread if described_bytes <= MOST_DESCRIBED_BYTES else in_thread_alone
    return await run(function, *args, **kwargs)


async def in_thread_of_cells(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function as `in_thread` does, but one at a time: for pieces of text, and of cells that are objects.

    They keep the interpreter's lock for milliseconds each, for which the event loop waits before each of
    its steps: with one thread of them it waits for one, with those of three projects for six.
    """
    account = _account.get()
    if account is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    threads, owner = account
    return await threads.cells.run(owner, function, *args, **kwargs)


async def in_thread_of_files(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function as `in_thread_of_cells` does, for pieces of large files: a few rows do not wait for them.

    A piece may take a second where nearly all rows of a file have fewer values than its header.
    """
    account = _account.get()
    if account is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    threads, owner = account
    return await threads.files.run(owner, function, *args, **kwargs)


def forgetting(call: Callable[[], _Result]) -> _Result:
    """Call a function; what it made is not kept by the error that it raises.

    A million objects would stay until the collector of cycles comes, or go where the error is answered,
    on the event loop: both stop everybody.
    """
    try:
        return call()
    except BaseException as error:
        kept: BaseException | None = error
        while kept is not None:
            traceback.clear_frames(kept.__traceback__)
            kept = kept.__context__
        raise
