"""A thread that sends the deliveries that are due; any number of workers may have one."""

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import ssl
import threading
from collections import Counter
from importlib.metadata import version
from typing import Any

import httpcore

from models_store.errors import StoreError
from models_store.webhooks.addresses import is_public
from models_store.webhooks.deliveries import Deliveries, DueDelivery, Outcome

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_AT_ONCE = 8
_LEASE_S = 60.0
_TIMEOUT_S = 10.0
_FORGET_EVERY = 1800  # looks
_OK = range(200, 300)


class PrivateAddressError(httpcore.ConnectError):
    """Name of a host that stands for an address that is not public."""


class PublicNetwork(httpcore.NetworkBackend):
    """Network without addresses that only this machine or its network can reach.

    The address of the connection itself is looked at, before a byte is sent: a name that had
    another one a moment before changes nothing.
    """

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:  # noqa: ANN401  as httpcore has them
        """Connect, unless the address is not public."""
        stream = self._network.connect_tcp(*args, **options)
        address, *_ = stream.get_extra_info("server_addr")
        if not is_public(ipaddress.ip_address(address.partition("%")[0])):
            stream.close()
            raise PrivateAddressError("The host has an address that is not public.")
        return stream


class Sender:
    """A thread that sends what is due, a few at a time.

    Args:
        deliveries: Deliveries of all projects.
        private: True if http and addresses of private networks are allowed.
        timeout_s: Longest wait for a connection, or for bytes of it.
    """

    def __init__(
        self, deliveries: Deliveries, *, private: bool, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._deliveries = deliveries
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        self._connections = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_keepalive_connections=0,
            network_backend=None if private else PublicNetwork(),
        )
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()  # by project
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to send."""
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def stop(self) -> None:
        """Send no more; what is under way is tried again by others, if it does not end."""
        self._stopping.set()

    def send_due(self) -> list[threading.Thread]:
        """Begin to send deliveries that are due, as many as there are places."""
        with self._lock:
            busy = self._under_way.copy()
        taken = self._deliveries.take(_AT_ONCE - busy.total(), busy, lease_s=_LEASE_S)
        # Daemons: a worker that ends does not wait for the receivers of callers.
        begun = [threading.Thread(target=self._send, args=[due], daemon=True) for due in taken]
        with self._lock:
            self._under_way.update(due.project for due in taken)
        for thread in begun:
            thread.start()
        return begun

    def _run(self) -> None:
        looks = 0
        while not self._stopping.wait(_LOOK_S):
            try:
                self.send_due()
                if looks % _FORGET_EVERY == 0:
                    self._deliveries.forget()
                looks += 1
            except StoreError as error:
                log.warning("webhooks wait: %s", error)
            except Exception:  # all webhooks live on this
                log.exception("webhooks wait")

    def _send(self, due: DueDelivery) -> None:
        try:
            outcome = self._outcome(due)
            log.info(
                "webhook %s: attempt %d: %s", due.id, due.attempt, outcome.error or outcome.status
            )
            self._deliveries.end(due.id, due.attempt, outcome)
        except StoreError as error:
            log.warning("webhook %s is sent again: %s", due.id, error)
        finally:
            with self._lock:
                self._under_way -= Counter([due.project])

    def _outcome(self, due: DueDelivery) -> Outcome:
        """Send a delivery once; whatever goes wrong is its outcome, or it would never end."""
        try:
            status = self._status(due)
        except Exception as error:  # noqa: BLE001  it must not stay the first one in line
            return Outcome(error=_describe(error))
        if status not in _OK:
            return Outcome(status=status, error=f"The receiver answered {status}.")
        return Outcome(status=status)

    def _status(self, due: DueDelivery) -> int:
        content = {"type": due.event, "timestamp": due.created_at.isoformat(), "data": due.data}
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        now = int(due.taken_at.timestamp())
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "User-Agent": f"densityd/{version('densityd')}",
            "webhook-id": due.id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(due.secret, message_id=due.id, timestamp=now, body=body),
        }
        with self._connections.stream(
            "POST", due.url, headers=headers, content=body, extensions={"timeout": self._timeouts}
        ) as response:
            return response.status


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` of a delivery, as Standard Webhooks has it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _describe(error: Exception) -> str:
    """Return the reason why there is no response."""
    cause = error.__cause__ or error.__context__
    match error:
        case PrivateAddressError():
            return str(error)
        case httpcore.TimeoutException():
            return "The receiver did not answer in time."
        case httpcore.ConnectError() if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'the certificate is not valid'}."
        case httpcore.NetworkError():
            return f"The connection failed: {error}."
        case httpcore.ProtocolError():
            return "The receiver did not answer with HTTP."
        case _:
            log.error("a delivery cannot be sent", exc_info=error)
            return "The delivery cannot be sent."
