"""Callers who leave before they have their response."""

from starlette.types import Receive


async def disconnected(receive: Receive) -> None:
    """Wait until the caller has left; the request body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
