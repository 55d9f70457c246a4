"""A caller who starts jobs over HTTP, and does not give up while the service is unavailable."""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.chaos.asking import Asking, one_job

MODEL = "chaos"
EPOCHS = (6, 6, 6, 40)  # by seed
SWEEP, SEARCH, SAMPLING = 4, 5, 6
"""Further requests: their work is done by children."""

_SHARES = (3, 3, 3, 3, 2, 1, 2)
PART_ROWS, _DRAWN_ROWS = 5_000, 17_000
MAX_QUEUED = 6
FULL = httpx.codes.TOO_MANY_REQUESTS
_WAITING = 8
_CANCELS = 0.1
_RESUMES = 0.6


@dataclass
class Accepted:
    """What the service promised: the jobs it answered 202 for.

    Attributes:
        seeds: the seed of each job, by its id.
        requests: how many times a job was asked for, repetitions included.
        replays: how many of the answers were those of an earlier request.
        cancelled: jobs that the caller asked to cancel.
    """

    seeds: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    replays: int = 0
    cancelled: set[str] = field(default_factory=set)


class Caller:
    """Starts jobs in a thread of its own, a few more than can run at a time.

    Args:
        asking: The service.
        jobs: how many to start.
        random_: what it does besides.
    """

    def __init__(self, asking: Asking, *, jobs: int, random_: random.Random) -> None:
        self.accepted = Accepted()
        self.final = 0
        self._jobs = jobs
        self._random = random_
        self._asking = asking
        self._dataset_id = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Upload a table, then start jobs."""
        self._dataset_id = self._upload()
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether every job was accepted."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Start no more."""
        self._stopping.set()
        self._thread.join()

    def _upload(self) -> str:
        rows = np.random.default_rng(0).normal(size=(400, 3))
        lines = ["a,b,c", *(",".join(map(repr, row)) for row in rows.tolist())]
        while True:
            answer = self._asking.ask(
                ("upload", "the table"),
                ("POST", "/v1/datasets"),
                said=lambda answer: {"id": answer.json()["id"]},
                content="\n".join(lines),
                headers={"Content-Type": "text/csv", "Idempotency-Key": "the-table"},
            )
            if answer is not None and answer.is_success:
                return str(answer.json()["id"])
            time.sleep(0.3)

    def _run(self) -> None:
        while len(self.accepted.seeds) < self._jobs and not self._stopping.is_set():
            if len(self.accepted.seeds) - self.final < _WAITING:
                self._start_one(f"key-{len(self.accepted.seeds)}")
                self._change_mind()
            time.sleep(0.1)

    def _start_one(self, key: str) -> None:
        seed = self._random.choices(range(len(_SHARES)), _SHARES)[0]
        for _ in range(self._random.choice([1, 1, 2])):
            job_id = self._ask(key, *self._request(seed))
            if job_id is not None:
                self.accepted.seeds[job_id] = seed

    def _request(self, seed: int) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request."""
        if seed == SAMPLING:
            body = {"model": f"{MODEL}:1", "n": _DRAWN_ROWS, "seed": 1, "output": "csv"}
            return "/v1/jobs/sampling", body
        epochs = EPOCHS[seed] if seed < len(EPOCHS) else 6
        body = {
            "model_name": MODEL,
            "dataset_id": self._dataset_id,
            "flow": {"family": "realnvp", "layers": 2, "hidden": [8]},
            "optimisation": {
                "max_epochs": epochs,
                "patience": epochs,
                "batch_size": 40,
                "seed": seed,
            },
        }
        if seed == SWEEP:
            ranges = {"optimisation.learning_rate": {"values": [1e-3, 1e-2]}}
            more = {"ranges": ranges, "trials": 2, "reduction": 2, "seed": 1}
            return "/v1/jobs/sweep", body | more
        if seed == SEARCH:
            body |= {"flow": {"family": "auto", "ensemble": 2}, "quality": "fast"}
        return "/v1/jobs/training", body

    def _ask(self, key: str, path: str, body: dict[str, Any]) -> str | None:
        """Ask until the answer is 202; the key makes all that one request.

        Returns:
            None: it samples from a version that is not there yet.
        """
        while True:
            self.accepted.requests += 1
            answer = self._asking.ask(
                ("submit", key),
                ("POST", path),
                said=one_job,
                json=body,
                headers={"Idempotency-Key": key},
            )
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                self.accepted.replays += "idempotent-replayed" in answer.headers
                return str(answer.json()["id"])
            if answer is not None and answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer is not None and answer.is_client_error and answer.status_code != FULL:
                raise RuntimeError(answer.text)
            time.sleep(0.3)

    def _change_mind(self) -> None:
        """Now and then cancel a job, and resume one that was cancelled."""
        if self._random.random() < _CANCELS:
            job_id = self._random.choice(list(self.accepted.seeds)[-_WAITING:])
            self.accepted.cancelled.add(job_id)
            self._change("cancel", job_id)
        if self.accepted.cancelled and self._random.random() < _CANCELS * _RESUMES:
            self._change("resume", self._random.choice(sorted(self.accepted.cancelled)))

    def _change(self, action: str, job_id: str) -> None:
        self._asking.ask((action, job_id), ("POST", f"/v1/jobs/{job_id}/{action}"), said=one_job)
