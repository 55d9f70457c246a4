"""Promises about aliases: each is a register, and its history is linearisable.

Every move that was answered brings a revision that no other has, and revisions of a model count
up. That orders the moves, and makes a check of each pair of answers enough.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from tests.chaos.history import Call

_NOT_FOUND = 404
_PRECONDITION = 412


def check_aliases(calls: Sequence[Call]) -> Iterator[str]:
    """Yield each broken promise about aliases."""
    of_alias: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.action in ("set_alias", "get_alias", "delete_alias"):
            of_alias[call.target].append(call)
    for alias, about in sorted(of_alias.items()):
        for violation in _of_alias(about):
            yield f"alias {alias}: {violation}"


def _of_alias(about: Sequence[Call]) -> Iterator[str]:
    shown = sorted(
        (call for call in about if call.action != "delete_alias" and call.done),
        key=lambda call: call.said["revision"],
    )
    moves = [call for call in about if call.action == "set_alias"]
    deletes = [call for call in about if call.action == "delete_alias"]
    gone = [call for call in about if call.status == _NOT_FOUND and call.action != "set_alias"]
    yield from _of_revisions(shown, moves)
    yield from _of_order(shown)
    yield from _of_deletes(shown, deletes)
    yield from _of_absence(shown, moves, deletes, gone)
    yield from _of_conditions(shown, moves, deletes)


def _of_revisions(shown: Sequence[Call], moves: Sequence[Call]) -> Iterator[str]:
    """A revision is one move to one version, which somebody asked for."""
    versions: dict[int, set[int]] = defaultdict(set)
    movers: dict[int, list[Call]] = defaultdict(list)
    for call in shown:
        versions[_revision(call)].add(call.said["version"])
        movers[_revision(call)] += [call] if call.action == "set_alias" else []
        if call.said["version"] != call.asked.get("version", call.said["version"]):
            yield f"moved to another version than was asked for: {call}"
    for revision, found in versions.items():
        if len(found) > 1:
            yield f"revision {revision} is of versions {sorted(found)}"
        if len(movers[revision]) > 1:
            yield f"revision {revision} was made by {' and '.join(map(str, movers[revision]))}"
    unexplained = [call for call in shown if not movers[_revision(call)]]
    for call in unexplained:
        if not _maybe_moved(call, moves):
            yield f"nobody moved it to version {call.said['version']}, which was seen: {call}"


def _maybe_moved(look: Call, moves: Sequence[Call]) -> bool:
    """Return true if a move whose answer was lost may have made what was seen."""
    return any(
        move.unsure and move.asked["version"] == look.said["version"] and move.begun < look.ended
        for move in moves
    )


class _Best:
    """The call with the greatest value among all before a moment.

    Args:
        calls: In any order.
        at: Moment of a call.
        value: Value of a call.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        *,
        at: Callable[[Call], float],
        value: Callable[[Call], float],
    ) -> None:
        ordered = sorted(calls, key=at)
        self._moments = [at(call) for call in ordered]
        self._best: list[Call] = []
        for call in ordered:
            last = self._best[-1] if self._best else call
            self._best.append(max(last, call, key=value))

    def before(self, moment: float) -> Call | None:
        index = bisect_left(self._moments, moment)
        return self._best[index - 1] if index else None


def _begun(call: Call) -> float:
    return call.begun


def _ended(call: Call) -> float:
    return call.ended


def _until(call: Call) -> float:
    return call.until


def _revision(call: Call) -> int:
    revision: int = call.said["revision"]
    return revision


def _of_order(shown: Sequence[Call]) -> Iterator[str]:
    """What ended earlier shows no newer revision, and no move is seen before it is asked for."""
    newest = _Best(shown, at=_ended, value=_revision)
    movers = {_revision(call): call for call in shown if call.action == "set_alias"}
    for call in shown:
        earlier = newest.before(call.begun)
        if earlier is not None and _revision(earlier) > _revision(call):
            yield f"went back to revision {_revision(call)}: {earlier}, then {call}"
        move = movers.get(_revision(call))
        if move is not None and call.before(move):
            yield f"was seen before its move was asked for: {call}, then {move}"


def _of_deletes(shown: Sequence[Call], deletes: Sequence[Call]) -> Iterator[str]:
    """What was there when a deletion began is not seen after it has ended."""
    newest = _Best(shown, at=_ended, value=_revision)

    def killed(delete: Call) -> int:
        seen = newest.before(delete.begun)
        return 0 if seen is None else _revision(seen)

    last = _Best([delete for delete in deletes if delete.done], at=_ended, value=killed)
    for call in shown:
        delete = last.before(call.begun)
        if delete is not None and _revision(call) <= killed(delete):
            yield f"was deleted ({delete}) and seen again: {call}"


def _of_absence(
    shown: Sequence[Call], moves: Sequence[Call], deletes: Sequence[Call], gone: Sequence[Call]
) -> Iterator[str]:
    """It is missing only where a deletion may have come between, and back only by a move."""
    latest = _Best(shown, at=_ended, value=_begun)
    # A deletion that did not find it took nothing away.
    ending = _Best([call for call in deletes if not call.refused], at=_begun, value=_until)
    for miss in gone:
        seen, delete = latest.before(miss.begun), ending.before(miss.ended)
        if seen is not None and (delete is None or delete.until < seen.begun):
            yield f"was there ({seen}), nobody deleted it, and it was not found: {miss}"
    missed = _Best(gone, at=_ended, value=_begun)
    moving = _Best([call for call in moves if not call.refused], at=_begun, value=_until)
    for call in shown:
        before, move = missed.before(call.begun), moving.before(call.ended)
        if before is not None and (move is None or move.until < before.begun):
            yield f"was not found ({before}), nobody moved it, and it was seen: {call}"


def _of_conditions(
    shown: Sequence[Call], moves: Sequence[Call], deletes: Sequence[Call]
) -> Iterator[str]:
    """`If-Match` holds for the revision just before the move, and for no other."""
    for move in moves:
        expected = move.asked.get("if_match")
        if expected is None:
            continue
        if move.done:
            between = [
                call for call in shown if expected < call.said["revision"] < move.said["revision"]
            ]
            if between:
                yield f"moved from revision {expected}, but there was another: {between[0]}, {move}"
        elif move.status == _PRECONDITION:
            known = [call for call in shown if call.said["revision"] == expected]
            since = min((call.begun for call in known), default=move.ended)
            rivals = [
                call
                for call in (*moves, *deletes)
                if call is not move
                and not call.refused
                and call.begun < move.ended
                and call.until > since
                and call.said.get("revision") != expected
            ]
            if known and min(call.ended for call in known) < move.begun and not rivals:
                yield f"was at revision {expected}, and a move from there was refused: {move}"
