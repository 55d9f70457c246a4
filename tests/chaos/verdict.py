"""What is left when everything is over, held against what was promised."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select

from models_store.database.database import Database
from models_store.database.schema import JobRow, ModelVersionRow
from models_store.errors import StoreError
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model
from models_store.job_states import TRANSITIONS, EventKind, Job, JobKind, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.records import VersionSummary
from models_store.registry import Registry
from tests.chaos.caller import MODEL, Accepted

PROJECT = "default"


class Verdict:
    """The service's rows and files at the end.

    Args:
        database: of the service.
        blobs: of the service.
        accepted: what it promised.
        logs: the logs of its workers.
    """

    def __init__(
        self, database: Database, blobs: Blobs, accepted: Accepted, *, logs: list[Path]
    ) -> None:
        self._database = database
        self._jobs = Jobs(database)
        self._registry = Registry(database)
        self._blobs = blobs
        self._accepted = accepted
        self._found = [self._jobs.get(PROJECT, job_id) for job_id in accepted.seeds]
        self._versions = list(self._all_versions())
        self._begun = Counter(_begun(logs))
        self.states = Counter(job.state.value for job in self._found)
        self.starts = sum(self._begun.values())
        self.double_starts = sum(number - 1 for number in self._begun.values())
        self.attempts = sum(job.attempt for job in self._found)
        self.errors = Counter(job.error["code"] for job in self._found if job.error)
        with database.read() as session:
            named = set(session.scalars(select(ModelVersionRow.checkpoint_key)))
        self.orphans = len(set(blobs.keys("models")) - named)

    def violations(self) -> list[str]:
        """Each broken promise as a sentence; empty when all were kept."""
        found = [*self._of_rows(), *self._of_versions(), *self._of_models(), *self._of_files()]
        return [*found, *self._of_events()]

    def _of_rows(self) -> Iterator[str]:
        with self._database.read() as session:
            alone = JobRow.role.is_distinct_from(JobRole.CHILD)
            rows = session.scalar(select(func.count()).select_from(JobRow).where(alone))
        if rows != len(self._accepted.seeds):
            yield f"{len(self._accepted.seeds)} jobs were accepted, there are {rows}"
        for (job_id, attempt), number in self._begun.items():
            if number > 1:
                yield f"attempt {attempt} of {job_id} was begun {number} times"
        for job in self._found:
            if not job.final:
                yield f"{job.id} is {job.state} and will never end"
            if job.state is JobState.FAILED and not (job.error and job.error["detail"]):
                yield f"{job.id} failed without a reason"
            if job.state is JobState.CANCELLED and job.id not in self._accepted.cancelled:
                yield f"{job.id} was cancelled and nobody asked for it"

    def _of_versions(self) -> Iterator[str]:
        of_job = Counter(version.job_id for version in self._versions)
        for job in self._found:
            wanted = int(job.state is JobState.SUCCEEDED and job.kind.makes_version)
            if of_job[job.id] != wanted:
                yield f"{job.id} is {job.state} and has {of_job[job.id]} versions"
        numbers = sorted(version.version for version in self._versions)
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"the versions are {numbers}"
        with self._database.read() as session:
            of_jobs = ModelVersionRow.job_id.is_not(None)
            rows = session.scalar(select(func.count()).where(of_jobs))
        if rows != len(numbers):
            yield f"the model has {len(numbers)} versions, there are {rows}"

    def _of_models(self) -> Iterator[str]:
        """Equal requests give equal bytes, however often each was killed."""
        hashes: dict[int, str] = {}
        for version in self._versions:
            try:
                whole = self._registry.version(PROJECT, MODEL, version.version)
                load_model(
                    self._blobs,
                    version.checkpoint_key,
                    version.checkpoint_sha256,
                    spec=whole.flow,
                    columns=whole.columns,
                )
            except StoreError as error:
                yield f"version {version.version} cannot be read: {error}"
            assert version.job_id is not None  # nothing here imports models
            seed = self._accepted.seeds[version.job_id]
            if hashes.setdefault(seed, version.checkpoint_sha256) != version.checkpoint_sha256:
                yield f"version {version.version} differs from others of its seed"

    def _of_files(self) -> Iterator[str]:
        """Each sampling that succeeded has the one file that its request gives."""
        hashes = set()
        for job in self._found:
            if job.kind is not JobKind.SAMPLING or job.state is not JobState.SUCCEEDED:
                continue
            if job.result is None:
                yield f"{job.id} succeeded without a file"
                continue
            try:
                self._blobs.verify(job.result["key"], job.result["sha256"])
            except StoreError as error:
                yield f"the file of {job.id} cannot be read: {error}"
            hashes.add(job.result["sha256"])
        if len(hashes) > 1:
            yield f"one request gave {len(hashes)} files"

    def _of_events(self) -> Iterator[str]:
        for job in self._found:
            yield from _of_events(job, self._jobs)

    def _all_versions(self) -> Iterator[VersionSummary]:
        cursor = None
        while True:
            page = self._registry.versions(PROJECT, MODEL, limit=100, cursor=cursor)
            yield from page.items
            if (cursor := page.next_cursor) is None:
                return


def _of_events(job: Job, jobs: Jobs) -> Iterator[str]:
    events = jobs.events(PROJECT, job.id, limit=100_000)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield f"the events of {job.id} have gaps"
    epochs = [event.data["epoch"] for event in events if event.event is EventKind.EPOCH]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"the epochs of {job.id} are {epochs}"
    states = [JobState(event.data["state"]) for event in events if event.event is EventKind.STATE]
    for before, after in pairwise(states):
        if after not in TRANSITIONS[before]:
            yield f"{job.id} went from {before} to {after}"
    if states[-1] is not job.state:
        yield f"{job.id} is {job.state}, its events say {states[-1]}"


def _begun(logs: list[Path]) -> Iterator[tuple[str, str]]:
    """Job and attempt of each beginning that a worker logged."""
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
