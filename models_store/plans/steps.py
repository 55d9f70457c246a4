"""Steps of a parent of any kind."""

from typing import Any

from models_store.job_states import JobKind
from models_store.plans.parts import parts_account, parts_step
from models_store.plans.plan import Account, Child, Step
from models_store.plans.search import search_account, search_step


def next_step(kind: JobKind, request: dict[str, Any], children: list[Child]) -> Step:
    """Return the next step of a parent all of whose children have ended.

    Args:
        kind: Kind of the parent.
        request: Its accepted request.
        children: Its children, in the order in which they were started.
    """
    match kind:
        case JobKind.TRAINING:
            return search_step(request, children)
        case JobKind.SCORING | JobKind.SAMPLING:
            return parts_step(kind, request, children)
        case _:
            raise ValueError(f"a {kind} has no children")


def account_of(
    kind: JobKind,
    request: dict[str, Any],
    children: list[Child],
    *,
    elapsed_s: float | None = None,
) -> Account:
    """Return what a parent tells its caller.

    Args:
        kind: Kind of the parent.
        request: Its accepted request.
        children: Its children, in the order in which they were started.
        elapsed_s: Seconds from its start to the last end of a child; None: none has ended.
    """
    match kind:
        case JobKind.TRAINING:
            return search_account(request, children, elapsed_s=elapsed_s)
        case JobKind.SCORING | JobKind.SAMPLING:
            return parts_account(request, children, elapsed_s=elapsed_s)
        case _:
            raise ValueError(f"a {kind} has no children")
