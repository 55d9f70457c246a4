"""Promises about jobs: how their states may follow each other, and their events."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.history import Call

EVENT_PAGE = 500
# Written down again, not imported: the service is held to it.
NEXT = {
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "queued"},
    "succeeded": set[str](),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
FINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class _Look:
    """One answer about one job."""

    call: Call
    state: str
    attempt: int
    version: str | None


def check_jobs(calls: Sequence[Call], *, complete: bool) -> Iterator[str]:
    """Yield each broken promise about jobs.

    Args:
        calls: The history.
        complete: Whether all jobs had the time to end.
    """
    looks: dict[str, list[_Look]] = defaultdict(list)
    of_job: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        for job in call.said.get("jobs", ()):
            look = _Look(call, job["state"], job["attempt"], job["version"])
            looks[job["id"]].append(look)
        if call.action in ("cancel", "resume", "events"):
            of_job[call.target].append(call)
    accepted = {call.said["id"] for call in calls if call.action == "submit" and call.done}
    for job_id in sorted(accepted | set(looks) | set(of_job)):
        about = of_job[job_id]
        seen = sorted(looks[job_id], key=lambda look: look.call.ended)
        yield from _of_states(job_id, seen, about)
        yield from _of_cancels(job_id, seen, about)
        yield from _of_events(job_id, about)
        if complete and job_id in accepted and (not seen or seen[-1].state not in FINAL):
            yield f"job {job_id} was accepted and never ended"
    yield from _of_list(calls, accepted)


def _resumed(about: Sequence[Call], first: Call, second: Call) -> bool:
    """Return true if a resume may have taken effect between two answers."""
    return any(
        call.action == "resume"
        and not call.refused
        and call.begun < second.ended
        and call.until > first.begun
        for call in about
    )


def _of_states(job_id: str, seen: Sequence[_Look], about: Sequence[Call]) -> Iterator[str]:
    for at, second in enumerate(seen):
        for first in seen[:at]:
            if first.call.before(second.call):
                for step in _steps(first, second, about):
                    yield f"job {job_id} {step}: {first.call}, then {second.call}"
        if (second.state == "succeeded") != (second.version is not None):
            yield f"job {job_id} is {second.state} with version {second.version}: {second.call}"


def _steps(first: _Look, second: _Look, about: Sequence[Call]) -> Iterator[str]:
    """Yield the impossible steps between two looks of which one came after the other."""
    if first.attempt > second.attempt:
        yield f"went from attempt {first.attempt} to {second.attempt}"
    if first.version not in (None, second.version):
        yield f"had version {first.version}, then {second.version}"
    if first.state in FINAL and second.state != first.state:
        resumable = first.state != "succeeded" and _resumed(about, first.call, second.call)
        if not resumable:
            yield f"was {first.state}, then {second.state}"


def _of_cancels(job_id: str, seen: Sequence[_Look], about: Sequence[Call]) -> Iterator[str]:
    cancels = [call for call in about if call.action == "cancel"]
    for look in seen:
        asked = any(not call.refused and call.begun < look.call.ended for call in cancels)
        if look.state == "cancelled" and not asked:
            yield f"job {job_id} is cancelled and nobody asked for it: {look.call}"
        if look.state == "succeeded":
            for cancel in cancels:
                resumed = _resumed(about, cancel, look.call)
                if cancel.done and cancel.before(look.call) and not resumed:
                    yield f"job {job_id} succeeded after {cancel}: {look.call}"


def _of_events(job_id: str, about: Sequence[Call]) -> Iterator[str]:
    pages = sorted(
        (call for call in about if call.action == "events" and call.done),
        key=lambda page: page.ended,
    )
    known: dict[int, Mapping[str, Any]] = {}
    for page in pages:
        numbers = [event["id"] for event in page.said["items"]]
        after = page.asked["after"]
        if numbers != list(range(after + 1, after + 1 + len(numbers))):
            yield f"the events of job {job_id} have gaps: {numbers} after {after} in {page}"
        for event in page.said["items"]:
            if known.setdefault(event["id"], event) != event:
                yield f"event {event['id']} of job {job_id} changed: {page}"
    for at, second in enumerate(pages):
        for first in pages[:at]:
            if first.before(second):
                yield from _of_pages(job_id, first, second, about)
    yield from _of_moves(job_id, known)


def _of_moves(job_id: str, known: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """Moves from state to state are legal, as far as all events up to there are known."""
    state = None
    for number, event in sorted(known.items()):
        if number - 1 not in known and number > 1:
            return
        if event["state"] is None:
            continue
        if state is None and event["state"] != "queued":
            yield f"job {job_id} began as {event['state']}"
        if state is not None and event["state"] not in NEXT[state]:
            yield f"job {job_id} went from {state} to {event['state']} in its events"
        state = event["state"]


def _last(page: Call) -> int:
    last: int = max([page.asked["after"], *(event["id"] for event in page.said["items"])])
    return last


def _of_pages(job_id: str, first: Call, second: Call, about: Sequence[Call]) -> Iterator[str]:
    """What one reader has seen, every later one sees."""
    full = len(second.said["items"]) >= EVENT_PAGE
    if first.said["items"] and _last(second) < _last(first) and not full:
        yield f"the events of job {job_id} went back from {_last(first)}: {first}, then {second}"
    grew = _last(second) > _last(first) and second.said["items"]
    if first.said["ended"] and grew and not _resumed(about, first, second):
        yield f"job {job_id} had no more events in {first}, then some in {second}"


def _of_list(calls: Sequence[Call], accepted: set[str]) -> Iterator[str]:
    """A list of all jobs has each that was accepted before, and none that nobody asked for."""
    for call in calls:
        if call.action == "list_jobs" and call.done:
            listed = {job["id"] for job in call.said["jobs"]}
            begun = {
                other.said["id"]
                for other in calls
                if other.action == "submit" and other.done and other.before(call)
            }
            for job_id in sorted(begun - listed):
                yield f"job {job_id} was accepted and is not listed: {call}"
            keys = {other.target for other in calls if other.action == "submit" and other.unsure}
            keys -= {other.target for other in calls if other.action == "submit" and other.done}
            if len(listed - accepted) > len(keys):
                strange = ", ".join(sorted(listed - accepted))
                yield f"jobs that nobody asked for are listed: {strange} in {call}"


def check_queue(calls: Sequence[Call], *, max_queued: int, returning: int) -> Iterator[str]:
    """Yield each look at a queue that was longer than allowed.

    Args:
        calls: The history.
        max_queued: Limit of jobs that wait.
        returning: Most jobs that may come back to the queue at once, limit or not.
    """
    resumes = [call for call in calls if call.action == "resume" and not call.refused]
    for call in calls:
        if call.action == "list_queued" and call.done:
            back = returning + sum(resume.begun < call.ended for resume in resumes)
            if len(call.said["jobs"]) > max_queued + back:
                yield f"{len(call.said['jobs'])} jobs wait, {max_queued} may: {call}"
