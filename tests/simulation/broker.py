"""The queue: messages that get lost, come late, twice, or not at all."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tests.simulation.kernel import Kernel, Wait

_LATEST_S = 3.0


class Broker:
    """One list of messages.

    Args:
        kernel: time and chance.
        loss: share of the messages that vanish.
    """

    def __init__(self, kernel: Kernel, *, loss: float) -> None:
        self.away_until = 0.0
        self._kernel = kernel
        self._loss = loss
        self._messages: list[str] = []
        self._waiting: list[Wait] = []

    @property
    def away(self) -> bool:
        """Whether it does not answer."""
        return self._kernel.now < self.away_until

    def __len__(self) -> int:
        return len(self._messages)

    def send(self, job_id: str) -> None:
        """Take a message, and do with it what networks do."""
        chance = self._kernel.random
        if chance.random() < self._loss:
            return
        copies = 2 if self._loss and chance.random() < self._loss else 1
        for _ in range(copies):
            late = self._loss and chance.random() < self._loss
            self._messages.insert(chance.randint(0, len(self._messages)) if late else 0, job_id)
        for wait in self._waiting:
            self._kernel.wake(wait)
        self._waiting.clear()

    def wipe(self) -> None:
        """Lose everything."""
        self._messages.clear()

    def receive(self) -> str:
        """Take the oldest message, once there is one."""
        while self.away or not self._messages:
            self._waiting.append(self._kernel.here())
            self._kernel.wait(max(0.5, self.away_until - self._kernel.now) if self.away else None)
        return self._messages.pop()

    def as_client(self) -> Any:
        """Return a `BrokerClient` of the product."""
        return SimpleNamespace(
            errors=(ConnectionError,),
            send=self._send,
            count_queued=self._count,
            close=lambda: None,
        )

    def _send(self, job_ids: Sequence[str], _headers: Mapping[str, str]) -> None:
        for job_id in job_ids:
            self._check()
            self.send(job_id)

    def _count(self) -> int:
        self._check()
        return len(self)

    def _check(self) -> None:
        self._kernel.sleep(self._kernel.random.uniform(0, 0.01))
        if self.away:
            raise ConnectionError("the broker is unavailable")
