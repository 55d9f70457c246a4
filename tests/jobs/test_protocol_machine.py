"""The job protocol as a machine that does whatever may happen, in any order, on both databases, beside a model of it.

The model says what each call must answer; after each step the rows must be what the model says.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import (
    METADATA,
    DatasetRow,
    JobEventRow,
    JobRow,
    ModelRow,
    ModelVersionRow,
)
from models_store.errors import (
    CancelledInsteadError,
    ConflictError,
    FencedError,
    NotFoundError,
    StoreError,
)
from models_store.job_states import FINAL_STATES, TRANSITIONS, Idempotency, Job, JobState
from models_store.jobs import leases, retries as job_retries
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import OUTSIDE_LIMIT, OWN_LIMIT, Ending
from models_store.registry import Registry
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_job,
    a_version,
    added,
    an_end,
    claimable,
    no_wait,
    slug_of,
)

MODELS = st.sampled_from(["a", "b"])
KEYS = st.sampled_from([None, None, "k1", "k2"])
PRINTS = st.sampled_from(["one", "one", "one", "other"])
# Which of several things a step is about; taken modulo their number.
CHOICE = st.integers(0, 30)
Refusal = type[StoreError] | str | None
WRITES = st.sampled_from(
    [
        "renew",
        "epoch",
        "old epoch",
        "message",
        "finish",
        "finish",
        "fail",
        "cancelled",
        "crash",
        "kill",
        "release",
    ]
)


@dataclass
class Wanted:
    """What the model says of one job.

    Attributes:
        failures: attempts that failed since the last progress: whether each was the job's own.
        waits: whether some time passes before its next attempt.
        expired: its place among the leases that ran out; None while the lease holds.
        finisher: the attempt that registered its version.
        seen: the states that it was told to have been in.
    """

    id: str
    model: str
    dataset_id: str | None
    state: JobState = JobState.QUEUED
    attempt: int = 0
    cancel_requested: bool = False
    failures: list[bool] = field(default_factory=list)
    waits: bool = False
    last_epoch: int = 0
    expired: int | None = None
    version: int | None = None
    finisher: int | None = None
    seen: list[JobState] = field(default_factory=list)

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def claimable(self) -> bool:
        waiting = self.state is JobState.QUEUED and not self.waits
        return waiting or self.expired is not None

    def requeue(self) -> None:
        """What becomes of it when nobody works on it any more."""
        self.expired = None
        self.state = JobState.CANCELLED if self.cancel_requested else JobState.QUEUED

    def fail_once(self, *, own: bool, lost: bool = False) -> None:
        """What becomes of it when an attempt failed."""
        self.requeue()
        if self.state is JobState.CANCELLED:
            return
        self.failures.append(own)
        own_failures = sum(self.failures)
        if own_failures >= OWN_LIMIT or len(self.failures) - own_failures >= OUTSIDE_LIMIT:
            self.state = JobState.FAILED
        else:
            self.waits = not lost or len(self.failures) > 1


class ProtocolMachine(RuleBasedStateMachine):
    """Callers, workers, zombies, hints and clocks, one step at a time."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.jobs, self.work = Jobs(database), JobWork(database)
        self.registry = Registry(database)
        self.wanted: dict[str, Wanted] = {}
        self.datasets: list[str] = []
        self.keys: dict[str, tuple[str, str]] = {}
        self.attempts: list[Job] = []
        self.versions: dict[str, int] = {"a": 0, "b": 0}
        self.deleted: set[tuple[str, int]] = set()
        self.expiries = 0
        with database.write() as session:
            for table in reversed(METADATA.sorted_tables):
                session.execute(table.delete())

    @rule()
    def upload(self) -> None:
        self.datasets.append(added(self.registry).id)

    @precondition(lambda self: self.datasets)
    @rule(which=CHOICE)
    def delete_dataset(self, which: int) -> None:
        dataset_id = self.datasets[which % len(self.datasets)]
        in_use = any(job.dataset_id == dataset_id and not job.final for job in self.wanted.values())
        expected = "dataset-in-use" if in_use else None
        self.answer(lambda: self.registry.delete_dataset(PROJECT, dataset_id), expected)
        if not in_use:
            self.datasets.remove(dataset_id)

    @precondition(lambda self: self.wanted)
    @rule(which=CHOICE)
    def delete_job(self, which: int) -> None:
        job = self.job(which)
        refusal: Refusal = None
        if not job.final:
            refusal = "job-unfinished"
        elif self.has_version(job):
            refusal = "job-in-use"
        self.answer(lambda: self.jobs.delete(PROJECT, job.id), refusal)
        if refusal is None:
            del self.wanted[job.id]
            self.keys = {key: kept for key, kept in self.keys.items() if kept[0] != job.id}

    @precondition(lambda self: any(self.versions.values()))
    @rule(which=CHOICE, model=MODELS)
    def delete_version(self, which: int, model: str) -> None:
        number = 1 + which % max(self.versions[model], 1)
        there = number in self.numbers(model)
        expected = None if there else NotFoundError
        self.answer(lambda: self.registry.delete_version(PROJECT, model, number), expected)
        if there:
            self.deleted.add((model, number))

    @rule(model=MODELS)
    def delete_model(self, model: str) -> None:
        numbers = self.numbers(model)
        expected = None if numbers else NotFoundError
        self.answer(lambda: self.registry.delete_model(PROJECT, model), expected)
        self.deleted |= {(model, number) for number in numbers}

    @rule(model=MODELS, key=KEYS, fingerprint=PRINTS, which=CHOICE, gone=st.booleans())
    def submit(self, model: str, key: str | None, fingerprint: str, which: int, gone: bool) -> None:
        dataset_id = self.datasets[which % len(self.datasets)] if self.datasets else None
        if gone and which % 3 == 0:
            dataset_id = "ds_" + "0" * 32
        idempotency = Idempotency(key=key, fingerprint=fingerprint) if key else None

        def submit() -> Any:
            new = a_job(model_name=model, dataset_id=dataset_id)
            return self.jobs.submit(new, idempotency=idempotency)

        if key is not None and key in self.keys:
            job_id, first = self.keys[key]
            if first != fingerprint:
                self.answer(submit, ConflictError)
                return
            again = self.answer(submit, None)
            assert again.replayed
            assert (again.job.id, again.job.state, again.job.attempt) == (
                job_id,
                JobState.QUEUED,
                0,
            )
            return
        if dataset_id is not None and dataset_id not in self.datasets:
            self.answer(submit, NotFoundError)
            return
        job = self.answer(submit, None).job
        assert job.id not in self.wanted
        self.wanted[job.id] = Wanted(job.id, model, dataset_id)
        if key is not None:
            self.keys[key] = (job.id, fingerprint)

    @rule(number=st.sampled_from([1, 1, 1, 3]))
    def hints_arrive(self, number: int) -> None:
        """One hint, or the same one several times: what it names does not matter."""
        for _ in range(number):
            self.claim()

    @initialize()
    def a_job_runs(self) -> None:
        self.submit("a", None, "one", 0, gone=False)
        self.claim()

    @precondition(lambda self: self.running())
    @rule(which=CHOICE, write=WRITES)
    def owner_writes(self, which: int, write: str) -> None:
        running = self.running()
        job = running[which % len(running)]
        [held] = [one for one in self.attempts if (one.id, one.attempt) == (job.id, job.attempt)]
        self.write(held, write)

    @precondition(lambda self: self.attempts)
    @rule(which=CHOICE, write=WRITES)
    def anybody_writes(self, which: int, write: str) -> None:
        """Zombies wake up at any time."""
        self.write(self.attempts[which % len(self.attempts)], write)

    def write(self, held: Job, write: str) -> None:
        """What an attempt writes counts only while it holds its job."""
        job = self.wanted.get(held.id) or Wanted(held.id, "a", None, state=JobState.CANCELLED)
        owner = job.state is JobState.RUNNING and job.attempt == held.attempt
        if owner:
            getattr(self, "own_" + write.replace(" ", "_"))(job, held)
            return
        call, _ = self.call_of(write, job, held)
        if write == "finish" and job.finisher == held.attempt:
            assert self.answer(call, None) == job.version  # the answer was lost
            return
        before = self.snapshot()
        self.answer(call, FencedError)
        assert self.snapshot() == before

    @precondition(lambda self: self.wanted)
    @rule(which=CHOICE)
    def cancel(self, which: int) -> None:
        job = self.job(which)
        refusal = "job-final" if job.state in (JobState.SUCCEEDED, JobState.FAILED) else None
        self.answer(lambda: self.jobs.cancel(PROJECT, job.id), refusal)
        if not job.final:
            job.cancel_requested = True
        if job.state is JobState.QUEUED:
            job.state = JobState.CANCELLED

    @precondition(lambda self: self.wanted)
    @rule(which=CHOICE)
    def resume(self, which: int) -> None:
        job = self.job(which)
        refusal: Refusal = None
        if job.state not in (JobState.CANCELLED, JobState.FAILED):
            refusal = "job-not-resumable"
        elif job.dataset_id is not None and job.dataset_id not in self.datasets:
            refusal = NotFoundError
        self.answer(lambda: self.jobs.resume(PROJECT, job.id), refusal)
        if refusal is None:
            job.state = JobState.QUEUED
            job.cancel_requested = False
            job.failures, job.waits = [], False

    @precondition(lambda self: self.running())
    @rule(which=CHOICE)
    def lease_runs_out(self, which: int) -> None:
        running = self.running()
        self.expire(running[which % len(running)])

    @precondition(lambda self: any(job.waits for job in self.wanted.values()))
    @rule(which=CHOICE)
    def a_wait_is_over(self, which: int) -> None:
        waiting = [job for job in self.wanted.values() if job.waits]
        self.end_wait(waiting[which % len(waiting)])

    @invariant()
    def all_is_what_the_model_says(self) -> None:
        with self.database.read() as session:
            rows = {row.id: row for row in session.scalars(select(JobRow))}
            datasets = set(session.scalars(select(DatasetRow.id)))
            versions = session.execute(
                select(ModelRow.name, ModelVersionRow.version, ModelVersionRow.job_id)
                .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
                .order_by(ModelVersionRow.version)
            ).all()
            events = session.execute(
                select(
                    JobEventRow.job_id, JobEventRow.seq, JobEventRow.event, JobEventRow.data
                ).order_by(JobEventRow.job_id, JobEventRow.seq)
            ).all()
        assert set(rows) == set(self.wanted), "a job was lost or doubled"
        assert datasets == set(self.datasets)
        for job in self.wanted.values():
            check_row(rows[job.id], job)
            check_history([event for event in events if event.job_id == job.id], job)
        for name, newest in self.versions.items():
            numbers = [row.version for row in versions if row.name == name]
            assert numbers == self.numbers(name), "versions have a gap or a double"
            assert numbers == [] or numbers[-1] <= newest
        made = {job.id for job in self.wanted.values() if self.has_version(job)}
        assert sorted(row.job_id for row in versions) == sorted(made)
        listed = {model.name: model for model in self.registry.models(PROJECT, limit=9).items}
        assert set(listed) == {name for name in self.versions if self.numbers(name)}
        for name, model in listed.items():
            newest = self.numbers(name)[-1]
            assert model.latest_version == newest
            assert self.registry.resolve(PROJECT, name).version == newest

    @invariant()
    def whatever_waits_can_be_claimed(self) -> None:
        """Whether or not its hint was lost: so every accepted job gets its worker."""
        assert set(claimable(self.database)) == {
            job.id for job in self.wanted.values() if job.claimable
        }

    def teardown(self) -> None:
        """Every accepted job can reach its end, whatever happened to it."""
        for job in self.running():
            self.expire(job)
        for _ in range(3 * len(self.wanted) + 1):
            for job in self.wanted.values():
                self.end_wait(job)
            if (held := self.claim()) is not None:
                self.own_finish(self.wanted[held.id], held)
        assert all(job.final for job in self.wanted.values())
        self.all_is_what_the_model_says()

    def claim(self) -> Job | None:
        """A worker looks for a job; it must get the one that the model says."""
        expired = [job for job in self.wanted.values() if job.expired is not None]
        for job in sorted(expired, key=lambda one: one.expired or 0):
            assert self.work.end_silent()
            job.fail_once(own=False, lost=True)
        assert not self.work.end_silent()
        queue = claimable(self.database)
        chosen = self.wanted[queue[0]] if queue else None
        held = self.work.claim("worker", lease_s=LEASE_S)
        assert (held.id if held else None) == (chosen.id if chosen else None)
        if held is not None and chosen is not None:
            chosen.state = JobState.RUNNING
            chosen.attempt += 1
            assert (held.state, held.attempt) == (JobState.RUNNING, chosen.attempt)
            self.attempts.append(held)
        return held

    def own_renew(self, job: Wanted, held: Job) -> None:
        asked = self.answer(self.call_of("renew", job, held)[0], None)
        assert asked == job.cancel_requested
        job.expired = None

    def own_epoch(self, job: Wanted, held: Job) -> None:
        call, number = self.call_of("epoch", job, held)
        self.answer(call, None)
        job.expired = None
        job.last_epoch, job.failures = number, []

    def own_old_epoch(self, job: Wanted, held: Job) -> None:
        self.answer(self.call_of("old epoch", job, held)[0], None)
        job.expired = None

    def own_message(self, job: Wanted, held: Job) -> None:
        self.answer(self.call_of("message", job, held)[0], None)

    def own_finish(self, job: Wanted, held: Job) -> None:
        call, _ = self.call_of("finish", job, held)
        job.expired = None
        if job.cancel_requested:
            self.answer(call, CancelledInsteadError)
            job.state = JobState.CANCELLED
            return
        self.versions[job.model] += 1
        job.version = self.versions[job.model]
        assert self.answer(call, None) == job.version
        job.state, job.finisher = JobState.SUCCEEDED, held.attempt

    def own_fail(self, job: Wanted, held: Job) -> None:
        self.answer(self.call_of("fail", job, held)[0], None)
        job.state = JobState.CANCELLED if job.cancel_requested else JobState.FAILED
        job.expired = None

    def own_cancelled(self, job: Wanted, held: Job) -> None:
        self.answer(self.call_of("cancelled", job, held)[0], None)
        job.state, job.expired = JobState.CANCELLED, None

    def own_crash(self, job: Wanted, held: Job) -> None:
        state = self.answer(self.call_of("crash", job, held)[0], None)
        job.fail_once(own=True)
        assert state is job.state

    def own_kill(self, job: Wanted, held: Job) -> None:
        state = self.answer(self.call_of("kill", job, held)[0], None)
        job.fail_once(own=False)
        assert state is job.state

    def own_release(self, job: Wanted, held: Job) -> None:
        state = self.answer(self.call_of("release", job, held)[0], None)
        job.requeue()
        assert state is job.state

    def call_of(self, write: str, job: Wanted, held: Job) -> tuple[Callable[[], Any], int]:
        """A write of an attempt, and the number of the epoch that it tells."""
        work, at = self.work, (held.id, held.attempt)
        number = job.last_epoch + (write == "epoch")

        def epoch() -> list[str]:
            return work.record_epoch(
                *at,
                lease_s=LEASE_S,
                metrics={"epoch": number},
                progress={"epoch": number},
                checkpoint=a_checkpoint(held, number),
            )

        calls: dict[str, Callable[[], Any]] = {
            "renew": lambda: work.renew(*at, lease_s=LEASE_S),
            "epoch": epoch,
            "old epoch": epoch,
            "message": lambda: work.add_message(*at, "text"),
            "finish": lambda: work.finish(*at, metrics={}, version=a_version(held)),
            "fail": lambda: work.fail(*at, code="diverged", detail="NaN"),
            "cancelled": lambda: work.cancelled(*at),
            "crash": lambda: work.release(*at, failed=an_end(Ending.CRASHED)),
            "kill": lambda: work.release(*at, failed=an_end(Ending.KILLED)),
            "release": lambda: work.release(*at),
        }
        return calls[write], number

    def answer(self, call: Callable[[], Any], expected: Refusal) -> Any:
        """Call it; it must raise exactly what the model says, a conflict of a slug or another error, or return."""
        if expected is None:
            return call()
        kind = ConflictError if isinstance(expected, str) else expected
        with pytest.raises(kind) as caught:
            call()
        assert caught.type is kind
        assert not isinstance(expected, str) or slug_of(caught.value) == expected
        return None

    def expire(self, job: Wanted) -> None:
        """Move a lease into the past, behind those that ran out before."""
        if job.expired is not None:
            return
        self.expiries += 1
        job.expired = self.expiries
        with self.database.write() as session:
            session.execute(
                update(JobRow)
                .where(JobRow.id == job.id)
                .values(lease_expires_at=db_now(self.expiries - 10_000))
            )

    def end_wait(self, job: Wanted) -> None:
        job.waits = False
        no_wait(self.database, job.id)

    def snapshot(self) -> list[tuple[Any, ...]]:
        """Every row of jobs, their events and versions."""
        with self.database.read() as session:
            return [
                tuple(row)
                for table in (JobRow, JobEventRow, ModelRow, ModelVersionRow)
                for row in session.execute(select(table.__table__))
            ]

    def numbers(self, model: str) -> list[int]:
        """The versions of a model that were not deleted."""
        made = range(1, self.versions[model] + 1)
        return [number for number in made if (model, number) not in self.deleted]

    def has_version(self, job: Wanted) -> bool:
        return job.version is not None and job.version in self.numbers(job.model)

    def job(self, which: int) -> Wanted:
        return list(self.wanted.values())[::-1][which % len(self.wanted)]

    def running(self) -> list[Wanted]:
        return [job for job in self.wanted.values() if job.state is JobState.RUNNING]


def check_row(row: JobRow, job: Wanted) -> None:
    assert (row.state, row.attempt) == (job.state, job.attempt)
    assert row.cancel_requested == job.cancel_requested
    assert [failure["ending"] == Ending.CRASHED for failure in row.failures] == job.failures
    assert row.run_seconds >= 0
    assert row.model_version == job.version
    assert (row.lease_expires_at is not None) == (job.state is JobState.RUNNING)
    assert (row.finished_at is not None) == job.final
    assert (row.error is not None) == (job.state is JobState.FAILED)
    assert len(row.checkpoints) <= 2


def check_history(events: list[Any], job: Wanted) -> None:
    """Events are numbered without gaps, and tell legal moves that lead to the present state."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    states = [JobState(event.data["state"]) for event in events if event.event == "state"]
    assert states[: len(job.seen)] == job.seen, "history changed"
    for before, after in pairwise(states):
        assert after in TRANSITIONS[before]
    assert states[-1] is job.state
    job.seen = states


@pytest.fixture(autouse=True)
def _no_wait_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have jobs wait for hours after a failed attempt: the machine says when that is over."""
    monkeypatch.setattr(leases, "wait_s", lambda failures: 3600 * job_retries.wait_s(failures))


@pytest.mark.parametrize(
    ("examples", "steps"), [(8, 25), pytest.param(30, 50, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(900)
def test_the_protocol_keeps_its_promises_in_any_order(database, examples, steps):
    # Always the same examples: what is found here must not come and go.
    run_state_machine_as_test(
        lambda: ProtocolMachine(database),  # type: ignore[arg-type]  # a factory does
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
        ),
    )
