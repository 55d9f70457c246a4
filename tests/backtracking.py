"""Ambiguity of regular expressions: where Python's matcher may take more than linear time.

A pattern becomes an automaton whose states read one character each. Its matcher goes back and forth more than
a bounded number of times for each character if two loops can read the same text, and the text can be
handed from the first to the second at any place of it, so that the matcher tries all places; or if one
loop can read a text in two ways. What is looked for has a loop in front, which reads what is before it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from re import _constants as op, _parser as parser
from typing import Any

MOST_COPIES = 64
"""The most repeats that are a bound; more are as good as any number."""

Characters = frozenset[str]
_SAMPLES = "aZ09_ -.,:;/'\"\\()[]{}<>=+*&%#@!?|~^$\t\r\n\x00\x0b\x7f\x80\xa0\xff"
_WIDE = "é\u0130\u017f\u0661\u2212½中\U0001f600"
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
_CLASSES = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
}
_OPPOSITES = {
    op.CATEGORY_NOT_DIGIT: op.CATEGORY_DIGIT,
    op.CATEGORY_NOT_SPACE: op.CATEGORY_SPACE,
    op.CATEGORY_NOT_WORD: op.CATEGORY_WORD,
}


@dataclass
class _State:
    """State that reads a character.

    Attributes:
        reads: Characters that it reads.
        scope: Possessive parts around it, which are not entered again once they are left.
        after: States that follow it.
        committed: Those of them that follow it only once, since a repeat is possessive.
        doubled: Those of them that follow it in two ways.
    """

    reads: Characters
    scope: tuple[int, ...]
    after: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    doubled: set[int] = field(default_factory=set)


@dataclass
class _Part:
    """Part of a pattern.

    Attributes:
        first: Its first states, with the characters that may stand before each.
        last: Its last states, with the characters after which each may be left.
        empty: Characters that may stand before it where it is empty; None if it never is.
    """

    first: dict[int, Characters]
    last: dict[int, Characters]
    empty: Characters | None


class Automaton:
    """Automaton of a pattern.

    Args:
        pattern: Compiled pattern.
        looks: True if the pattern is looked for at each place of a text.
        whole: True if a match must end where the text ends.
    """

    def __init__(self, pattern: re.Pattern[Any], *, looks: bool, whole: bool) -> None:
        is_bytes = isinstance(pattern.pattern, bytes)
        self._flags = pattern.flags & ~re.UNICODE if is_bytes else pattern.flags
        tree = parser.parse(pattern.pattern, self._flags)
        named = {*_SAMPLES, *("" if is_bytes else _WIDE), *_named(tree)}
        self._all = frozenset(c for c in named if not is_bytes or ord(c) < 256)
        self._states: list[_State] = []
        self._scopes = 0
        self._is_certain = not whole
        body = self._sequence(tree, ())
        self._end = set(body.last) if self._is_certain else set()
        if looks:
            self._look(body)

    def ambiguities(self) -> Iterator[str]:
        """Yield texts whose repetition takes time with more than their length."""
        loops = self._loops()
        for first in loops:
            for second in loops:
                inner, outer = self._states[first].scope, self._states[second].scope
                if second not in self._end and outer[: len(inner)] == inner:
                    word = self._handed_over(first, second, loops)
                    if word is not None:
                        yield word

    def _handed_over(self, first: int, second: int, loops: dict[int, int]) -> str | None:
        """Return a text that the first and the second loop read, as does a path between them; None if there is none."""
        begin = (first, first, second, first != second)
        words = {begin: ""}
        waiting = [begin]
        for one, two, three, parted in waiting:
            for a, b, c, character in self._steps(one, two, three, loops):
                apart = parted or a != b or b in self._states[two].doubled
                word = words[one, two, three, parted] + character
                if (a, b, c, apart) == (first, second, second, True):
                    return word
                if (a, b, c, apart) not in words:
                    words[a, b, c, apart] = word
                    waiting.append((a, b, c, apart))
        return None

    def _steps(
        self, one: int, two: int, three: int, loops: dict[int, int]
    ) -> Iterator[tuple[int, int, int, str]]:
        states = self._states
        ones = [at for at in states[one].after if loops.get(at) == loops[one]]
        # Where the second loop passes the end, the text so far is a match.
        threes = states[three].after - self._end
        for a in ones:
            for c in (at for at in threes if loops.get(at) == loops[three]):
                both = states[a].reads & states[c].reads
                for b in states[two].after - states[two].committed if both else ():
                    if common := both & states[b].reads:
                        yield a, b, c, min(common)

    def _loops(self) -> dict[int, int]:
        """Return the states that can follow themselves, with a number for each loop."""
        reach = [self._reachable(at) for at in range(len(self._states))]
        return {
            at: min(other for other in reach[at] if at in reach[other])
            for at in range(len(reach))
            if at in reach[at]
        }

    def _reachable(self, start: int) -> set[int]:
        found: set[int] = set()
        waiting = [start]
        for at in waiting:
            fresh = self._states[at].after - found
            found |= fresh
            waiting += fresh
        return found

    def _look(self, body: _Part) -> None:
        """Add a loop in front, in a state for each kind of character that matters to what follows."""
        kinds: dict[tuple[bool, ...], set[str]] = {}
        for character in self._all:
            kinds.setdefault(tuple(character in c for c in body.first.values()), set()).add(
                character
            )
        added = [self._state(frozenset(kind), ()) for kind in kinds.values()]
        for at in added:
            self._states[at].after |= set(added)
            self._link({at: self._all}, body.first)

    def _state(self, reads: Characters, scope: tuple[int, ...]) -> int:
        self._states.append(_State(reads, scope))
        return len(self._states) - 1

    def _link(
        self, last: dict[int, Characters], first: dict[int, Characters]
    ) -> set[tuple[int, int]]:
        """Let states follow others; return those that did not before."""
        edges = {
            (at, other)
            for at, leaving in last.items()
            for other, before in first.items()
            if self._states[at].reads & leaving & before
        }
        fresh = {edge for edge in edges if edge[1] not in self._states[edge[0]].after}
        for at, other in edges - fresh:
            self._states[at].doubled.add(other)
        for at, other in fresh:
            self._states[at].after.add(other)
        return fresh

    def _join(self, before: _Part, after: _Part) -> _Part:
        self._link(before.last, after.first)
        first, last = dict(before.first), dict(after.last)
        empty = None
        if before.empty is not None:
            first |= {at: chars & before.empty for at, chars in after.first.items()}
        if after.empty is not None:
            last |= {at: chars & after.empty for at, chars in before.last.items()}
        if before.empty is not None and after.empty is not None:
            empty = before.empty & after.empty
        return _Part(first, last, empty)

    def _sequence(self, tree: Iterable[tuple[Any, Any]], scope: tuple[int, ...]) -> _Part:
        found = self._nothing()
        for kind, value in tree:
            found = self._join(found, self._part(kind, value, scope))
        return found

    def _nothing(self, after: Characters | None = None) -> _Part:
        return _Part({}, {}, self._all if after is None else after)

    def _part(self, kind: Any, value: Any, scope: tuple[int, ...]) -> _Part:
        if kind in _REPEATS:
            is_possessive = kind is op.POSSESSIVE_REPEAT
            inner = self._inner(scope) if is_possessive else scope
            least, most, tree = value
            return self._repeat(least, most, tree, inner, is_possessive=is_possessive)
        if kind is op.BRANCH:
            return self._branch([self._sequence(branch, scope) for branch in value[1]])
        if kind is op.SUBPATTERN:
            return self._sequence(value[3], scope)
        if kind is op.ATOMIC_GROUP:
            return self._sequence(value, self._inner(scope))
        if kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
            return self._place(kind, value, scope)
        at = self._state(
            frozenset(c for c in self._all if _reads(kind, value, c, self._flags)), scope
        )
        return _Part({at: self._all}, {at: self._all}, None)

    def _place(self, kind: Any, value: Any, scope: tuple[int, ...]) -> _Part:
        """Return the part of a condition on what is before or behind a place."""
        if value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            is_line = value is op.AT_BEGINNING and self._flags & re.MULTILINE
            return self._nothing(frozenset("\n" if is_line else ""))
        self._is_certain = False
        if kind is op.AT:
            return self._nothing()
        direction, tree = value
        if direction < 0 and len(tree) == 1 and tree[0][0] in (op.IN, op.LITERAL):
            found = {c for c in self._all if _reads(tree[0][0], tree[0][1], c, self._flags)}
            return self._nothing(frozenset(found if kind is op.ASSERT else self._all - found))
        # It is read beside what follows, as a part of its own that leads nowhere.
        return _Part(self._sequence(tree, self._inner(scope)).first, {}, self._all)

    def _branch(self, parts: Sequence[_Part]) -> _Part:
        empties = [part.empty for part in parts if part.empty is not None]
        return _Part(
            {at: chars for part in parts for at, chars in part.first.items()},
            {at: chars for part in parts for at, chars in part.last.items()},
            frozenset().union(*empties) if empties else None,
        )

    def _inner(self, scope: tuple[int, ...]) -> tuple[int, ...]:
        self._scopes += 1
        return (*scope, self._scopes)

    def _repeat(
        self, least: int, most: int, tree: Any, scope: tuple[int, ...], *, is_possessive: bool
    ) -> _Part:
        found = self._nothing()
        copies = most if most <= MOST_COPIES else max(1, min(least, 2))
        for number in range(copies):
            part = self._sequence(tree, scope)
            if most > MOST_COPIES and number == copies - 1:
                known = [set(state.doubled) for state in self._states]
                fresh = self._link(part.last, part.first)
                if is_possessive:
                    for state, doubled in zip(self._states, known, strict=True):
                        state.doubled = doubled
                    for at, other in fresh:
                        self._states[at].committed.add(other)
            if number >= least:
                part.empty = self._all
            found = self._join(found, part)
        return found


def _named(tree: Iterable[tuple[Any, Any]]) -> Iterator[str]:
    """Yield the characters that a pattern names."""
    for kind, value in tree:
        if kind in (op.LITERAL, op.NOT_LITERAL):
            yield chr(value)
        elif kind is op.RANGE:
            yield from map(chr, value)
        else:
            for below in _below(kind, value):
                yield from _named(below)


def _below(kind: Any, value: Any) -> Sequence[Any]:
    """Return the trees that a part of a pattern has."""
    if kind is op.BRANCH:
        return list(value[1])
    if kind in (op.IN, op.ATOMIC_GROUP):
        return [value]
    places = {op.SUBPATTERN: 3, op.ASSERT: 1, op.ASSERT_NOT: 1} | dict.fromkeys(_REPEATS, 2)
    return [value[places[kind]]] if kind in places else []


def _reads(kind: Any, value: Any, character: str, flags: int) -> bool:
    """Return whether a part of one character reads one."""
    if kind is op.GROUPREF:
        return True  # what the group was nobody knows
    if kind is op.ANY:
        return bool(flags & re.DOTALL) or character != "\n"
    same = {character}
    if flags & re.IGNORECASE:
        same |= {other for other in (character.lower(), character.upper()) if len(other) == 1}
    if kind in (op.LITERAL, op.NOT_LITERAL):
        return (chr(value) in same) == (kind is op.LITERAL)
    is_negative: bool = value[0][0] is op.NEGATE
    named = value[1:] if is_negative else value
    return is_negative != any(_within(part, within, same) for part, within in named)


def _within(kind: Any, value: Any, same: set[str]) -> bool:
    if kind is op.CATEGORY:
        positive = _OPPOSITES.get(value, value)
        is_within = any(map(_CLASSES[positive], same))
        return is_within if positive is value else not is_within
    low, high = value if kind is op.RANGE else (value, value)
    return any(low <= ord(c) <= high for c in same)


def ambiguity_of(pattern: re.Pattern[Any], uses: Iterable[str]) -> str | None:
    """Return a text whose repetition a pattern reads in more than linear time; None if there is none.

    Args:
        pattern: Compiled pattern.
        uses: Methods by which it is used, such as `fullmatch`.
    """
    for use in uses:
        looks, whole = use not in ("match", "fullmatch"), use == "fullmatch"
        found = next(Automaton(pattern, looks=looks, whole=whole).ambiguities(), None)
        if found is not None:
            return found
    return None
