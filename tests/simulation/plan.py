"""What a schedule holds: jobs, workers and faults, drawn from a seed; and fewer of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import chain
from typing import TypeVar

T = TypeVar("T")


class Poison(StrEnum):
    """How the trainer of a job ends whoever runs it."""

    AT_THE_START = "at the start"
    IN_THE_MIDDLE = "in the middle"
    AT_THE_END = "at the end"
    DIVERGES = "diverges"
    STALLS = "stalls"


class Sickness(StrEnum):
    """What a worker has that takes jobs and can run none."""

    STORE_NOT_MOUNTED = "store not mounted"
    BROKEN_TORCH = "broken torch"
    NO_GPU = "no GPU"


class Kind(StrEnum):
    """What happens at a moment."""

    KILL_WORKER = "kill worker"
    STOP_WORKER = "stop worker"
    FREEZE_WORKER = "freeze worker"
    KILL_TRAINER = "kill trainer"
    TERMINATE_TRAINER = "terminate trainer"
    FREEZE_TRAINER = "freeze trainer"
    KILL_API = "kill API"
    FREEZE_API = "freeze API"
    DATABASE_AWAY = "database away"
    BROKER_AWAY = "broker away"
    BROKER_WIPED = "broker wiped"
    FORGED_MESSAGES = "forged messages"
    DATABASE_CLOCK_JUMPS = "database's clock jumps"


class Effect(StrEnum):
    """What happens at a transaction, a write of the store or the start of a trainer."""

    FAILS = "fails"
    ANSWER_LOST = "answer lost"
    COLLIDES = "collides"
    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"


TRANSACTIONS = (
    "submit",
    "claim",
    "renew",
    "record_epoch",
    "release",
    "finish",
    "finish_child",
    "mark_dispatched",
)
TRANSACTION_EFFECTS = (
    Effect.FAILS,
    Effect.ANSWER_LOST,
    Effect.COLLIDES,
    Effect.DIES_BEFORE,
    Effect.DIES_AFTER,
)
FILES = ("jobs", "models", "results")
FILE_EFFECTS = (Effect.FAILS, Effect.DIES_BEFORE, Effect.DIES_AFTER)
SPAWN = "spawn"
_MOST_STILL = 2
_CROWDED = 0.05
"""Share of the plans in which a worker is busy for long."""


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """A job, what its caller does, and how its training goes.

    Attributes:
        samples: it is a sampling, of a row a batch, and no training.
        searches: it is a search, whose children train as the plan says.
        splits: it is a sampling whose children draw parts of the rows.
        key: it is asked for with an idempotency key, and again with the same one at `again_at`.
        epoch_s: seconds of one epoch of `batches`.
        cancel_at, resume_at: moments after it was asked for.
    """

    at: float
    epochs: int
    batches: int
    epoch_s: float
    samples: bool = False
    searches: bool = False
    splits: bool = False
    key: bool = False
    again_at: float | None = None
    cancel_at: float | None = None
    resume_at: float | None = None
    delete_dataset_at: float | None = None
    poison: Poison | None = None

    def calmer(self) -> Iterator["JobPlan"]:
        """The same with one thing less that its caller does."""
        if self.again_at is not None:
            yield replace(self, again_at=None)
        if self.cancel_at is not None:
            yield replace(self, cancel_at=None)
        if self.resume_at is not None:
            yield replace(self, resume_at=None)
        if self.delete_dataset_at is not None:
            yield replace(self, delete_dataset_at=None)


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """A worker; at least one of a plan is healthy."""

    slots: int = 1
    sickness: Sickness | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that happens at a moment; `target` says to which of those there are."""

    at: float
    kind: Kind
    target: int
    for_s: float


@dataclass(frozen=True, kw_only=True)
class CallFault:
    """Something that happens at the nth call of a kind: a transaction, a file, a start."""

    call: str
    nth: int
    effect: Effect


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A schedule; the seed also decides what goes first when two things happen at once.

    Attributes:
        message_loss: share of the messages that get lost; others come late or twice.
        boot_s: longest time that a trainer needs before its first line runs.
    """

    seed: int
    jobs: tuple[JobPlan, ...]
    workers: tuple[WorkerPlan, ...]
    faults: tuple[Fault, ...] = ()
    call_faults: tuple[CallFault, ...] = ()
    message_loss: float = 0.0
    boot_s: float = 0.5
    apis: int = 1

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.apis} API, messages lost {self.message_loss:.0%}"]
        parts: Iterator[JobPlan | WorkerPlan | Fault | CallFault]
        parts = chain(self.jobs, self.workers, self.faults, self.call_faults)
        for part in parts:
            given = ", ".join(
                f"{field.name}={_short(value)}"
                for field in fields(part)
                if (value := getattr(part, field.name)) != field.default
            )
            lines.append(f"  {type(part).__name__}({given})")
        return "\n".join(lines)

    def smaller(self) -> Iterator["Plan"]:
        """The plans that have one thing less."""
        for faults in _without_one(self.faults):
            yield replace(self, faults=faults)
        for call_faults in _without_one(self.call_faults):
            yield replace(self, call_faults=call_faults)
        for jobs in _without_one(self.jobs):
            yield replace(self, jobs=jobs)
        for workers in _without_one(self.workers):
            if any(worker.sickness is None for worker in workers):
                yield replace(self, workers=workers)
        yield from self._calmer()

    def _calmer(self) -> Iterator["Plan"]:
        if self.message_loss:
            yield replace(self, message_loss=0.0)
        for index, job in enumerate(self.jobs):
            for calmer in job.calmer():
                yield replace(self, jobs=(*self.jobs[:index], calmer, *self.jobs[index + 1 :]))


def _without_one(parts: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    return ((*parts[:index], *parts[index + 1 :]) for index in range(len(parts)))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw(seed: int) -> Plan:
    """The plan of a seed.

    Each allows a few kinds of faults only and repeats these: three blows of one kind in the same
    place find more than one of each (Groce et al., "Swarm Testing", 2012).
    """
    chance = random.Random(seed)
    if chance.random() < _CROWDED:
        return _one_is_busy(seed, chance)
    kinds = chance.sample(list(Kind), chance.randint(0, 3))
    calls = chance.sample([*TRANSACTIONS, *FILES, SPAWN], chance.randint(0, 2))
    horizon_s = chance.choice((3.0, 8.0, 15.0))
    return Plan(
        seed=seed,
        jobs=tuple(_job(chance, horizon_s) for _ in range(chance.choice((1, 1, 2, 2, 3)))),
        workers=_workers(chance),
        faults=tuple(_faults(chance, kinds, horizon_s)),
        call_faults=tuple(_call_fault(chance, calls) for _ in range(chance.randint(0, 3)))
        if calls
        else (),
        message_loss=chance.choice((0.0, 0.0, 0.3, 0.8)),
        boot_s=chance.choice((0.1, 0.5, 2.0)),
        apis=chance.choice((1, 1, 2)),
    )


def _one_is_busy(seed: int, chance: random.Random) -> Plan:
    """Two workers, of which one has a long job while those beside it are done on the other alone.

    What counts who has failed where is only seen there: left to chance, two workers seldom keep to
    their jobs for as long as three failures and the waits between them take.
    """
    long = JobPlan(at=0.0, epochs=chance.randint(3, 6), batches=4, epoch_s=12.0)
    others = [replace(_job(chance, 8.0), at=chance.uniform(1, 3)) for _ in range(2)]
    poison = chance.choice((Poison.AT_THE_START, Poison.AT_THE_START, Poison.IN_THE_MIDDLE, None))
    kills = (Kind.KILL_TRAINER, Kind.TERMINATE_TRAINER, Kind.KILL_WORKER)
    kinds = [chance.choice(kills)]
    return Plan(
        seed=seed,
        jobs=(long, replace(others[0], searches=False, cancel_at=None, poison=poison), *others[1:]),
        workers=(WorkerPlan(), WorkerPlan()),
        faults=tuple(_faults(chance, kinds, 8.0)) if poison is None else (),
        boot_s=chance.choice((0.1, 0.5)),
    )


def _job(chance: random.Random, horizon_s: float) -> JobPlan:
    def perhaps(share: float) -> float | None:
        latest_s = chance.choice((1.0, horizon_s))
        return chance.uniform(0, latest_s) if chance.random() < share else None

    key = chance.random() < 0.5
    kind = chance.random()
    return JobPlan(
        at=chance.uniform(0, horizon_s / 3),
        epochs=chance.randint(1, 3),
        batches=chance.randint(1, 4),
        epoch_s=chance.choice((0.1, 0.5, 2.0)),
        samples=kind < 0.4,
        splits=kind < 0.2,
        searches=kind > 0.75,
        key=key,
        again_at=perhaps(0.3) if key else None,
        cancel_at=perhaps(0.25),
        resume_at=perhaps(0.15),
        delete_dataset_at=perhaps(0.1),
        poison=chance.choice(list(Poison)) if chance.random() < 0.1 else None,
    )


def _workers(chance: random.Random) -> tuple[WorkerPlan, ...]:
    healthy = [WorkerPlan(slots=chance.choice((1, 1, 2))) for _ in range(chance.randint(1, 2))]
    sick = [WorkerPlan(sickness=chance.choice(list(Sickness)))] if chance.random() < 0.15 else []
    return tuple(chance.sample(healthy + sick, len(healthy) + len(sick)))


def _faults(chance: random.Random, kinds: list[Kind], horizon_s: float) -> Iterator[Fault]:
    """Any number of them, but a trainer stands still twice at the most: a third time is its fault."""
    still = 0
    for _ in range(chance.randint(0, 6) if kinds else 0):
        fault = _fault(chance, kinds, horizon_s)
        still += fault.kind is Kind.FREEZE_TRAINER
        if fault.kind is not Kind.FREEZE_TRAINER or still <= _MOST_STILL:
            yield fault


def _fault(chance: random.Random, kinds: list[Kind], horizon_s: float) -> Fault:
    return Fault(
        at=chance.uniform(0, horizon_s),
        kind=chance.choice(kinds),
        target=chance.randrange(4),
        for_s=chance.choice((0.5, 2.0, 8.0)),
    )


def _call_fault(chance: random.Random, calls: list[str]) -> CallFault:
    call = chance.choice(calls)
    if call == SPAWN:
        effects: tuple[Effect, ...] = (Effect.FAILS,)
    else:
        effects = FILE_EFFECTS if call in FILES else TRANSACTION_EFFECTS
    return CallFault(call=call, nth=chance.randint(1, 6), effect=chance.choice(effects))
