"""Audit of changes: a row in the transaction of a change, and a line in the log when it is answered."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope as AsgiScope, Send

from app.http.exchange import Exchange
from models_store.database.changes import Change, auditing

log = logging.getLogger("app.audit")

_MAX_PATH = 200


class AuditedApp:
    """Application whose changes are noted: a change without its row in the trail is none.

    The line in the log also tells the status of the response, and what it created.
    """

    def __init__(self, app: ASGIApp, exchange: Exchange) -> None:
        self._app = app
        self._exchange = exchange

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = self._exchange.caller
        change = Change(
            project=self._exchange.project,
            key_id=None if caller is None else caller.key_id,
            action=scope["method"],
            resource=scope["path"][:_MAX_PATH],
            request_id=self._exchange.request_id,
        )

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and change.noted:
                _log(scope, change, message)
            await send(message)

        with auditing(change):
            await self._app(scope, receive, sending)


def _log(scope: AsgiScope, change: Change, answer: Message) -> None:
    operation = getattr(scope.get("route"), "operation_id", None) or change.action
    location = dict(answer.get("headers", ())).get(b"location", b"").decode("latin-1")
    resource = location or change.resource
    fields = {
        "audit": operation,
        "resource": resource,
        "status": answer["status"],
        "project": change.project,
        "key_id": change.key_id or "none",
        "request_id": change.request_id,
    }
    log.info("%s %s answered %d", operation, resource, answer["status"], extra=fields)
