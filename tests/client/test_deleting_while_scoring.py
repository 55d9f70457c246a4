"""Deletions of versions that are scored meanwhile: whole and right answers, or none."""

import io
import threading
from collections import Counter

import httpx
import numpy as np
from numpy.typing import NDArray

from densityd.client import Client
from models_store.jobs.leases import JobWork
from tests.api.serving import registered
from tests.client.conftest import Service
from tests.store.makers import LEASE_S
from tests.tables.files import npy

NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
MODEL = "racing"
_VERSIONS, _READERS, _ANSWERS = 5, 4, 10


class Readers:
    """Threads that score versions until they are asked to stop.

    Attributes:
        statuses: Number of answers by status.
        wrong: Texts of answers that should not be.
        answered: Counter of the answers, released once for each.
    """

    def __init__(self, url: str, rows: NDArray[np.float64], known: dict[str, list[float]]) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.answered = threading.Semaphore(0)
        self._url, self._rows, self._known = url, rows, known
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(n,)) for n in range(_READERS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, number: int) -> None:
        refs = [f"{MODEL}:{version}" for version in range(1, _VERSIONS + 1)] + [MODEL]
        body = npy(self._rows) if number % 2 else None
        with httpx.Client(base_url=self._url, timeout=120) as client:
            turn = number
            while not self._stop.is_set():
                path = f"/v1/models/{refs[turn % len(refs)]}/log_prob"
                turn += 1
                if body is None:
                    answer = client.post(path, json={"rows": self._rows.tolist()})
                else:
                    answer = client.post(path, content=body, headers=NPY)
                self._note(answer)

    def _note(self, answer: httpx.Response) -> None:
        self.statuses[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            known = self._known[answer.headers["X-Model"]]
            binary = answer.headers["Content-Type"] == NPY["Accept"]
            found = np.load(io.BytesIO(answer.content)) if binary else answer.json()["log_prob"]
            if not np.allclose(found, known, rtol=1e-5):
                self.wrong.append(f"{answer.headers['X-Model']}: {found}")
        elif answer.status_code != httpx.codes.NOT_FOUND:
            self.wrong.append(answer.text)
        self.answered.release()


def test_versions_are_deleted_while_they_are_scored(service: Service) -> None:
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], (200, 3))
    with Client(service.url) as client:
        before = client.usage().stored_bytes.used
        made = [
            registered(service.database, service.blobs, name=MODEL, seed=seed)
            for seed in range(_VERSIONS)
        ]
        files = [service.blobs.open(one.checkpoint_key, one.checkpoint_sha256) for one in made]
        known = {one.ref: client.log_prob(one.ref, rows).tolist() for one in made}
        sampling = client.jobs.sample(f"{MODEL}:1", 10)
        work = JobWork(service.database)
        held = work.claim("tester", lease_s=LEASE_S)
        assert held is not None
        assert held.id == sampling.id
        readers = Readers(service.url, rows, known)
        try:
            url = f"{service.url}/v1/models/{MODEL}/versions"
            refused = httpx.delete(f"{url}/1", timeout=60)
            assert (refused.status_code, held.id in refused.text) == (409, True)
            work.fail(held.id, held.attempt, code="oom", detail="no memory")
            for version in range(_VERSIONS, 0, -1):
                for _ in range(_ANSWERS):
                    assert readers.answered.acquire(timeout=120)
                assert httpx.delete(f"{url}/{version}", timeout=60).status_code == 204
            for _ in range(_ANSWERS):
                assert readers.answered.acquire(timeout=120)
        finally:
            readers.close()
        assert readers.wrong == []
        assert readers.statuses.keys() == {200, 404}
        assert not any(file.exists() for file in files)
        for job_id in [held.id, *(one.job_id for one in made)]:
            client.jobs.delete(job_id or "")
        assert client.usage().stored_bytes.used == before
