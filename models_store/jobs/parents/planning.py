"""Plans of the next step of a parent, which are worked out before anything is locked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models_store.database.schema import JobRow
from models_store.job_states import FINAL_STATES, JobKind, JobState
from models_store.plans.plan import Account, Child, Finish, GiveUp, Start, Step
from models_store.plans.steps import account_of, next_step
from models_store.records import NewVersion

log = logging.getLogger(__name__)

_FAULT = GiveUp("internal", "An unexpected fault of the service; its log tells more.")
_CHILD_BYTES = 2**16  # of a request; a child whose request is larger counts as several
_PRODUCT = select(JobRow.product).where(JobRow.id == bindparam("child_id"))


@dataclass(frozen=True, kw_only=True)
class ParentPlan:
    """Step of a parent, worked out before anything is locked.

    Attributes:
        ended: Children that it follows from; see `ended_of`.
        news: Those that have ended since the last step.
        account: Progress and metrics for the caller of the parent; None: as before.
        step: Step to take unless the parent is to be cancelled; None: children are at work.
        requests: Requests of the children that it starts, encoded.
        product: Product of a child that becomes the version or the result.
        version: Columns of the version.
        work: Children that were read, large ones as several.
    """

    ended: Mapping[str, object]
    news: Sequence[Child]
    account: Account | None
    step: Step | None
    requests: Sequence[dict[str, Any]] = ()
    product: Mapping[str, Any] = field(default_factory=dict)
    version: Mapping[str, Any] = field(default_factory=dict)
    work: int


def planned(session: Session, row: JobRow, children: Sequence[JobRow]) -> ParentPlan:
    """Work out the next step of a parent, in the transaction that has read it and its children."""
    known = [_known(session, child) for child in children]
    news = [
        one for child, one in zip(children, known, strict=True) if one.ended and not child.noticed
    ]
    step: Step | None = None
    account = None
    try:
        if news or not row.metrics:
            elapsed_s = _elapsed_s(row, children)
            account = account_of(JobKind(row.kind), row.request, known, elapsed_s=elapsed_s)
        if all(child.ended for child in known):
            step = next_step(JobKind(row.kind), row.request, known)
    except SQLAlchemyError:
        raise  # no fault of the plan
    except Exception:
        # One plan that cannot be carried out must not keep all others from being.
        log.exception("the next step of %s cannot be reported", row.id)
        step = _FAULT
    requests, product, version = list[dict[str, Any]](), dict[str, Any](), dict[str, Any]()
    if isinstance(step, Start):
        requests = [one.request for one in step.children]
    if isinstance(step, Finish):
        product = step.child.product()
        if step.child.kind.makes_version:
            version = vars(NewVersion(**product))
    return ParentPlan(
        ended=ended_of(children),
        news=news,
        account=account,
        step=step,
        requests=requests,
        product=product,
        version=version,
        work=work_of(children),
    )


def ended_of(children: Sequence[JobRow]) -> dict[str, object]:
    """Return how those children have ended that have, by their ids; one that was resumed is another."""
    return {
        child.id: (child.state, child.attempt) for child in children if child.state in FINAL_STATES
    }


def work_of(children: Sequence[JobRow]) -> int:
    """Return the number of children, those with a large request as several."""
    return sum(1 + child.metadata_bytes // _CHILD_BYTES for child in children)


def _elapsed_s(row: JobRow, children: Sequence[JobRow]) -> float | None:
    """Return the seconds from the start of a parent to the last end of a child."""
    ends = [child.finished_at for child in children if child.finished_at is not None]
    if row.started_at is None or not ends:
        return None
    return max(0.0, (max(ends) - row.started_at).total_seconds())


def _known(session: Session, row: JobRow) -> Child:
    place = row.place or {}
    return Child(
        id=row.id,
        kind=JobKind(row.kind),
        stage=place["stage"],
        number=place["number"],
        state=JobState(row.state),
        metrics=row.metrics or {},
        product=partial(_product_of, session, row.id),
        error_code=row.error_code,
        error_detail=row.error_detail,
    )


def _product_of(session: Session, child_id: str) -> dict[str, Any]:
    return session.scalar(_PRODUCT, {"child_id": child_id}) or {}
