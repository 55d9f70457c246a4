"""A caller who starts jobs over HTTP, and does not give up while the service is unavailable."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

MODEL = "chaos"
SWEEP, SEARCH, SAMPLING, SCORING = 4, 5, 6, 7
"""Requests beside the trainings of each seed below; the work of all but the last is done by children."""

_EPOCHS = (6, 6, 6, 40)  # of the trainings, by seed
_SHARES = (3, 3, 3, 3, 2, 1, 2, 2)
_DRAWN_ROWS = 17_000
_WAITING = 8
_CANCELS, _RESUMES = 0.1, 0.06
_SCORED = {"rows": [[0.5, -1.0, 0.25], [2.0, 0.0, -3.0]]}


@dataclass
class Accepted:
    """What the service promised by its answers.

    Attributes:
        seeds: which request each job is of, by its id.
        cancelled: jobs that the caller asked to cancel.
        scores: answers for one table by each version that was asked.
        requests: how many times a job was asked for, repetitions included.
        replays: how many of the answers were those of an earlier request.
        answers: how many answers of each status there were; 0: those that were lost.
    """

    seeds: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    scores: dict[int, set[bytes]] = field(default_factory=dict)
    requests: int = 0
    replays: int = 0
    answers: Counter[int] = field(default_factory=Counter)


class Caller:
    """Starts jobs in a thread of its own, a few more than can run at a time, and scores rows meanwhile.

    Args:
        url: Address of the service.
        jobs: how many to start.
        random_: what it does besides.

    Attributes:
        accepted: What the service promised.
        dataset_id: The one table, of all jobs.
        final: Number of jobs that have ended, which another thread sees.
    """

    def __init__(self, url: str, *, jobs: int, random_: random.Random) -> None:
        self.accepted = Accepted()
        self.dataset_id = ""
        self.final = 0
        self._http = httpx.Client(base_url=url, timeout=10)
        self._jobs = jobs
        self._random = random_
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Upload a table, then start jobs."""
        rows = np.random.default_rng(0).normal(size=(400, 3))
        lines = ["a,b,c", *(",".join(map(repr, row)) for row in rows.tolist())]
        answer = self._until_answered(
            "/v1/datasets",
            content="\n".join(lines),
            headers={"Content-Type": "text/csv", "Idempotency-Key": "the-table"},
        )
        self.dataset_id = answer.json()["id"]
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether every job was accepted."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Start no more."""
        self._stopping.set()
        self._thread.join()

    def look_again(self, versions: int) -> None:
        """Score the rows by each version once more when nothing is disturbed any longer."""
        for number in range(1, versions + 1):
            while number not in self.accepted.scores:
                self._score(number)
        self._http.close()

    def _run(self) -> None:
        while len(self.accepted.seeds) < self._jobs and not self._stopping.is_set():
            if len(self.accepted.seeds) - self.final < _WAITING:
                self._start_one(f"key-{len(self.accepted.seeds)}")
                self._change_mind()
            self._score(1)
            time.sleep(0.1)

    def _start_one(self, key: str) -> None:
        """Ask for a job, some twice; the key makes all of that one request."""
        [seed] = self._random.choices(range(len(_SHARES)), _SHARES)
        path, body = self._request(seed)
        for _ in range(self._random.choice([1, 1, 2])):
            answer = self._until_answered(path, json=body, headers={"Idempotency-Key": key})
            if answer.status_code == httpx.codes.NOT_FOUND:  # the first version is not there yet
                return
            self.accepted.replays += "idempotent-replayed" in answer.headers
            self.accepted.seeds[answer.json()["id"]] = seed

    def _request(self, seed: int) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request."""
        if seed == SAMPLING:
            body = {"model": f"{MODEL}:1", "n": _DRAWN_ROWS, "seed": 1, "output": "csv"}
            return "/v1/jobs/sampling", body
        if seed == SCORING:
            scored = {"model": f"{MODEL}:1", "dataset_id": self.dataset_id, "output": "npy"}
            return "/v1/jobs/scoring", scored
        epochs = _EPOCHS[seed] if seed < len(_EPOCHS) else 6
        body = {
            "model_name": MODEL,
            "dataset_id": self.dataset_id,
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
            return "/v1/jobs/sweep", body | {
                "ranges": ranges,
                "trials": 2,
                "reduction": 2,
                "seed": 1,
            }
        if seed == SEARCH:
            body |= {"flow": {"family": "auto", "ensemble": 2}, "quality": "fast"}
        return "/v1/jobs/training", body

    def _change_mind(self) -> None:
        """Now and then cancel a job, and resume one that was cancelled."""
        if self.accepted.seeds and self._random.random() < _CANCELS:
            job_id = self._random.choice(list(self.accepted.seeds)[-_WAITING:])
            self.accepted.cancelled.add(job_id)
            self._ask(f"/v1/jobs/{job_id}/cancel")
        if self.accepted.cancelled and self._random.random() < _RESUMES:
            self._ask(f"/v1/jobs/{self._random.choice(sorted(self.accepted.cancelled))}/resume")

    def _score(self, version: int) -> None:
        answer = self._ask(f"/v1/models/{MODEL}:{version}/log_prob", json=_SCORED)
        if answer is not None and answer.is_success:
            self.accepted.scores.setdefault(version, set()).add(answer.content)

    def _until_answered(self, path: str, **arguments: Any) -> httpx.Response:
        """Ask until there is an answer of success, or that something is not found.

        Raises:
            RuntimeError: The request is wrong.
        """
        while True:
            self.accepted.requests += 1
            answer = self._ask(path, **arguments)
            if answer is not None and (
                answer.is_success or answer.status_code == httpx.codes.NOT_FOUND
            ):
                return answer
            full = answer is not None and answer.status_code == httpx.codes.TOO_MANY_REQUESTS
            if answer is not None and answer.is_client_error and not full:
                raise RuntimeError(answer.text)
            time.sleep(0.3)

    def _ask(self, path: str, **arguments: Any) -> httpx.Response | None:
        """Send a request once; None if its answer was lost."""
        try:
            answer = self._http.post(path, **arguments)
        except httpx.HTTPError:
            self.accepted.answers[0] += 1
            return None
        self.accepted.answers[answer.status_code] += 1
        return answer
