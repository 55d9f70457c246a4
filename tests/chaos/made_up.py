"""Made-up histories: callers with random timing and losses on a service in memory that keeps every promise."""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from tests.chaos.check_jobs import FINAL, NEXT
from tests.chaos.history import Call

Answer = tuple[int, dict[str, Any]]
Asked = tuple[str, str, dict[str, Any]]

NOT_FOUND: Answer = 404, {}
ALIASES = ("m@a", "m@b")
VERSIONS = (1, 2, 3)


@dataclass
class _Job:
    id: str
    states: list[str] = field(default_factory=lambda: ["queued"])
    attempt: int = 0
    version: str | None = None
    cancel_asked: bool = False

    @property
    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.states[-1],
            "attempt": self.attempt,
            "version": self.version,
        }

    def move(self, state: str) -> None:
        assert state in NEXT[self.states[-1]]
        self.states.append(state)
        self.attempt += state == "running"


class MadeUpService:
    """Rows and rules of the real one, each change at one moment."""

    def __init__(self, random_: random.Random) -> None:
        self.jobs: dict[str, _Job] = {}
        self._random = random_
        self._datasets: set[str] = set()
        self._keys: dict[tuple[str, str], str] = {}
        self._versions: dict[str, str] = {}
        self._aliases: dict[str, tuple[int, int]] = {}
        self._revision = 0
        self._ids = count(1)

    def serve(self, action: str, target: str, asked: Mapping[str, Any]) -> Answer:
        """Do what was asked, now."""
        method: Callable[[str, Mapping[str, Any]], Answer] = getattr(self, f"_{action}")
        return method(target, asked)

    def work(self) -> None:
        """Let a worker do something."""
        for job in self.jobs.values():
            if job.states[-1] == "queued" and self._random.random() < 0.5:
                job.move("running")
            elif job.states[-1] == "running":
                self._advance(job)

    def _advance(self, job: _Job) -> None:
        if job.cancel_asked:
            job.move("cancelled")
            return
        state = self._random.choice(["queued", "succeeded", "failed", "running"])
        if state == "succeeded":
            job.version = f"m:{len(self._versions) + 1}"
            self._versions[job.version] = f"sha of {job.version}"
        if state != "running":
            job.move(state)

    def _submit(self, key: str, _: Mapping[str, Any]) -> Answer:
        job_id = self._keys.setdefault(("submit", key), f"job{next(self._ids)}")
        job = self.jobs.setdefault(job_id, _Job(job_id))
        return 202, {"id": job_id, "jobs": [job.view]}

    def _get_job(self, job_id: str, _: Mapping[str, Any]) -> Answer:
        job = self.jobs.get(job_id)
        return NOT_FOUND if job is None else (200, {"jobs": [job.view]})

    def _list_jobs(self, _target: str, _: Mapping[str, Any]) -> Answer:
        return 200, {"jobs": [job.view for job in self.jobs.values()]}

    def _cancel(self, job_id: str, _: Mapping[str, Any]) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return NOT_FOUND
        state = job.states[-1]
        if state in {"succeeded", "failed"}:
            return 409, {}
        job.cancel_asked = state == "running"
        if state == "queued":
            job.move("cancelled")
        return 202 if state == "running" else 200, {"jobs": [job.view]}

    def _resume(self, job_id: str, _: Mapping[str, Any]) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return NOT_FOUND
        if job.states[-1] not in {"failed", "cancelled"}:
            return 409, {}
        job.cancel_asked = False
        job.move("queued")
        return 202, {"jobs": [job.view]}

    def _events(self, job_id: str, asked: Mapping[str, Any]) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return NOT_FOUND
        events = [{"id": at, "state": state} for at, state in enumerate(job.states, start=1)]
        items = events[asked["after"] :]
        return 200, {"items": items, "ended": job.states[-1] in FINAL}

    def _upload(self, key: str, _: Mapping[str, Any]) -> Answer:
        dataset_id = self._keys.get(("upload", key))
        if dataset_id is None:
            dataset_id = self._keys["upload", key] = f"ds{next(self._ids)}"
            self._datasets.add(dataset_id)
        return 201, {"id": dataset_id}

    def _get_dataset(self, dataset_id: str, _: Mapping[str, Any]) -> Answer:
        return (200, {}) if dataset_id in self._datasets else NOT_FOUND

    def _delete_dataset(self, dataset_id: str, _: Mapping[str, Any]) -> Answer:
        if dataset_id not in self._datasets:
            return NOT_FOUND
        self._datasets.discard(dataset_id)
        return 204, {}

    def _import(self, key: str, asked: Mapping[str, Any]) -> Answer:
        version = self._keys.get(("import", key))
        if version is None:
            version = self._keys["import", key] = f"m:{len(self._versions) + 1}"
            self._versions[version] = asked["sha256"]
        return 201, {"id": version, "sha256": self._versions[version]}

    def _get_version(self, version: str, _: Mapping[str, Any]) -> Answer:
        if version not in self._versions:
            return NOT_FOUND
        return 200, {"id": version, "sha256": self._versions[version]}

    def _set_alias(self, alias: str, asked: Mapping[str, Any]) -> Answer:
        expected = asked.get("if_match")
        if expected is not None and expected != self._aliases.get(alias, (0, 0))[1]:
            return 412, {}
        self._revision += 1
        self._aliases[alias] = asked["version"], self._revision
        return 200, {"version": asked["version"], "revision": self._revision}

    def _get_alias(self, alias: str, _: Mapping[str, Any]) -> Answer:
        if alias not in self._aliases:
            return NOT_FOUND
        version, revision = self._aliases[alias]
        return 200, {"version": version, "revision": revision}

    def _delete_alias(self, alias: str, _: Mapping[str, Any]) -> Answer:
        return NOT_FOUND if self._aliases.pop(alias, None) is None else (204, {})


class _Asker:
    """Chooses what a caller asks, among what it was told of."""

    def __init__(self, random_: random.Random, name: str) -> None:
        self._random = random_
        self._name = name
        self._known: dict[str, list[str]] = {"job": [], "dataset": [], "version": []}
        self._revisions = [1]
        self._keys = count(1)
        self._again: list[Asked] = []

    def next(self) -> Asked:
        """Return an action, its target and its arguments."""
        if self._again:
            return self._again.pop()
        pick, known = self._random.choice, self._known
        job, dataset, version = (
            pick(known[kind] or ["none"]) for kind in ("job", "dataset", "version")
        )
        key = f"{self._name}-{next(self._keys)}"
        condition = pick([None, None, pick(self._revisions)])
        possible: list[Asked] = [
            ("submit", key, {}),
            ("get_job", job, {}),
            ("get_job", job, {}),
            ("list_jobs", "", {}),
            ("cancel", job, {}),
            ("resume", job, {}),
            ("events", job, {"after": pick([0, 0, 1, 2])}),
            ("upload", key, {}),
            ("get_dataset", dataset, {}),
            ("delete_dataset", dataset, {}),
            ("import", key, {"sha256": f"sha {key}"}),
            ("get_version", version, {}),
            ("set_alias", pick(ALIASES), {"version": pick(VERSIONS), "if_match": condition}),
            ("get_alias", pick(ALIASES), {}),
            ("get_alias", pick(ALIASES), {}),
            ("delete_alias", pick(ALIASES), {}),
        ]
        return pick(possible)

    def told(self, asked: Asked, call: Call) -> None:
        """Learn from an answer; ask again for what was lost, sometimes."""
        makes = {"submit": "job", "upload": "dataset", "import": "version"}
        if call.unsure and asked[0] in makes:
            self._again.append(asked)
        if call.done and asked[0] in makes:
            self._known[makes[asked[0]]].append(call.said["id"])
        if call.done and "revision" in call.said:
            self._revisions = [call.said["revision"]]


class _World:
    """Time, callers and the worker; what happens next is on an agenda."""

    def __init__(self, seed: int, *, calls: int, lost: float) -> None:
        self.history: list[Call] = []
        self.random = random.Random(seed)
        self._service = MadeUpService(self.random)
        self._calls = calls
        self._lost = lost
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._now = 0.0

    def run(self, callers: int) -> None:
        """Let all callers make their calls."""
        for at in range(callers):
            self._in(0, partial(self._begin, _Asker(self.random, f"{at}"), f"caller {at}"))
        self._in(0, self._work)
        while self._agenda:
            self._now, _, step = heapq.heappop(self._agenda)
            step()

    def _in(self, seconds: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self._now + seconds, next(self._number), step))

    def _soon(self, step: Callable[[], None]) -> None:
        self._in(self.random.uniform(0.01, 0.5), step)

    def _work(self) -> None:
        self._service.work()
        if len(self.history) < self._calls:
            self._in(0.2, self._work)

    def _begin(self, asker: _Asker, name: str) -> None:
        if len(self.history) < self._calls:
            self._soon(partial(self._serve, asker, name, asker.next(), self._now))

    def _serve(self, asker: _Asker, name: str, asked: Asked, begun: float) -> None:
        loss = ""
        if self.random.random() < self._lost:
            loss = self.random.choice(["before", "after", "late"])
        answer: tuple[int | None, dict[str, Any]] = self.random.choice([None, 503]), {}
        if loss == "late":
            self._in(self.random.uniform(0.6, 3), partial(self._serve_late, asked))
        elif loss != "before":
            given = self._service.serve(*asked)
            answer = answer if loss else given
        self._soon(partial(self._end, asker, name, asked, begun, answer))

    def _serve_late(self, asked: Asked) -> None:
        self._service.serve(*asked)

    def _end(
        self,
        asker: _Asker,
        name: str,
        asked: Asked,
        begun: float,
        answer: tuple[int | None, dict[str, Any]],
    ) -> None:
        call = Call(
            caller=name,
            action=asked[0],
            target=asked[1],
            asked=asked[2],
            begun=begun,
            ended=self._now,
            status=answer[0],
            said=answer[1],
        )
        self.history.append(call)
        asker.told(asked, call)
        self._soon(partial(self._begin, asker, name))


def made_up(seed: int, *, calls: int = 150, callers: int = 4, lost: float = 0.15) -> list[Call]:
    """Return a history that breaks no promise.

    Args:
        seed: Seed of everything.
        calls: Number of calls; some more may follow.
        callers: Number of callers at a time.
        lost: Part of the answers that are lost, before, after or long after their effect.
    """
    world = _World(seed, calls=calls, lost=lost)
    world.run(callers)
    return world.history
