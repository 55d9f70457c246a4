"""Promises about things that are made, found and deleted: jobs, datasets, versions of models."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.history import Call

MAKERS = {"submit": "job", "upload": "dataset", "import": "version"}
READERS = {"get_job": "job", "get_dataset": "dataset", "get_version": "version"}
DELETERS = {"delete_dataset": "dataset"}
_NOT_FOUND = 404


def check_things(calls: Sequence[Call]) -> Iterator[str]:
    """Yield each broken promise about the existence of things."""
    yield from _of_keys(calls)
    for (kind, name), life in sorted(_lives(calls).items()):
        yield from _of_life(f"{kind} {name}", life)
    yield from _of_versions(calls)


def _of_keys(calls: Sequence[Call]) -> Iterator[str]:
    """One key makes one thing, and no thing is made by two keys."""
    made: dict[tuple[str, str], dict[str, Call]] = defaultdict(dict)
    makers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in calls:
        if call.action in MAKERS and call.done:
            made[call.action, call.target].setdefault(call.said["id"], call)
            makers[call.action, call.said["id"]].add(call.target)
    for (action, key), ids in sorted(made.items()):
        if len(ids) > 1:
            yield f"the key {key} of {action} made {len(ids)}: {', '.join(sorted(ids))}"
    for (action, name), keys in sorted(makers.items()):
        if len(keys) > 1:
            yield f"the keys {', '.join(sorted(keys))} of {action} all made {name}"


@dataclass
class _Life:
    made: list[Call] = field(default_factory=list)
    seen: list[Call] = field(default_factory=list)
    missed: list[Call] = field(default_factory=list)
    deletes: list[Call] = field(default_factory=list)

    @property
    def deleted(self) -> list[Call]:
        return [call for call in self.deletes if call.done]


def _lives(calls: Iterable[Call]) -> dict[tuple[str, str], _Life]:
    lives: dict[tuple[str, str], _Life] = defaultdict(_Life)
    for call in calls:
        if call.action in MAKERS and call.done:
            lives[MAKERS[call.action], call.said["id"]].made.append(call)
        elif call.action in READERS:
            life = lives[READERS[call.action], call.target]
            if call.done:
                life.seen.append(call)
            elif call.status == _NOT_FOUND:
                life.missed.append(call)
        elif call.action in DELETERS:
            life = lives[DELETERS[call.action], call.target]
            life.deletes.append(call)
            if call.status == _NOT_FOUND:
                life.missed.append(call)
    return lives


def _of_life(name: str, life: _Life) -> Iterator[str]:
    """From the answer that made it a thing is there; from that of its deletion it is gone."""
    for missed in life.missed:
        known = next((call for call in (*life.made, *life.seen) if call.before(missed)), None)
        others = [call for call in life.deletes if call is not missed and not call.refused]
        if known and not any(call.begun < missed.ended for call in others):
            yield f"{name} was there ({known}), nobody deleted it, and it was not found: {missed}"
    for seen in (*life.made, *life.seen):
        gone = next((call for call in life.deleted if call.before(seen)), None)
        if gone:
            yield f"{name} was deleted ({gone}) and seen again: {seen}"
        lost = next((call for call in life.missed if call.before(seen)), None)
        if lost and life.made and min(call.ended for call in life.made) < lost.begun:
            yield f"{name} was not found ({lost}) and seen again: {seen}"
    for first, second in pairwise(life.deleted):
        yield f"{name} was deleted twice: {first}, {second}"


def _of_versions(calls: Sequence[Call]) -> Iterator[str]:
    """A number stands for one content, made by one job or one import, for good."""
    contents: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in calls:
        if call.action in ("get_version", "import") and call.done:
            contents[call.said["id"]].setdefault(call.said["sha256"], call)
        if call.action == "import" and call.done and call.said["sha256"] != call.asked["sha256"]:
            yield f"version {call.said['id']} is not what was imported: {call}"
    for version, hashes in sorted(contents.items()):
        if len(hashes) > 1:
            told = "; ".join(f"{digest[:8]} in {call}" for digest, call in hashes.items())
            yield f"version {version} changed: {told}"
    for version, names in sorted(_makers_of_versions(calls).items()):
        if len(names) > 1:
            yield f"version {version} was made by {', '.join(sorted(names))}"


def _makers_of_versions(calls: Sequence[Call]) -> dict[str, set[str]]:
    makers: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        if call.action == "import" and call.done:
            makers[call.said["id"]].add(f"import {call.target}")
        for job in call.said.get("jobs", ()):
            if job["version"] is not None:
                makers[job["version"]].add(f"job {job['id']}")
    return makers
