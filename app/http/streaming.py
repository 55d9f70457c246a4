"""Callers who leave before they have their response."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

_Result = TypeVar("_Result")


async def _disconnected(receive: Receive) -> None:
    """Wait until the caller has left; the request body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_disconnected(receive: Receive, work: Awaitable[_Result]) -> _Result:
    """Return the result of `work`, which is cancelled when the caller leaves.

    Raises:
        ClientDisconnect: The caller has left.
    """
    gone = asyncio.create_task(_disconnected(receive))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
