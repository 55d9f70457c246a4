"""The record of changes: who did what to which thing, one log line each."""

import logging

from starlette.types import Message, Scope as AsgiScope, Send

from app.callers import Caller

log = logging.getLogger(__name__)

_MAX_PATH = 200


def audited(send: Send, scope: AsgiScope, caller: Caller) -> Send:
    """Wrap `send`: log a change when its answer begins, unless it was refused.

    An answer of 500 and more is logged, too: some of the change may have happened.
    """

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and not 400 <= message["status"] < 500:
            _record(message, scope, caller)
        await send(message)

    return sending


def _record(message: Message, scope: AsgiScope, caller: Caller) -> None:
    operation = getattr(scope.get("route"), "operation_id", None) or scope["method"]
    headers = dict(message.get("headers", ()))
    resource = headers.get(b"location", b"").decode("latin-1") or scope["path"][:_MAX_PATH]
    log.info(
        "%s %s answered %d",
        operation,
        resource,
        message["status"],
        extra={
            "audit": operation,
            "resource": resource,
            "status": message["status"],
            "project": caller.project,
            "key_id": caller.key_id or "none",
        },
    )
