"""What must hold after every transaction, and at the end."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from models_store.files.local_blobs import LocalBlobs
from models_store.job_states import FINAL_STATES, TRANSITIONS, JobKind, JobRole, JobState
from models_store.jobs.live_workers import LIVE_S
from models_store.jobs.retries import OWN, Ending
from tests.simulation.callers import RESERVED_BYTES, Asked
from tests.simulation.computing import all_seen, sampled
from tests.simulation.plan import Poison
from tests.simulation.store import readable

_MISCOUNTED = """SELECT project, sum(counted), sum(charged) FROM (
    SELECT project, bytes AS counted, 0 AS charged FROM usage
    UNION ALL SELECT project, 0, charged_bytes FROM job
    UNION ALL SELECT project, 0, charged_bytes FROM dataset
    UNION ALL SELECT project, 0, charged_bytes FROM model
    UNION ALL SELECT project, 0, charged_bytes FROM model_version
    ) GROUP BY project HAVING sum(counted) <> sum(charged)"""
_VERSIONS = """SELECT model_version.project, job.project, version
    FROM model_version JOIN job ON job.id = job_id"""
_WORKERS_WRITES = {
    "renew",
    "record_epoch",
    "add_message",
    "finish",
    "finish_child",
    "fail",
    "cancelled",
    "release",
}


class BrokenPromiseError(AssertionError):
    """Something that must never happen did."""


@dataclass
class Row:
    """A job's row; not frozen, which would take several times as long to make."""

    id: str
    request_id: str
    state: JobState
    attempt: int
    failures: list[dict[str, Any]]
    not_before: str | None
    worker: str | None
    lease_expires_at: str | None
    cancel_requested: int
    last_epoch: int
    last_event: int
    checkpoints: list[dict[str, Any]]
    queued_at: str
    position: int
    model_version: int | None
    kind: str
    result: dict[str, Any] | None
    error_code: str | None
    charged_bytes: int
    role: str | None
    parent_id: str | None
    product: dict[str, Any] | None
    project: str
    priority: int | None

    @property
    def step(self) -> int:
        """The position of its furthest checkpoint."""
        return max((checkpoint["step"] for checkpoint in self.checkpoints), default=0)

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> "Row":
        """A row as SQLite gives it."""
        row = cls(*values)
        for name in ("checkpoints", "failures", "result", "product"):
            setattr(row, name, _parsed(getattr(row, name) or "null"))
        row.state = JobState(row.state)
        return row


_JOBS = f"SELECT {', '.join(field.name for field in fields(Row))} FROM job ORDER BY position"  # noqa: S608 - names of columns


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Any:
    """A value that nobody changes: most rows say again what they said before."""
    return json.loads(text)


class Monitor:
    """Compares all rows with those of before, at every commit.

    Args:
        rows: the database.
        blobs: the store.
        sick: names of the workers that can run nothing.
    """

    def __init__(
        self, rows: sqlite3.Connection, blobs: LocalBlobs, *, sick: frozenset[str]
    ) -> None:
        self._rows = rows
        self._written = -1
        self._blobs = blobs
        self._before: dict[str, tuple[Any, ...]] = {}
        self._holders: dict[str, str] = {}
        self.jobs: dict[str, Row] = {}
        self.unfinished: list[Row] = []
        self._sick = sick
        self._taken: Counter[str] = Counter()
        # The last time at which an attempt at each job failed.
        self._failed: dict[str, datetime] = {}
        # The last claim of a job of each project.
        self._turns: dict[str, str] = {}

    def look(self, call: str, process: str, now: str) -> list[str]:
        """Check a commit; what changed, in words.

        Raises:
            BrokenPromiseError: it broke a promise.
        """
        written = self._rows.total_changes
        if written == self._written:
            return []
        self._written = written
        found = {values[0]: values for values in self._all(_JOBS)}
        if found == self._before:
            return []
        _demand(found.keys() >= self._before.keys(), "a job vanished")
        changed = {
            job_id: Row.of(values)
            for job_id, values in found.items()
            if self._before.get(job_id) != values
        }
        before, self.jobs, self._before = self.jobs, self.jobs | changed, found
        self.unfinished = [row for row in self.jobs.values() if row.state not in FINAL_STATES]
        for job_id, row in changed.items():
            self._check(row, before.get(job_id), call=call, process=process, now=now)
        for project, counted, charged in self._all(_MISCOUNTED):
            told = f"{counted} bytes of {project} are counted, {charged} are charged"
            raise BrokenPromiseError(told)
        return [_told(row, before.get(job_id)) for job_id, row in changed.items()]

    def _all(self, query: str, values: tuple[str | None, ...] = ()) -> list[Any]:
        """Rows of a query, read to its end: an open cursor would keep the database from being reset."""
        return self._rows.execute(query, values).fetchall()

    def _check(self, row: Row, old: Row | None, *, call: str, process: str, now: str) -> None:
        ((count, last),) = self._all(
            "SELECT count(*), max(seq) FROM job_event WHERE job_id = ?", (row.id,)
        )
        _demand(count == last == row.last_event, "events have gaps", row)
        for checkpoint in row.checkpoints:
            _demand(
                readable(self._blobs, checkpoint["key"], checkpoint["sha256"]),
                f"checkpoint {checkpoint['key']} is named and not there",
                row,
            )
        self._check_charge(row)
        if old is None:
            _demand(row.state is JobState.QUEUED, "a job begins in another state", row)
            return
        if row.role == JobRole.PARENT:
            self._check_step(row, old)
        elif row.attempt != old.attempt:
            self._check_claim(row, old, process=process, now=now)
        elif row.state is not old.state:
            _demand(row.state in TRANSITIONS[old.state], "no such move", row, old)
        elif call in _WORKERS_WRITES:
            holder = self._holders[row.id]
            _demand(holder == process, f"{process} writes, {holder} holds it", row)
        _demand(row.last_epoch >= old.last_epoch, "epochs go back", row, old)
        self._check_failures(row, old, now)
        if row.state is JobState.SUCCEEDED:
            _demand(not old.cancel_requested, "it succeeds after a cancel", row)
            self._check_product(row)

    def _check_failures(self, row: Row, old: Row, now: str) -> None:
        newer = row.step > old.step
        _demand(not (newer and row.failures), "a newer checkpoint is no progress", row, old)
        if row.failures != old.failures:
            self._failed[row.id] = datetime.fromisoformat(now)
        if row.failures and row.state is JobState.FAILED is not old.state:
            self._check_verdict(row, now)

    def _check_charge(self, row: Row) -> None:
        """The reservation of a parent holds for its children, too."""
        reserves = row.charged_bytes >= RESERVED_BYTES
        if row.role == JobRole.CHILD:
            parent = self._state(row.parent_id)
            covered = row.charged_bytes == 0
            _demand(
                covered == (parent not in FINAL_STATES), "a child is charged twice or never", row
            )
            return
        _demand(reserves or row.state in FINAL_STATES, "it continues without a reservation", row)
        _demand(not (reserves and row.state in FINAL_STATES), "it keeps its reservation", row)

    def _check_step(self, row: Row, old: Row) -> None:
        """A parent ends once its children have ended, in a state that follows from theirs."""
        _demand(row.worker is None, "a worker holds a parent", row)
        _demand(row.attempt - old.attempt in (0, 1), "attempts are skipped", row, old)
        if row.state in FINAL_STATES and old.state not in FINAL_STATES:
            states = self._all("SELECT state FROM job WHERE parent_id = ?", (row.id,))
            ended = all(state in FINAL_STATES for (state,) in states)
            _demand(ended, "a parent ends before its children", row)
        if row.state is JobState.SUCCEEDED:
            _demand(not old.cancel_requested, "it succeeds after a cancel", row)

    def _state(self, job_id: str | None) -> JobState:
        assert job_id is not None
        return self.jobs[job_id].state

    def _check_claim(self, row: Row, old: Row, *, process: str, now: str) -> None:
        _demand(row.attempt == old.attempt + 1, "attempts are skipped", row, old)
        _demand(row.state is JobState.RUNNING, "an attempt without a run", row)
        name = process.partition(".")[0]
        _demand(row.worker == name, f"{process} claims for {row.worker}", row)
        if old.state is JobState.RUNNING:
            assert old.lease_expires_at is not None
            _demand(old.lease_expires_at <= now, "two leases at once", row, old)
        else:
            _demand(old.state is JobState.QUEUED, "no such move", row, old)
            self._check_order(old)
            if old.failures:
                waited = datetime.fromisoformat(now) - self._failed[row.id]
                enough = waited >= _wait_after(old.failures)
                _demand(enough, f"it is tried again after {waited}", row, old)
        self._hold(row, process, now)

    def _check_verdict(self, row: Row, now: str) -> None:
        """A job is given up for failures of one kind, by two workers wherever two would take it."""
        earliest = datetime.fromisoformat(now) - timedelta(seconds=LIVE_S)
        fit = self._all("SELECT name, seen_at FROM worker WHERE unfit IS NULL")
        able = {name for name, seen_at in fit if datetime.fromisoformat(seen_at) > earliest}
        reasons = []
        for own, limit in ((True, 3), (False, 20)):
            on = [one["worker"] for one in row.failures if (one["ending"] in OWN) == own]
            widely = len(set(on)) > 1 or able <= set(on)
            reasons.append(len(on) >= (limit if widely else 3 * limit))
        crashed = row.error_code == "crash_loop"
        _demand(
            any(reasons) or not crashed, f"it is given up too soon, and {able} would take it", row
        )

    def _hold(self, row: Row, process: str, now: str) -> None:
        name = process.partition(".")[0]
        self._holders[row.id] = process
        self._turns[row.project] = now
        self._taken[name] += 1
        too_many = name in self._sick and self._taken[name] > MOST_OF_A_SICK_WORKER
        _demand(not too_many, f"a sick worker took {self._taken[name]} attempts", row)

    def _check_order(self, claimed: Row) -> None:
        """Order of claims, but for waits after failures.

        The project that runs least comes first, then that whose turn is longest ago, then its highest
        priority, then who came first. A claim is the last write of its transaction, so all other rows
        are as they were when the job was chosen.

        Args:
            claimed: the job, as it waited.
        """
        rows = (self.jobs | {claimed.id: claimed}).values()
        running = Counter(
            row.project
            for row in rows
            if row.state is JobState.RUNNING and row.role != JobRole.PARENT
        )

        def place(row: Row) -> tuple[int, str, int, str, int]:
            turn, priority = self._turns.get(row.project, ""), row.priority or 0
            return running[row.project], turn, -priority, row.queued_at, row.position

        for row in rows:
            first = place(row) < place(claimed)
            waits = row.state is JobState.QUEUED and row.not_before is None
            waits &= row.role != JobRole.PARENT
            _demand(not (first and waits), "a job is passed by a later one", row, claimed)

    def _check_product(self, row: Row) -> None:
        """One version or one file, readable; or what a parent makes one of."""
        if row.role == JobRole.CHILD:
            needed = self._state(row.parent_id) is not JobState.SUCCEEDED
            _demand(not needed or row.product is not None, "it gave nothing", row)
            if row.product is not None and needed:
                key, sha256 = row.product["checkpoint_key"], row.product["checkpoint_sha256"]
                _demand(readable(self._blobs, key, sha256), "what it made is not readable", row)
            return
        products = self._all(
            "SELECT version, checkpoint_key, checkpoint_sha256 FROM model_version WHERE job_id = ?",
            (row.id,),
        )
        if row.kind == JobKind.SAMPLING:
            _demand(row.result is not None and not products, "it gave no file", row)
            assert row.result is not None
            products = [(row.model_version, row.result["key"], row.result["sha256"])]
        _demand(len(products) == 1, f"it has {len(products)} versions", row)
        ((version, key, sha256),) = products
        _demand(version == row.model_version, "another version", row)
        _demand(readable(self._blobs, key, sha256), "what it made is not readable", row)

    def check_end(self, asked: Iterable[Asked]) -> None:
        """Check what came of every job.

        Raises:
            BrokenPromiseError: it is not what its caller was promised.
        """
        for one in asked:
            if one.plan.key:
                _demand(len(set(one.ids)) <= 1, f"one key, {len(set(one.ids))} jobs")
            for job_id in one.ids:
                _demand(job_id in self.jobs, f"{job_id} was accepted and is not there")
                _check_outcome(self.jobs[job_id], one)
        self._check_versions()
        for row in self.jobs.values():
            _demand(row.state in FINAL_STATES, "it never ends", row)
        self._check_products(asked)

    def _check_versions(self) -> None:
        """Versions count up in each project, and belong to that of their job."""
        numbers: dict[str, list[int]] = {}
        for project, of_job, version in self._all(_VERSIONS):
            _demand(project == of_job, "a version is in another project than its job")
            numbers.setdefault(project, []).append(version)
        for counted in numbers.values():
            _demand(sorted(counted) == list(range(1, len(counted) + 1)), "versions have gaps")

    def _check_products(self, asked: Iterable[Asked]) -> None:
        """What came out is what a job that nobody disturbed would have given."""
        plans = {job_id: one.plan for one in asked for job_id in one.ids}
        for job_id, key in self._all("SELECT job_id, checkpoint_key FROM model_version"):
            if job_id in plans:
                found = json.loads(self._blobs.path(key).read_bytes())
                _demand(found == all_seen(plans[job_id]), "its model is another", self.jobs[job_id])
        for row in self.jobs.values():
            if row.result is not None and row.id in plans:
                rows = np.load(self._blobs.path(row.result["key"]))
                plan = plans[row.id]
                wanted = sampled(0, plan.epochs * plan.batches)
                _demand(np.array_equal(rows, wanted), "its file is another", row)


MOST_OF_A_SICK_WORKER = 4
"""Attempts; that of each start, and of a store that goes away under it."""


def _check_outcome(row: Row, asked: Asked) -> None:
    if asked.perhaps:
        return
    if asked.cancelled:
        _demand(row.state is JobState.CANCELLED, "cancelled, and not so in the end", row)
    elif asked.plan.poison is None:
        _demand(
            row.state is JobState.SUCCEEDED,
            f"an innocent job is {row.state} ({row.error_code})",
            row,
        )
    else:
        _demand(row.state is JobState.FAILED, f"a poison job is {row.state}", row)
        expected = "diverged" if asked.plan.poison is Poison.DIVERGES else "crash_loop"
        _demand(row.error_code == expected, f"it failed with {row.error_code}", row)


def _wait_after(failures: list[dict[str, Any]]) -> timedelta:
    """The least time to the next attempt: twice as long each time, but for leases that ran out."""
    known = len(failures) - (failures[-1]["ending"] == Ending.LOST)
    seconds = min(2.0 ** (known - 1), 300.0) if known else 0.0
    return timedelta(seconds=seconds - 0.01)


def _told(row: Row, old: Row | None) -> str:
    parts = [f"{row.request_id} {row.state.value} #{row.attempt}"]
    if old is not None and row.last_epoch != old.last_epoch:
        parts.append(f"epoch {row.last_epoch}")
    if old is not None and len(row.checkpoints) != len(old.checkpoints):
        parts.append(f"{len(row.checkpoints)} checkpoints")
    if row.failures:
        parts.append("failures: " + ", ".join(one["ending"] for one in row.failures))
    if row.error_code:
        parts.append(row.error_code)
    return ", ".join(parts)


def _demand(condition: bool, told: str, *rows: object) -> None:
    if not condition:
        raise BrokenPromiseError(" | ".join([told, *map(str, rows)]))
