"""Callers: they ask, ask again when the connection broke, change their minds, and remember answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from models_store.errors import (
    DatabaseError,
    DatasetInUseError,
    JobFinalError,
    JobNotResumableError,
    NotFoundError,
)
from models_store.job_states import Idempotency, Job, JobKind, JobRole, NewJob
from models_store.records import NewDataset
from tests.simulation.kernel import Kernel, Process
from tests.simulation.plan import JobPlan
from tests.simulation.service import Api

T = TypeVar("T")

_TRIES = 60
_PAUSE_S = 0.5
_TIMEOUT_S = 20.0
RESERVED_BYTES = 2**30
"""Bytes that a job reserves, more than all that it ever stores."""


@dataclass
class Asked:
    """A job as its caller knows it.

    Attributes:
        ids: of the jobs that answers named; more than one only where no key was given.
        cancelled: the last change that was answered was a cancel.
        perhaps: a change was asked for and never answered.
    """

    plan: JobPlan
    dataset: NewDataset
    ids: list[str] = field(default_factory=list)
    cancelled: bool = False
    perhaps: bool = False


class Caller:
    """Asks for one job and does what its plan says."""

    def __init__(
        self,
        number: int,
        asked: Asked,
        *,
        kernel: Kernel,
        apis: list[Api],
        request: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._number = number
        self.asked = asked
        self._kernel = kernel
        self._apis = apis
        self._request = request
        self._say = say
        self._project = asked.dataset.project
        self._process = Process(f"caller {number}")

    def begin(self) -> None:
        """Start its threads."""
        plan = self.asked.plan
        self._kernel.spawn(self._process, self._main)
        if plan.again_at is not None:
            again_at = plan.at + plan.again_at
            self._kernel.spawn(self._process, lambda: self._after(again_at, self._submit))
        if plan.delete_dataset_at is not None:
            delete_at = plan.at + plan.delete_dataset_at
            self._kernel.spawn(self._process, lambda: self._after(delete_at, self._delete))

    @property
    def busy(self) -> bool:
        """Whether it still does something."""
        return any(not task.done for task in self._process.tasks)

    def end(self) -> None:
        """Stop asking."""
        self._kernel.kill(self._process)

    def _after(self, at: float, action: Callable[[], None]) -> None:
        self._kernel.sleep(at)
        action()

    def _main(self) -> None:
        plan, began_at = self.asked.plan, self.asked.plan.at
        self._kernel.sleep(began_at)
        self._submit()
        changes = [(plan.cancel_at, self._cancel), (plan.resume_at, self._resume)]
        for at, change in sorted(
            ((at, change) for at, change in changes if at is not None), key=lambda item: item[0]
        ):
            self._kernel.sleep(began_at + at - self._kernel.now)
            if self.asked.ids:
                change()

    def _submit(self) -> None:
        plan = self.asked.plan
        new = NewJob(
            project=self._project,
            kind=JobKind.SAMPLING if self.asked.plan.samples else JobKind.TRAINING,
            model_name="base" if self.asked.plan.samples else "m",
            model_version=1 if self.asked.plan.samples else None,
            dataset_id=None if self.asked.plan.samples else self.asked.dataset.id,
            request=self._request,
            request_id=f"job {self._number}",
            reserved_bytes=RESERVED_BYTES,
            priority=self._number % 3 - 1,
            role=JobRole.PARENT if plan.searches or plan.splits else None,
        )
        key = None
        if self.asked.plan.key:
            key = Idempotency.of(f"key-{self._number}", new.kind, str(self._number))

        def handle(api: Api) -> Job:
            """Submit a job as `app.jobs.submission` does."""
            first = api.jobs.submitted(self._project, key) if key is not None else None
            submitted = first or api.jobs.submit(new, idempotency=key)
            if not submitted.replayed:
                api.queue.announce(submitted.job.id, wait_s=0)
            return submitted.job

        try:
            job = self._call(handle, again=key is not None)
        except NotFoundError:
            self._say("its dataset is gone")
            return
        if job is not None:
            self._say(f"accepted {job.id}")
            self.asked.ids.append(job.id)

    def _cancel(self) -> None:
        try:
            job = self._call(lambda api: api.jobs.cancel(self._project, self.asked.ids[0]))
        except JobFinalError:
            self._say("too late to cancel")
            return
        self.asked.perhaps |= job is None
        self.asked.cancelled = True
        self._say("cancelled")

    def _resume(self) -> None:
        tried: list[Api] = []

        def resume(api: Api) -> Job:
            tried.append(api)
            return api.jobs.resume(self._project, self.asked.ids[0])

        try:
            job = self._call(resume)
        except JobNotResumableError:
            # Of the second try it may mean that the first one did it.
            if len(tried) > 1 and self.asked.cancelled:
                self.asked.perhaps = True
            return
        except NotFoundError:
            self._say("its dataset is gone")
            return
        self.asked.perhaps |= job is None
        self.asked.cancelled = False
        self._say("resumed")

    def _delete(self) -> None:
        try:
            dataset_id = self.asked.dataset.id
            self._call(lambda api: api.registry.delete_dataset(self._project, dataset_id))
        except (DatasetInUseError, NotFoundError):
            return
        self._say("deleted its dataset")

    def _call(self, handle: Callable[[Api], T], *, again: bool = True) -> T | None:
        """Ask until there is an answer; None when it stays unknown what became of it."""
        for _ in range(_TRIES if again else 1):
            api = self._kernel.random.choice(self._apis)
            try:
                return self._kernel.call(api.process, lambda: handle(api))  # noqa: B023 - at once
            except (ConnectionResetError, AttributeError, DatabaseError):
                self._kernel.sleep(_PAUSE_S)
        return None
