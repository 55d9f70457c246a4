"""A thread that sends the deliveries that are due."""

import http.client
import json
import logging
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from models_store.errors import StoreError
from models_store.webhooks.deliveries import Deliveries, DueDelivery, Outcome
from workers.webhooks.posting import RefusedAddressError, post
from workers.webhooks.signatures import sign

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_AT_ONCE = 4
_LEASE_S = 60.0
_FORGET_S = 3600.0
_OK = range(200, 300)


class Sender:
    """A thread that sends what is due, a few at a time; any number of workers may have one.

    Args:
        deliveries: Deliveries of all projects.
        private: True if http and addresses of private networks are allowed.
        look_s: Seconds between two looks.
    """

    def __init__(self, deliveries: Deliveries, *, private: bool, look_s: float = _LOOK_S) -> None:
        self._deliveries = deliveries
        self._private = private
        self._look_s = look_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; what is under way is tried again by others, if it does not end."""
        self._stopping.set()

    def send_due(self) -> int:
        """Send the oldest delivery of each webhook that is due, and return their number."""
        taken = self._deliveries.take(limit=_AT_ONCE, lease_s=_LEASE_S)
        if taken:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook") as pool:
                list(pool.map(self._send, taken))
        return len(taken)

    def _run(self) -> None:
        forget_at = 0.0
        while not self._stopping.is_set():
            sent = 0
            try:
                sent = self.send_due()
                if time.monotonic() >= forget_at:
                    self._deliveries.forget()
                    forget_at = time.monotonic() + _FORGET_S
            except StoreError as error:
                log.warning("webhooks wait: %s", error)
            except Exception:  # all webhooks live on this
                log.exception("webhooks wait")
            if not sent:
                self._stopping.wait(self._look_s)

    def _send(self, due: DueDelivery) -> None:
        outcome = self._attempt(due)
        log.info("webhook %s: attempt %d: %s", due.id, due.attempt, outcome.error or outcome.status)
        self._deliveries.end(due.id, due.attempt, outcome)

    def _attempt(self, due: DueDelivery) -> Outcome:
        """Send a delivery once."""
        content = {"type": due.event, "timestamp": due.created_at.isoformat(), "data": due.data}
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"densityd/{version('densityd')}",
            "webhook-id": due.id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(due.secret, message_id=due.id, timestamp=now, body=body),
        }
        try:
            status = post(due.url, body, headers, private=self._private)
        except (RefusedAddressError, OSError, http.client.HTTPException) as error:
            return Outcome(error=_describe(error))
        if status not in _OK:
            return Outcome(status=status, error=f"The receiver answered {status}.")
        return Outcome(status=status)


def _describe(error: Exception) -> str:
    """Return the reason why there is no response."""
    match error:
        case RefusedAddressError():
            return "The host has an address that is not public."
        case ssl.SSLError():
            return f"TLS failed: {error.reason or 'the certificate is not valid'}."
        case TimeoutError():
            return "The receiver did not answer in time."
        case OSError():
            return f"The connection failed: {error.strerror or 'there is no such host'}."
        case _:
            return "The receiver did not answer with HTTP."
