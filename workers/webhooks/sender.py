"""A thread that sends the deliveries that are due."""

import http.client
import json
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from models_store.errors import StoreError
from models_store.webhooks.deliveries import Deliveries, DueDelivery, Outcome, Waiting
from workers.webhooks.posting import RefusedAddressError, post
from workers.webhooks.signatures import sign

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_AT_ONCE = 8
_OF_A_PROJECT = 2
_LEASE_S = 60.0
_FORGET_S = 3600.0
_REST_S = 0.1  # of a place after a failed attempt
_OK = range(200, 300)


class Sender:
    """A thread that sends what is due, a few at a time; any number of workers may have one.

    Projects take turns, and so do the webhooks of one; the slow receivers of a project keep but a few
    of the places, and those that refuse at once keep theirs a while: each attempt writes to the database.

    Args:
        deliveries: Deliveries of all projects.
        private: True if http and addresses of private networks are allowed.
        look_s: Seconds between two looks.
    """

    def __init__(self, deliveries: Deliveries, *, private: bool, look_s: float = _LOOK_S) -> None:
        self._deliveries = deliveries
        self._private = private
        self._look_s = look_s
        self._turns = _Turns()
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; what is under way is tried again by others, if it does not end."""
        self._stopping.set()
        self._look.set()

    def send_due(self) -> int:
        """Send deliveries that are due, as many as there are places, and return their number."""
        begun = self._begin()
        for thread in begun:
            thread.join()
        return len(begun)

    def _begin(self) -> list[threading.Thread]:
        """Begin to send what is due."""
        taken = self._deliveries.take(self._turns.choose, lease_s=_LEASE_S)
        return [begun for due in taken if (begun := self._begin_one(due)) is not None]

    def _begin_one(self, due: DueDelivery) -> threading.Thread | None:
        """Begin to send a delivery; None: no thread can be started, and it is sent once its lease has ended."""
        # A daemon: a worker that ends does not wait for the receivers of callers.
        thread = threading.Thread(target=self._send, args=[due], name="webhook", daemon=True)
        self._turns.begin(due)
        try:
            thread.start()
        except RuntimeError as error:
            self._turns.end(due)
            log.warning("webhook %s is sent later: %s", due.id, error)
            return None
        return thread

    def _run(self) -> None:
        forget_at = 0.0
        while not self._stopping.is_set():
            self._look.clear()
            try:
                self._begin()
                if time.monotonic() >= forget_at:
                    self._deliveries.forget()
                    forget_at = time.monotonic() + _FORGET_S
            except StoreError as error:
                log.warning("webhooks wait: %s", error)
            except Exception:  # all webhooks live on this
                if not self._stopping.is_set():
                    log.exception("webhooks wait")
            self._look.wait(self._look_s)

    def _send(self, due: DueDelivery) -> None:
        try:
            outcome = self._outcome(due)
            log.info(
                "webhook %s: attempt %d: %s", due.id, due.attempt, outcome.error or outcome.status
            )
            self._deliveries.end(due.id, due.attempt, outcome)
            if outcome.error is not None:
                self._stopping.wait(_REST_S)
        except StoreError as error:
            log.warning("webhook %s is sent again: %s", due.id, error)
        finally:
            self._turns.end(due)
            self._look.set()

    def _outcome(self, due: DueDelivery) -> Outcome:
        """Send a delivery once; whatever goes wrong is its outcome, or it would never end."""
        try:
            return self._attempt(due)
        except Exception:  # it must not stay the first one in line
            log.exception("webhook %s cannot be sent", due.id)
            return Outcome(error="The delivery cannot be sent.")

    def _attempt(self, due: DueDelivery) -> Outcome:
        """Send a delivery once."""
        content = {"type": due.event, "timestamp": due.created_at.isoformat(), "data": due.data}
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        now = int(due.taken_at.timestamp())
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
        case OSError() if not isinstance(error, http.client.HTTPException):
            return f"The connection failed: {error.strerror or 'there is no such host'}."
        case _:  # a connection that ended before the response, too, which is both
            return "The receiver did not answer with HTTP."


class _Turns:
    """Turns of projects and of their webhooks: those that were served longest ago come first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._count = 0
        self._served: dict[str, int] = {}

    def choose(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """Choose what is sent next, as far as there are places."""
        known = {name for one in waiting for name in (one.project, one.webhook_id)}
        with self._lock:
            self._served = {name: at for name, at in self._served.items() if name in known}
            served, under_way = self._served.copy(), self._under_way.copy()
        by_age = sorted(waiting, key=lambda one: served.get(one.webhook_id, 0))
        rounds = []
        for one in by_age:
            if under_way[one.project] < _OF_A_PROJECT:
                rounds.append((under_way[one.project], served.get(one.project, 0), one))
                under_way[one.project] += 1
        free = _AT_ONCE - self._under_way.total()
        return [one for *_, one in sorted(rounds, key=lambda found: found[:2])[:free]]

    def begin(self, due: DueDelivery) -> None:
        """Note that a delivery is sent."""
        with self._lock:
            self._count += 1
            self._under_way[due.project] += 1
            self._served[due.project] = self._served[due.webhook_id] = self._count

    def end(self, due: DueDelivery) -> None:
        """Note that a delivery is sent no longer."""
        with self._lock:
            self._under_way -= Counter([due.project])
