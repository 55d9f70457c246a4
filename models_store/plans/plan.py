"""Steps of a parent: what it knows of its children, and what it does next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models_store.job_states import FINAL_STATES, JobKind, JobState

MAX_CHILDREN = 256
"""Most children of one parent, over all its stages."""

MAX_REQUESTS_BYTES = 16 << 20
"""Most bytes of the requests of children that start together: one transaction writes them."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """Child as its parent sees it.

    Attributes:
        stage: Stage of the parent's plan that it belongs to, counted from 0.
        number: Number among the parts of the plan: of a trial, of a range of rows.
        metrics: Metrics of the job, with those of its last report if it has not ended.
        product: Reads the result of one that has succeeded; it may be large.
        error_code: Stable name of the reason why it failed.
        error_detail: Sentence about that reason.
    """

    id: str
    kind: JobKind
    stage: int
    number: int
    state: JobState
    metrics: dict[str, Any]
    product: Callable[[], dict[str, Any]] = dict
    error_code: str | None = None
    error_detail: str | None = None

    @property
    def ended(self) -> bool:
        """True if the job has ended."""
        return self.state in FINAL_STATES

    @property
    def succeeded(self) -> bool:
        """True if it made what its parent needs."""
        return self.state is JobState.SUCCEEDED

    def told(self) -> dict[str, Any]:
        """Return what an event of its parent tells of its end."""
        numbers = {
            name: value
            for name, value in self.metrics.items()
            if value is None or isinstance(value, int | float | str)
        }
        error = {} if self.error_code is None else {"error": self.error_code}
        return {
            "job_id": self.id,
            "stage": self.stage,
            "number": self.number,
            "state": self.state.value,
            **error,
            "metrics": numbers,
        }


@dataclass(frozen=True, kw_only=True)
class NewChild:
    """Child that a parent starts; it has the parent's model and datasets.

    Attributes:
        stage: Stage of the plan.
        number: Number among the parts of the plan.
        request: Accepted request, a JSON object.
    """

    kind: JobKind
    stage: int
    number: int
    request: dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Step that starts children; the next step follows once they have ended."""

    children: tuple[NewChild, ...]


@dataclass(frozen=True)
class Finish:
    """Step that makes the product of a child the result of the parent."""

    child: Child


@dataclass(frozen=True)
class GiveUp:
    """Step that makes the parent fail."""

    code: str
    detail: str


Step = Start | Finish | GiveUp


Account = tuple[dict[str, Any], dict[str, Any]]
"""Metrics and progress, JSON objects, that a parent tells its caller while its children work."""


def remaining_s(fraction: float, elapsed_s: float | None) -> float | None:
    """Return the seconds that are left at the pace so far; None: nothing has been done yet.

    Args:
        fraction: Finished part of the work.
        elapsed_s: Seconds that it took, by as many workers as there are; None: not known.
    """
    if elapsed_s is None or fraction <= 0:
        return None
    return round(elapsed_s * (1 - fraction) / fraction, 1)


def lasting_failure(children: list[Child]) -> GiveUp:
    """Return the step after every child failed: the common reason, or that there were several."""
    failed = [child for child in children if child.state is JobState.FAILED]
    codes = sorted({child.error_code or "internal" for child in failed})
    if len(codes) == 1 and failed[0].error_detail:
        number = "Its child" if len(failed) == 1 else f"All of its {len(failed)} children"
        return GiveUp(codes[0], f"{number} failed. The first one: {failed[0].error_detail}")
    if not failed:
        return GiveUp("children_cancelled", "All of its children were cancelled.")
    return GiveUp("children_failed", f"All of its children failed: {', '.join(codes)}.")
