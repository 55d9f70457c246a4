"""Decisions of the product, each of which can be taken back to see that a schedule notices."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import pytest

import models_store.database.usage
import models_store.jobs.attempt_ends
import models_store.jobs.claims
import models_store.jobs.held_jobs
import models_store.jobs.job_queue
import models_store.jobs.jobs
import models_store.jobs.leases
import models_store.jobs.parents.steps
import models_store.jobs.retries
import models_store.jobs.rows
import models_store.plans.parts
import models_store.registry
import models_store.rows.idempotency
import tests.simulation.world
import workers.supervisor.fitness
import workers.trainer.__main__
from tests.simulation.plan import (
    CallFault,
    Effect,
    Fault,
    JobPlan,
    Kind,
    Plan,
    Poison,
    Sickness,
    WorkerPlan,
)


@dataclass(frozen=True)
class Change:
    """A piece of the source of a function, and what it becomes.

    Attributes:
        owner: module or class.
        function: its name there.
        old: must be in its source once, so that a change never turns into nothing unseen.
    """

    owner: ModuleType | type
    function: str
    old: str
    new: str

    def make(self, patch: pytest.MonkeyPatch) -> None:
        """Change it, wherever it was imported to."""
        function: Callable[..., object] = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.function} has changed: change this with it"
        module = sys.modules[function.__module__]
        namespace: dict[str, Callable[..., object]] = {}
        # What it names is looked up in its own module, as before.
        exec(source.replace(self.old, self.new), vars(module), namespace)  # noqa: S102 - our own source
        changed = namespace[self.function]
        if isinstance(self.owner, type):
            patch.setattr(self.owner, self.function, changed)
            return
        for other in list(sys.modules.values()):
            if getattr(other, self.function, None) is function:
                patch.setattr(other, self.function, changed)


@dataclass(frozen=True)
class Value:
    """A constant, and what it becomes."""

    owner: ModuleType | type
    name: str
    new: object

    def make(self, patch: pytest.MonkeyPatch) -> None:
        """Change it."""
        patch.setattr(self.owner, self.name, self.new)


@dataclass(frozen=True)
class Mutation:
    """A decision taken back.

    Attributes:
        name: what is no longer so.
        breaks: part of the promise that a schedule then breaks.
        where: makes of a plan one in which that soon happens, if few plans would do.
    """

    name: str
    changes: tuple[Change | Value, ...]
    breaks: str
    where: Callable[[Plan], Plan] = lambda plan: plan


def forget_statements() -> None:
    """Have the statements that the store builds once built again, by its code of now."""
    for name, module in list(sys.modules.items()):
        if name.startswith("models_store."):
            for member in vars(module).values():
                if hasattr(member, "cache_clear"):
                    member.cache_clear()


def _no_fault(*_: object) -> None:
    """Find nothing amiss with a worker."""


def _workers_freeze(plan: Plan) -> Plan:
    """Past the leases of what they do, beside another one."""
    faults = [
        Fault(at=job.at + at, kind=Kind.FREEZE_WORKER, target=1, for_s=8.0)
        for job in plan.jobs
        for at in (0.5, 1.0)
    ]
    return replace(plan, faults=tuple(faults), workers=(WorkerPlan(), WorkerPlan(slots=2)))


def _three_at_once(plan: Plan) -> Plan:
    """Jobs of two projects, and a worker that begins them one after the other."""
    jobs = tuple(
        replace(plan.jobs[0], at=at, epochs=3, epoch_s=2.0) for at in (0.0, 0.05, 0.1, 0.15)
    )
    return replace(plan, jobs=jobs, faults=(), call_faults=(), workers=(WorkerPlan(slots=2),))


def _one_at_a_time(plan: Plan) -> Plan:
    """Jobs of two projects that wait together for one worker, of which the first is taken alone."""
    jobs = tuple(replace(plan.jobs[0], at=at, epochs=1, epoch_s=2.0) for at in (0.0, 0.05, 0.1))
    return replace(plan, jobs=jobs, faults=(), call_faults=(), workers=(WorkerPlan(),))


def _trainers_are_killed(plan: Plan) -> Plan:
    faults = [
        Fault(at=job.at + at, kind=Kind.KILL_TRAINER, target=0, for_s=0.0)
        for job in plan.jobs
        for at in (0.1, 1.0, 2.0, 4.0)
    ]
    return replace(plan, faults=tuple(faults))


def _jobs_search(plan: Plan) -> Plan:
    return replace(
        plan,
        jobs=tuple(replace(job, samples=False, splits=False, searches=True) for job in plan.jobs),
    )


def _samplings_are_split(plan: Plan) -> Plan:
    jobs = [
        replace(job, samples=True, searches=False, splits=True, batches=4, poison=None)
        for job in plan.jobs
    ]
    return replace(plan, jobs=tuple(jobs))


def _one_loses_its_messages(plan: Plan) -> Plan:
    """One job and few processes, so that its end is seen to be missing soon."""
    alone = _alone(plan.jobs[0])
    return replace(_undisturbed(plan), jobs=(alone,), message_loss=0.8)


def _one_is_cancelled_near_its_end(plan: Plan) -> Plan:
    """One job of an epoch; in each plan another of the moments when that may be over."""
    alone = replace(_alone(plan.jobs[0]), epochs=1, samples=False)
    cancel_at = alone.epoch_s + 0.6 + 0.3 * (plan.seed % 101) / 101
    return replace(_undisturbed(plan), jobs=(replace(alone, cancel_at=cancel_at),))


def _a_search_loses_its_messages(plan: Plan) -> Plan:
    return _jobs_search(_one_loses_its_messages(plan))


def _one_is_poison(plan: Plan) -> Plan:
    alone = replace(_alone(plan.jobs[0]), poison=Poison.AT_THE_START)
    return replace(_undisturbed(plan), jobs=(alone,))


def _jobs_fail_on_one_worker(plan: Plan) -> Plan:
    """Beside another one, which is busy."""
    poisoned = replace(_alone(plan.jobs[0]), poison=Poison.AT_THE_START)
    long = replace(_alone(plan.jobs[0]), at=0.0, epochs=40, epoch_s=5.0)
    workers = (WorkerPlan(), WorkerPlan())
    return replace(_undisturbed(plan), jobs=(long, replace(poisoned, at=2.0)), workers=workers)


def _alone(job: JobPlan) -> JobPlan:
    return replace(job, searches=False, splits=False, poison=None, cancel_at=None, resume_at=None)


def _undisturbed(plan: Plan) -> Plan:
    return replace(plan, apis=1, faults=(), call_faults=(), workers=(WorkerPlan(),))


def _searches_are_cancelled(plan: Plan) -> Plan:
    jobs = [
        replace(job, cancel_at=job.epoch_s * 2 + 1.5, resume_at=None, poison=None)
        for job in _jobs_search(plan).jobs
    ]
    return replace(plan, jobs=tuple(jobs))


def _diverging_jobs_are_cancelled(plan: Plan) -> Plan:
    jobs = [
        replace(job, poison=Poison.DIVERGES, cancel_at=job.epoch_s / 2 + 0.5, resume_at=None)
        for job in plan.jobs
    ]
    return replace(plan, jobs=tuple(jobs))


def _a_worker_lacks_torch(plan: Plan) -> Plan:
    return replace(plan, workers=(WorkerPlan(sickness=Sickness.BROKEN_TORCH), WorkerPlan()))


def _a_worker_lacks_its_store(plan: Plan) -> Plan:
    return replace(plan, workers=(WorkerPlan(sickness=Sickness.STORE_NOT_MOUNTED), WorkerPlan()))


def _models_are_not_stored(plan: Plan) -> Plan:
    return replace(plan, call_faults=(CallFault(call="models", nth=1, effect=Effect.FAILS),))


def _datasets_are_deleted(plan: Plan) -> Plan:
    jobs = [replace(job, samples=False, splits=False, delete_dataset_at=0.0) for job in plan.jobs]
    return replace(plan, jobs=tuple(jobs))


# What a single job comes to without disturbance takes less than a minute.
_WATCHED_SHORTLY = Value(tests.simulation.world, "LIMIT_S", 300.0)

MUTATIONS = (
    Mutation(
        "writes are fenced by the attempt",
        (
            Change(
                models_store.jobs.held_jobs, "_held", '_JOB.attempt == bindparam("of_attempt"),', ""
            ),
            Change(
                models_store.jobs.leases, "_renewal", '_JOB.attempt == bindparam("of_attempt"),', ""
            ),
        ),
        "writes,",
        where=_workers_freeze,
    ),
    Mutation(
        "a lease holds until its end",
        (
            Change(
                models_store.jobs.rows,
                "expired_leases",
                "JobRow.lease_expires_at <= db_now()",
                "JobRow.id.is_not(None)",
            ),
        ),
        "two leases at once",
    ),
    Mutation(
        "one key is one job",
        (
            Change(
                models_store.rows.idempotency,
                "_claim",
                "where=IdempotencyRow.expires_at <= db_now()",
                "where=None",
            ),
            Change(
                models_store.jobs.jobs.Jobs, "submitted", "known_resource(", "(lambda *_: None)("
            ),
        ),
        "one key,",
    ),
    Mutation(
        "no success after a cancel",
        (
            Change(
                models_store.jobs.attempt_ends, "_succeed", "if row.cancel_requested:", "if False:"
            ),
        ),
        "succeeds after a cancel",
        where=_one_is_cancelled_near_its_end,
    ),
    Mutation(
        "a cancel holds for a job that fails",
        (
            Change(
                models_store.jobs.leases.JobWork,
                "fail",
                "if not row.cancel_requested:",
                "if row:",
            ),
        ),
        "cancelled, and not so in the end",
        where=_diverging_jobs_are_cancelled,
    ),
    Mutation(
        "lost messages are sent again",
        (
            Change(
                models_store.jobs.job_queue.JobQueue,
                "_sweep",
                "waiting[queued:]",
                "waiting[:0]",
            ),
            _WATCHED_SHORTLY,
        ),
        "not over",
        where=_one_loses_its_messages,
    ),
    Mutation(
        "a checkpoint is named as long as it may be needed",
        (
            Change(
                models_store.jobs.held_jobs,
                "name_checkpoint",
                "in named[_CHECKPOINTS_KEPT:]",
                "in named[1:]",
            ),
        ),
        "named and not there",
    ),
    Mutation(
        "a dataset stays as long as a job needs it",
        (
            Change(
                models_store.registry.Registry,
                "delete_dataset",
                "user_of(",
                "(lambda *_: None)(",
            ),
        ),
        "an innocent job is failed (dataset_missing)",
        where=_datasets_are_deleted,
    ),
    Mutation(
        "a job that has ended gives back what it reserved",
        (
            Change(
                models_store.database.usage,
                "charge_of_job",
                "return stored if row.state in FINAL_STATES else max",
                "return max",
            ),
        ),
        "it keeps its reservation",
    ),
    Mutation(
        "the parts of a file are in the order of their rows",
        (
            Change(
                models_store.plans.parts,
                "parts_step",
                "sorted(children, key=lambda child: child.number)",
                "children[::-1]",
            ),
        ),
        "its file is another",
        where=_samplings_are_split,
    ),
    Mutation(
        "a parent whose step is due is found without a message",
        (
            Change(models_store.jobs.jobs, "_claimable", "due_parents(jobs), ", ""),
            _WATCHED_SHORTLY,
        ),
        "not over",
        where=_a_search_loses_its_messages,
    ),
    Mutation(
        "a cancel holds for a parent whose children have succeeded",
        (
            Change(
                models_store.jobs.parents.steps,
                "_take_step",
                "if row.cancel_requested:",
                "if False:",
            ),
        ),
        "cancelled, and not so in the end",
        where=_searches_are_cancelled,
    ),
    Mutation(
        "what children store counts once",
        (Change(models_store.database.usage, "charge_of_job", "if row.covered:", "if False:"),),
        "a child is charged twice or never",
        where=_jobs_search,
    ),
    Mutation(
        "a parent waits for all of its children",
        (
            Change(
                models_store.jobs.parents.steps,
                "_take_step",
                "if len(plan.ended) < len(children):",
                "if children and not plan.ended:",
            ),
        ),
        "a parent ends before its children",
        where=_jobs_search,
    ),
    Mutation(
        "poison ends",
        (
            Change(models_store.jobs.retries, "verdict", "if len(counted) >= ", "if 0 > "),
            _WATCHED_SHORTLY,
        ),
        "not over",
        where=_one_is_poison,
    ),
    Mutation(
        "what is done from outside does not speak against a job",
        (Value(models_store.jobs.retries, "OUTSIDE_LIMIT", models_store.jobs.retries.OWN_LIMIT),),
        "it is given up too soon",
        where=_trainers_are_killed,
    ),
    Mutation(
        "attempts wait longer each time",
        (Value(models_store.jobs.retries, "_LONGEST_WAIT_S", 1.0),),
        "it is tried again after",
        where=_trainers_are_killed,
    ),
    Mutation(
        "no worker alone gives a job up",
        (Value(models_store.jobs.retries, "PATIENCE", 1),),
        "it is given up too soon",
        where=_jobs_fail_on_one_worker,
    ),
    Mutation(
        "a newer checkpoint is progress",
        (Change(models_store.jobs.held_jobs, "name_checkpoint", "row.failures = []", "pass"),),
        "a newer checkpoint is no progress",
    ),
    Mutation(
        "what a worker lacks is not the fault of its job",
        (
            Change(
                workers.trainer.__main__,
                "outcome_of",
                "Unfit(code=error.code",
                "Failed(code=error.code",
            ),
            Value(workers.supervisor.fitness.Fitness, "_fault_of_trainer", _no_fault),
        ),
        "an innocent job is failed (imports)",
        where=_a_worker_lacks_torch,
    ),
    Mutation(
        "a worker tests itself before its first job and after its environment failed one",
        (
            Value(workers.supervisor.fitness.Fitness, "_fault_of_trainer", _no_fault),
            Value(workers.supervisor.fitness.Fitness, "judge", _no_fault),
        ),
        "a sick worker took",
        where=_a_worker_lacks_torch,
    ),
    Mutation(
        "a store that fails is not the fault of its job",
        (
            Change(
                workers.trainer.__main__,
                "_of_system",
                'Unfit(code="storage_unavailable"',
                'Failed(code="storage_unavailable"',
            ),
        ),
        "an innocent job is failed (storage_unavailable)",
        where=_models_are_not_stored,
    ),
    Mutation(
        "a worker knows its store",
        (Value(workers.supervisor.fitness.Fitness, "_fault_of_store", _no_fault),),
        "(dataset_corrupt)",
        where=_a_worker_lacks_its_store,
    ),
    Mutation(
        "projects take turns at the queue",
        (
            Change(
                models_store.jobs.rows,
                "queue",
                "func.coalesce(running.c.jobs, 0),",
                "",
            ),
        ),
        "a job is passed by a later one",
        where=_three_at_once,
    ),
    Mutation(
        "a claim uses the turn of its project",
        (
            Change(
                models_store.jobs.claims,
                "claim",
                "take_turn(session, row.project)",
                "pass",
            ),
        ),
        "a job is passed by a later one",
        where=_one_at_a_time,
    ),
)
