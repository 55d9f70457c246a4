"""The checker finds nothing in histories that keep every promise, and each promise that is broken."""

import dataclasses
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from tests.chaos.checker import violations
from tests.chaos.history import Call, History, read_history
from tests.chaos.made_up import made_up


def call(action: str, target: str, begun: float, ended: float, /, **fields: Any) -> Call:
    return Call(
        caller="c",
        action=action,
        target=target,
        begun=begun,
        ended=ended,
        **{"status": 200, **fields},
    )


def job(state: str = "queued", *, attempt: int = 0, version: str | None = None) -> dict[str, Any]:
    jobs = [{"id": "j", "state": state, "attempt": attempt, "version": version}]
    return {"id": "j", "jobs": jobs}


def look(begun: float, ended: float, state: str, **fields: Any) -> Call:
    return call("get_job", "j", begun, ended, said=job(state, **fields))


def submitted(ended: float = 1) -> Call:
    return call("submit", "k", 0, ended, status=202, said=job())


def moved(begun: float, ended: float, revision: int, *, version: int = 1, **fields: Any) -> Call:
    said = {"version": version, "revision": revision}
    asked = {"version": version} | fields.pop("asked", {})
    return call("set_alias", "a", begun, ended, said=said, asked=asked, **fields)


def seen(begun: float, ended: float, revision: int, *, version: int = 1) -> Call:
    return call("get_alias", "a", begun, ended, said={"version": version, "revision": revision})


def missing(begun: float, ended: float) -> Call:
    return call("get_alias", "a", begun, ended, status=404)


def events(begun: float, until: float, /, *states: str | None, after: int = 0, **said: Any) -> Call:
    items = [{"id": at, "state": state} for at, state in enumerate(states, start=after + 1)]
    said = {"items": items, "ended": False} | said
    return call("events", "j", begun, until, asked={"after": after}, said=said)


def gone(action: str, target: str, begun: float, ended: float, status: int | None = 204) -> Call:
    return call(action, target, begun, ended, status=status)


LOST: dict[str, Any] = {"status": None}
DATASET = call("upload", "k", 0, 1, status=201, said={"id": "d"})
IMPORT = call(
    "import", "k", 0, 1, status=201, asked={"sha256": "s"}, said={"id": "m:1", "sha256": "s"}
)
CANCEL = call("cancel", "j", 2, 3, said=job("cancelled"))

BROKEN: dict[str, tuple[list[Call], str]] = {
    "lost job": ([submitted(), call("get_job", "j", 2, 3, status=404)], "was not found"),
    "job not listed": (
        [submitted(), call("list_jobs", "", 2, 3, said={"jobs": []})],
        "is not listed",
    ),
    "job of nobody": ([call("list_jobs", "", 2, 3, said=job())], "nobody asked for"),
    "two jobs of a key": (
        [submitted(), call("submit", "k", 2, 3, status=202, said={"id": "i"})],
        "made 2",
    ),
    "two keys of a job": (
        [submitted(), call("submit", "l", 2, 3, status=202, said=job())],
        "all made j",
    ),
    "end taken back": (
        [submitted(), look(2, 3, "failed"), look(4, 5, "running", attempt=1)],
        "was failed, then running",
    ),
    "success resumed": (
        [
            look(2, 3, "succeeded", version="m:1"),
            call("resume", "j", 3, 4, status=202),
            look(5, 6, "queued"),
        ],
        "was succeeded, then queued",
    ),
    "resumed too early": (
        [
            CANCEL,
            call("resume", "j", 4, 5, status=202, said=job()),
            look(6, 7, "cancelled"),
            look(8, 9, "queued"),
        ],
        "was cancelled, then queued",
    ),
    "attempt back": (
        [look(2, 3, "running", attempt=2), look(4, 5, "running", attempt=1)],
        "from attempt 2 to 1",
    ),
    "version of a job changed": (
        [look(2, 3, "succeeded", version="m:1"), look(4, 5, "succeeded", version="m:2")],
        "had version m:1, then m:2",
    ),
    "success without version": ([look(2, 3, "succeeded")], "succeeded with version None"),
    "cancelled by nobody": ([look(2, 3, "cancelled")], "nobody asked for it"),
    "success after cancel": (
        [
            call("cancel", "j", 2, 3, status=202, said=job("running")),
            look(4, 5, "succeeded", version="m:1"),
        ],
        "succeeded after",
    ),
    "no end": ([submitted(), look(2, 3, "running", attempt=1)], "never ended"),
    "gap in a page": (
        [events(0, 1, items=[{"id": 1, "state": "queued"}, {"id": 3, "state": None}])],
        "have gaps",
    ),
    "event changed": (
        [events(0, 1, "queued", "running"), events(2, 3, "queued", "cancelled")],
        "changed",
    ),
    "events back": (
        [events(0, 1, "queued", "running"), events(2, 3, "queued")],
        "went back from 2",
    ),
    "events after the end": (
        [events(0, 1, "queued", "cancelled", ended=True), events(2, 3, None, after=2)],
        "no more events",
    ),
    "illegal move": ([events(0, 1, "queued", "succeeded")], "from queued to succeeded"),
    "illegal begin": ([events(0, 1, "running")], "began as running"),
    "dataset lost": ([DATASET, gone("get_dataset", "d", 2, 3, 404)], "nobody deleted it"),
    "dataset back": (
        [DATASET, gone("delete_dataset", "d", 2, 3), call("get_dataset", "d", 4, 5)],
        "seen again",
    ),
    "dataset back after a miss": (
        [
            DATASET,
            gone("delete_dataset", "d", 2, 3, None),
            gone("get_dataset", "d", 4, 5, 404),
            call("get_dataset", "d", 6, 7),
        ],
        "seen again",
    ),
    "deleted twice": (
        [DATASET, gone("delete_dataset", "d", 2, 3), gone("delete_dataset", "d", 2, 3)],
        "deleted twice",
    ),
    "deletion of what is there not found": (
        [DATASET, gone("delete_dataset", "d", 2, 3, 404)],
        "nobody deleted it",
    ),
    "version lost": ([IMPORT, call("get_version", "m:1", 2, 3, status=404)], "was not found"),
    "version changed": (
        [IMPORT, call("get_version", "m:1", 2, 3, said={"id": "m:1", "sha256": "t"})],
        "changed",
    ),
    "version of two": ([IMPORT, look(2, 3, "succeeded", version="m:1")], "was made by"),
    "other bytes": (
        [dataclasses.replace(IMPORT, asked={"sha256": "t"})],
        "is not what was imported",
    ),
    "alias back": ([moved(0, 1, 1), moved(2, 3, 2), seen(4, 5, 1)], "went back to revision 1"),
    "alias back between readers": (
        [moved(0, 1, 1), moved(2, 9, 2), seen(3, 4, 2), seen(5, 6, 1)],
        "went back to revision 1",
    ),
    "moves out of order": ([moved(0, 1, 2), moved(2, 3, 1)], "went back to revision 1"),
    "seen before": ([seen(0, 1, 1), moved(2, 3, 1)], "before its move was asked for"),
    "revision twice": ([moved(0, 1, 1), moved(2, 3, 1)], "was made by"),
    "revision of two versions": ([moved(0, 1, 1), seen(2, 3, 1, version=2)], "is of versions"),
    "moved elsewhere": (
        [moved(0, 1, 1, asked={"version": 2})],
        "another version than was asked for",
    ),
    "moved by nobody": ([seen(2, 3, 1)], "nobody moved it"),
    "seen before a lost move": ([seen(0, 1, 1), moved(2, 3, 0, **LOST)], "nobody moved it"),
    "alias lost": ([moved(0, 1, 1), missing(2, 3)], "nobody deleted it"),
    "alias lost after a deletion": (
        [
            moved(0, 1, 1),
            gone("delete_alias", "a", 2, 3),
            moved(4, 5, 2),
            missing(6, 7),
        ],
        "nobody deleted it",
    ),
    "deleted alias seen": (
        [moved(0, 1, 1), gone("delete_alias", "a", 2, 3), seen(4, 5, 1)],
        "was deleted",
    ),
    "alias back from nowhere": (
        [
            moved(0, 1, 1),
            gone("delete_alias", "a", 2, 3, None),
            missing(4, 5),
            seen(6, 7, 1),
        ],
        "nobody moved it, and it was seen",
    ),
    "moved from elsewhere": (
        [moved(0, 1, 1), moved(2, 3, 2), moved(4, 5, 3, asked={"if_match": 1})],
        "there was another",
    ),
    "refused without a reason": (
        [moved(0, 1, 1), moved(2, 3, 0, asked={"if_match": 1}, status=412)],
        "a move from there was refused",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_promise_is_found(name):
    calls, told = BROKEN[name]
    for order in (calls, calls[::-1]):
        found = violations(order, complete=True)
        assert any(told in violation for violation in found), found


KEPT: dict[str, list[Call]] = {
    "lost submission that was one": [
        dataclasses.replace(submitted(), status=None, said={}),
        call("list_jobs", "", 2, 3, said=job()),
    ],
    "resumed meanwhile": [
        CANCEL,
        look(4, 5, "cancelled"),
        call("resume", "j", 4, 6, status=202, said=job()),
        look(7, 8, "running", attempt=1),
    ],
    "resumed by a call that was lost": [
        CANCEL,
        call("resume", "j", 4, 5, **LOST),
        look(6, 7, "cancelled"),
        look(8, 9, "queued"),
    ],
    "two looks at once": [look(2, 5, "running"), CANCEL, look(3, 4, "cancelled")],
    "deleted by a call that was lost": [
        DATASET,
        gone("delete_dataset", "d", 2, 3, None),
        call("get_dataset", "d", 4, 5),
        gone("delete_dataset", "d", 6, 7, 404),
    ],
    "moved by a call that was lost": [
        moved(0, 1, 1),
        moved(2, 3, 0, version=2, **LOST),
        seen(4, 5, 1),
        seen(6, 7, 2, version=2),
    ],
    "alias seen old or new during its move": [
        moved(0, 1, 1),
        moved(2, 9, 2),
        seen(3, 4, 1),
        seen(5, 6, 2),
        seen(3, 7, 1),
    ],
    "deletion that comes late": [
        moved(0, 1, 1),
        gone("delete_alias", "a", 2, 3, None),
        moved(4, 5, 2),
        missing(6, 7),
    ],
    "condition that lost a race": [
        moved(0, 1, 1),
        moved(2, 5, 2),
        moved(3, 4, 0, asked={"if_match": 1}, status=412),
    ],
}


@pytest.mark.parametrize("name", KEPT)
def test_what_may_have_happened_is_no_violation(name):
    assert violations(KEPT[name]) == []


def test_a_queue_that_is_too_long_is_found():
    waiting = [{"id": f"{at}", "state": "queued", "attempt": 0, "version": None} for at in range(9)]
    listed = call("list_queued", "", 2, 3, said={"jobs": waiting})
    resumed = call("resume", "0", 1, 2, status=202)
    assert "9 jobs wait, 6 may" in violations([listed], max_queued=6, returning=2)[0]
    assert violations([listed], max_queued=6, returning=3) == []
    assert violations([resumed, listed], max_queued=6, returning=2) == []


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), lost=st.sampled_from([0, 0.1, 0.4]))
def test_nothing_is_found_where_every_promise_was_kept(seed, lost):
    assert violations(made_up(seed, lost=lost)) == []


def later(calls: list[Call], action: str, *, after: Call) -> list[Call]:
    return [
        one
        for one in calls
        if one.action == action and one.target == after.target and after.before(one) and one.done
    ]


def a_stale_alias(calls: list[Call], pick: random.Random) -> list[Call] | None:
    """A reader sees what two later ones had seen replaced."""
    reads = [one for one in calls if one.action == "get_alias" and one.done]
    pairs = [
        (old, new)
        for old in reads
        for new in later(calls, "get_alias", after=old)
        if new.said["revision"] > old.said["revision"]
    ]
    if not pairs:
        return None
    old, new = pick.choice(pairs)
    stale = dataclasses.replace(old, begun=new.ended + 0.001, ended=new.ended + 0.002)
    return [*calls, stale]


def a_lost_job(calls: list[Call], pick: random.Random) -> list[Call] | None:
    looks = [
        one
        for one in calls
        if one.action == "get_job"
        and one.done
        and any(other.said.get("id") == one.target and other.before(one) for other in calls)
    ]
    if not looks:
        return None
    lost = pick.choice(looks)
    return [dataclasses.replace(one, status=404, said={}) if one is lost else one for one in calls]


def a_doubled_job(calls: list[Call], pick: random.Random) -> list[Call] | None:
    made = [one for one in calls if one.action == "submit" and one.done]
    if not made:
        return None
    one = pick.choice(made)
    return [*calls, dataclasses.replace(one, said={**one.said, "id": "another"})]


def an_end_taken_back(calls: list[Call], pick: random.Random) -> list[Call] | None:
    ends = [
        one
        for one in calls
        if one.action == "get_job" and one.done and one.said["jobs"][0]["state"] == "succeeded"
    ]
    if not ends:
        return None
    one = pick.choice(ends)
    view = {**one.said["jobs"][0], "state": "running", "version": None}
    back: dict[str, Any] = {
        "begun": one.ended + 0.001,
        "ended": one.ended + 0.002,
        "said": {"jobs": [view]},
    }
    return [*calls, dataclasses.replace(one, **back)]


def an_event_left_out(calls: list[Call], pick: random.Random) -> list[Call] | None:
    pages = [one for one in calls if one.action == "events" and len(one.said.get("items", ())) > 1]
    if not pages:
        return None
    page = pick.choice(pages)
    said = {**page.said, "items": page.said["items"][1:]}
    return [dataclasses.replace(one, said=said) if one is page else one for one in calls]


def a_version_changed(calls: list[Call], pick: random.Random) -> list[Call] | None:
    made = [one for one in calls if one.action == "import" and one.done]
    if not made:
        return None
    one = pick.choice(made)
    said = {"id": one.said["id"], "sha256": "another"}
    return [*calls, dataclasses.replace(one, action="get_version", target=said["id"], said=said)]


BREAKS: list[Callable[[list[Call], random.Random], list[Call] | None]] = [
    a_stale_alias,
    a_lost_job,
    a_doubled_job,
    an_end_taken_back,
    an_event_left_out,
    a_version_changed,
]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**9))
@pytest.mark.parametrize("harm", BREAKS)
def test_one_broken_promise_among_many_calls_is_found(harm, seed):
    broken = harm(made_up(seed), random.Random(seed))
    assume(broken is not None)
    assert broken is not None
    assert violations(broken) != []


def test_a_history_is_read_back_from_its_file(tmp_path):
    history = History(tmp_path / "history.jsonl")
    calls = made_up(1, calls=20)
    for one in calls:
        history.add(one)
    history.close()
    read = read_history((tmp_path / "history.jsonl").read_text().splitlines())
    assert json.dumps([str(one) for one in read]) == json.dumps([str(one) for one in calls])
    assert read == calls
