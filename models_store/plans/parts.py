"""Plan of a bulk job of many rows: children compute its parts, and one writes the file from them.

Parts are ranges of rows whose bounds follow from the request alone. The file is written once, by one
child, after all parts are durable; so it is the same whoever computed which of them, and when.
"""

from typing import Any

from models_store.job_states import JobKind, JobState
from models_store.plans.plan import (
    Account,
    Child,
    Finish,
    GiveUp,
    NewChild,
    Start,
    Step,
    remaining_s,
)

_COMPUTING, _WRITING = 0, 1
# Part of the work that is computing; the rest is writing.
_COMPUTING_SHARE = 0.9


def parts_step(kind: JobKind, request: dict[str, Any], children: list[Child]) -> Step:
    """Return the next step of a bulk job all of whose children have ended."""
    if not children:
        return Start(tuple(_parts(kind, request)))
    if not all(child.succeeded for child in children):
        return _failure(children)
    last = children[-1]
    if last.stage == _WRITING:
        return Finish(last)
    pieces = [_piece(child) for child in sorted(children, key=lambda child: child.number)]
    fields = {**request, "part_rows": None, "pieces": pieces}
    return Start((NewChild(kind=kind, stage=_WRITING, number=0, request=fields),))


def parts_account(
    request: dict[str, Any], children: list[Child], *, elapsed_s: float | None
) -> Account:
    """Return how many rows are computed, and how far the job is."""
    total = request["total_rows"]
    done = [child for child in children if child.succeeded and child.stage == _COMPUTING]
    spans = _spans(request)
    rows = sum(end - first for first, end in (spans[child.number] for child in done))
    written = any(child.succeeded and child.stage == _WRITING for child in children)
    fraction = _COMPUTING_SHARE * rows / total + (1 - _COMPUTING_SHARE) * written
    progress = {
        "stage": 1 + max((child.stage for child in children), default=0),
        "stages": 2,
        "children_ended": sum(child.ended for child in children),
        "children": len(children) or -(-total // request["part_rows"]),
        "rows": rows,
        "total_rows": total,
        "fraction": round(fraction, 4),
        "eta_seconds": remaining_s(fraction, elapsed_s),
    }
    return {"rows": rows}, progress


def _parts(kind: JobKind, request: dict[str, Any]) -> list[NewChild]:
    return [
        NewChild(
            kind=kind,
            stage=_COMPUTING,
            number=number,
            request={**request, "part_rows": None, "span": list(span)},
        )
        for number, span in enumerate(_spans(request))
    ]


def _spans(request: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the first row of each part, and the one after its last."""
    total, step = request["total_rows"], request["part_rows"]
    return [(first, min(first + step, total)) for first in range(0, total, step)]


def _failure(children: list[Child]) -> GiveUp:
    """Return the end of a job one of whose parts failed: for that reason."""
    for child in children:
        if child.state is JobState.FAILED:
            return GiveUp(child.error_code or "internal", child.error_detail or "A part failed.")
    return GiveUp("children_cancelled", "One of its children was cancelled.")


def _piece(child: Child) -> dict[str, Any]:
    product = child.product()
    return {
        "key": product["checkpoint_key"],
        "sha256": product["checkpoint_sha256"],
        "rows": product["rows"],
    }
