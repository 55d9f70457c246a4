"""Connections between the parts of a service, each through a proxy that can be told to fail."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

_PIECE = 64 * 1024


class Link:
    """A TCP port whose connections continue to a Unix socket or to another port, unless they are cut.

    A fault has begun when its method returns; it ends by itself. Made by `Network.link`.

    Args:
        target: Path of a Unix socket, or a port on this machine.
        loop: Event loop that serves it, in another thread.
    """

    def __init__(self, target: Path | int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self.connections = 0
        self._target = target
        self._loop = loop
        self._pairs: set[_Pair] = set()
        self._flows = asyncio.Event()
        self._open = True
        self._swallows = False

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._cut)

    def refuse(self, seconds: float) -> None:
        """Reset every connection, and each new one for so long."""
        self._do(partial(setattr, self, "_open", False), self._cut)
        self._later(seconds, partial(setattr, self, "_open", True))

    def stall(self, seconds: float) -> None:
        """Pass nothing on for so long, in neither direction; then all that waited."""
        self._do(self._flows.clear)
        self._later(seconds, self._flows.set)

    def lose_answers(self, seconds: float) -> None:
        """Pass on what is asked, drop what is answered, and reset every connection after so long."""
        self._do(partial(setattr, self, "_swallows", True))
        self._later(seconds, self._cut, partial(setattr, self, "_swallows", False))

    def close_half(self) -> None:
        """Tell whoever asks that no more answers come; what they ask is still passed on."""
        self._do(self._close_half)

    async def start(self) -> None:
        """Listen."""
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and reset every connection."""
        self._open = False
        self._server.close()
        self._cut()

    def _do(self, *steps: Callable[[], object]) -> None:
        async def all_steps() -> None:
            for step in steps:
                step()

        asyncio.run_coroutine_threadsafe(all_steps(), self._loop).result()

    def _later(self, seconds: float, *steps: Callable[[], object]) -> None:
        for step in steps:
            self._do(partial(self._loop.call_later, seconds, step))

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    def _close_half(self) -> None:
        for pair in list(self._pairs):
            pair.close_half()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._open:
                raise ConnectionResetError
            if isinstance(self._target, Path):
                far = await asyncio.open_unix_connection(self._target)
            else:
                far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        pair = _Pair(writer, far[1])
        self._pairs.add(pair)
        try:
            with suppress(asyncio.CancelledError):  # the network is closed
                await asyncio.gather(
                    self._pump(reader, far[1], answers=False),
                    self._pump(far[0], writer, answers=True),
                )
        finally:
            self._pairs.discard(pair)
            pair.reset()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError, RuntimeError):  # RuntimeError: its end was told already
            while data := await reader.read(_PIECE):
                await self._flows.wait()
                if answers and self._swallows:
                    continue
                writer.write(data)
                await writer.drain()
            writer.write_eof()


class _Pair:
    """The two connections of one that passes through."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._near = near
        self._far = far

    def reset(self) -> None:
        self._near.transport.abort()
        self._far.transport.abort()

    def close_half(self) -> None:
        with suppress(OSError, RuntimeError):
            self._near.write_eof()


class Network:
    """Links, and the event loop in a thread that serves them."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def link(self, name: str, target: Path | int) -> Link:
        """Open a port that leads to a target, which need not be there yet."""
        link = Link(target, self._loop)
        asyncio.run_coroutine_threadsafe(link.start(), self._loop).result()
        self.links[name] = link
        return link

    def close(self) -> None:
        """End every connection, and the thread."""
        for link in self.links.values():
            asyncio.run_coroutine_threadsafe(link.close(), self._loop).result()
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settle(self) -> None:
        """End what is still under way."""
        others = asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
