"""What is left when everything is over, held against what was promised."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select

from models_store.consistency import compare
from models_store.database.database import Database
from models_store.database.schema import JobRow, ModelVersionRow
from models_store.files.blobs import Blobs
from models_store.job_states import TRANSITIONS, EventKind, Job, JobRole, JobState
from models_store.jobs.jobs import Jobs
from tests.chaos.caller import SAMPLING, SCORING, Accepted

PROJECT = "default"


class Verdict:
    """The service's rows and files at the end.

    Args:
        database: of the service.
        blobs: of the service.
        logs: the logs of its workers.
    """

    def __init__(self, database: Database, blobs: Blobs, *, logs: list[Path]) -> None:
        self._jobs = Jobs(database)
        with database.read() as session:
            alone = JobRow.role.is_distinct_from(JobRole.CHILD)
            self._rows = session.scalar(select(func.count()).select_from(JobRow).where(alone))
            made = (
                ModelVersionRow.job_id,
                ModelVersionRow.version,
                ModelVersionRow.checkpoint_sha256,
            )
            self._versions = list(session.execute(select(*made).order_by(made[1])).tuples())
        self._begun = Counter(_begun(logs))
        self._files = compare(database, blobs, deep=True, grace_s=0)

    @property
    def versions(self) -> int:
        """The number of versions of the model."""
        return len(self._versions)

    def violations(self, accepted: Accepted) -> Iterator[str]:
        """Yield each broken promise as a sentence; none when all were kept."""
        found = [self._jobs.get(PROJECT, job_id) for job_id in accepted.seeds]
        if self._rows != len(found):
            yield f"{len(found)} jobs were accepted, there are {self._rows}"
        for (job_id, attempt), number in self._begun.items():
            if number > 1:
                yield f"attempt {attempt} of {job_id} was begun {number} times"
        for bad in self._files.unusable:
            yield f"a file cannot be used: {bad}"
        for job in found:
            yield from _of_job(job, was_cancelled=job.id in accepted.cancelled)
            yield from _of_events(job, self._jobs)
        yield from self._of_versions(found)
        yield from self._of_bytes(found, accepted)

    def summary(self, accepted: Accepted) -> Iterator[str]:
        """Yield lines on what happened."""
        found = [self._jobs.get(PROJECT, job_id) for job_id in accepted.seeds]
        yield f"states   {listed(Counter(job.state.value for job in found))}"
        errors = Counter(job.error["code"] for job in found if job.error)
        if errors:
            yield f"failures {listed(errors)}"
        yield f"attempts {sum(self._begun.values())} begun, children included"
        yield f"files that no row names: {len(self._files.orphans)}"

    def _of_versions(self, found: list[Job]) -> Iterator[str]:
        """A job that makes one has one version, and no other job has any."""
        of_job = Counter(job_id for job_id, _, _ in self._versions)
        for job in found:
            wanted = int(job.state is JobState.SUCCEEDED and job.kind.makes_version)
            if of_job.pop(job.id, 0) != wanted:
                yield f"{job.id} is {job.state} and has not {wanted} versions"
        if of_job:
            yield f"versions of unknown jobs: {dict(of_job)}"
        numbers = [number for _, number, _ in self._versions]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"the versions are {numbers}"

    def _of_bytes(self, found: list[Job], accepted: Accepted) -> Iterator[str]:
        """Equal requests give equal bytes, however often each was killed."""
        made: dict[str, set[str]] = defaultdict(set)
        for job_id, version, sha256 in self._versions:
            seed = accepted.seeds.get(str(job_id))
            made[f"model of seed {seed}"].add(sha256)
            made[f"scores of seed {seed}"] |= _densities(accepted.scores[version])
        for job in found:
            if accepted.seeds[job.id] in (SAMPLING, SCORING) and job.result is not None:
                made[job.kind.value].add(job.result["sha256"])
        for what, different in made.items():
            if len(different) > 1:
                yield f"{what}: {len(different)} different ones"


def _densities(answers: set[bytes]) -> set[str]:
    """Return answers without the name of the version that gave them."""
    return {json.dumps(json.loads(answer)["log_prob"]) for answer in answers}


def _of_job(job: Job, *, was_cancelled: bool) -> Iterator[str]:
    if not job.final:
        yield f"{job.id} is {job.state} and will never end"
    if job.state is JobState.FAILED and not (job.error and job.error["detail"]):
        yield f"{job.id} failed without a reason"
    if job.state is JobState.CANCELLED and not was_cancelled:
        yield f"{job.id} was cancelled and nobody asked for it"
    if job.state is JobState.SUCCEEDED and not job.kind.makes_version and job.result is None:
        yield f"{job.id} succeeded without a file"


def _of_events(job: Job, jobs: Jobs) -> Iterator[str]:
    events = jobs.events(PROJECT, job.id, limit=100_000)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield f"the events of {job.id} have gaps"
    epochs = [
        event.data["epoch"]
        for event in events
        if "epoch" in event.data and event.event is EventKind.EPOCH
    ]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"the epochs of {job.id} are {epochs}"
    states = [JobState(event.data["state"]) for event in events if event.event is EventKind.STATE]
    for before, after in pairwise(states):
        if after not in TRANSITIONS[before]:
            yield f"{job.id} went from {before} to {after}"
    if states[-1] is not job.state:
        yield f"{job.id} is {job.state}, its events say {states[-1]}"


def _begun(logs: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield job and attempt of each beginning that a worker logged."""
    for path in logs:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            match str(entry.get("message", "")).split():
                case ["attempt", number, "begins"]:
                    yield entry["job_id"], number
                case _:
                    pass


def listed(counts: Counter[str]) -> str:
    """Return counts in one line."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
