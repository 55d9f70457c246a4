"""Specs drawn from the whole schema: a new field of a family is drawn without a word here."""

import dataclasses
import typing
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from flows import FAMILIES

# Small numbers, so that flows are built; numbers that take memory; numbers that must be refused.
SMALL, LARGE, HUGE = st.integers(1, 8), st.integers(9, 4_000), st.integers(10**6, 2**31)
NUMBERS = st.one_of(SMALL, SMALL, SMALL, LARGE, HUGE)
LISTS = st.one_of(
    st.lists(SMALL, min_size=1, max_size=3),
    st.lists(st.one_of(SMALL, LARGE), min_size=1, max_size=2),
    st.lists(NUMBERS, min_size=1, max_size=3),
    st.lists(SMALL, min_size=200, max_size=300),
)


def fields_of(cls: type) -> dict[str, Any]:
    """Names of a dataclass's fields, and their types."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: NUMBERS,
    float: st.floats(0.01, 0.99) | st.sampled_from([1e-30, 3.0, 1e30]),
    list[int]: LISTS,
    type(None): st.none(),
}


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field as JSON has them."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) in (typing.Union, UnionType):
        return st.one_of([of_type(part) for part in get_args(kind)])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return st.fixed_dictionaries({}, optional=_each(kind))
    raise NotImplementedError(f"say how values of {kind} are drawn")


def _each(cls: type) -> dict[str, st.SearchStrategy[Any]]:
    return {name: of_type(kind) for name, kind in fields_of(cls).items()}


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """JSON of a spec of any family, some fields left out; many are refused."""
    plain = st.one_of([_specs_of(spec) for spec in FAMILIES.values()])
    return st.one_of(plain, plain, plain, _mixed(plain), _ensembles(plain))


def _mixed(flows: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Densities of rows without categories, whose every cell may be hidden in training."""
    optional = {"flow": flows, "hidden": LISTS, "missing": st.sampled_from(["observed", "any"])}
    return st.fixed_dictionaries({"family": st.just("mixed")}, optional=optional)


def _ensembles(flows: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Mixtures of up to six flows, all alike or not."""
    same = st.tuples(flows, st.integers(1, 6)).map(lambda drawn: [drawn[0]] * drawn[1])
    return st.one_of(same, st.lists(flows, min_size=2, max_size=3)).map(
        lambda members: {
            "family": "ensemble",
            "members": members,
            "weights": [1 / len(members)] * len(members),
        }
    )


def _specs_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    each = _each(cls)
    family = each.pop("family")
    return st.fixed_dictionaries({"family": family}, optional=each)
