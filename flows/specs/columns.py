"""Columns of mixed rows, and their places in the rows of the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from flows.specs.preprocessing import MOST_REPEATED

TransformName = Literal["none", "log", "logit", "asinh", "quantiles", "circular"]

UNSEEN, HIDDEN = -1, -2
"""Indices of a level that no training row had, and of a cell that is hidden from the density."""

MAX_LEVELS = 2**24
"""Largest number of levels: float32 holds all indices below it."""


@dataclass(frozen=True)
class MixedColumn:
    """Description of a column of mixed rows.

    A cell of a discrete column is the number of its level; that of any other is its value. A missing
    cell is NaN.

    Attributes:
        levels: Number of levels of a discrete column; 0 for a continuous one.
        values: Numbers that stand for the levels in a row of data; an empty list stands for their
            indices. Any other number is a level that no training row had.
        missing: True if cells are missing in training rows.
        spikes: Single values of a continuous column that have probabilities of their own.
        transform: Monotone map of the values before standardisation; `circular` cuts a circle, whose
            values from `low` to `high` are one turn.
        low: Bound below all values; None if there is none, which the transform log takes for 0.
        high: Bound above all values; None if there is none.
        step: Distance between neighbouring values on a grid, the width of the noise in training; 0
            without a grid.
        noise: Width of the noise in training where it is wider than the step: it bounds the density at
            a value that many rows share. Samples come without it.
        repeated: Number of continuous values that training rows have, where samples have one of these;
            0 where samples have any.
        unseen: Probability of a level that no training row had; 0 for 1 / (rows + 1).
        place: Place of its variable in P(d), parents before children, whose training then begins at a
            tree of tables of pairs (`flows.mixed.trees`); 0 in all columns for their own order and no tree.
    """

    levels: int = 0
    values: list[float] = field(default_factory=list)
    missing: bool = False
    spikes: list[float] = field(default_factory=list)
    transform: TransformName = "none"
    low: float | None = None
    high: float | None = None
    step: float = 0.0
    noise: float = 0.0
    repeated: int = 0
    unseen: float = 0.0
    place: int = 0

    def __post_init__(self) -> None:
        if type(self.levels) is not int or not 0 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels must be a whole number from 0 to {MAX_LEVELS:,}")
        if type(self.missing) is not bool:
            raise ValueError("missing must be true or false")
        if self.transform not in get_args(TransformName):
            raise ValueError(f"transform must be one of {', '.join(get_args(TransformName))}")
        bounds = [self.low or 0, self.high or 0]
        numbers = [*self.values, *self.spikes, *bounds, self.step, self.noise]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            raise ValueError("values, spikes, bounds, step and noise must be finite numbers")
        for name, listed in (("values", self.values), ("spikes", self.spikes)):
            if len(set(listed)) < len(listed):
                raise ValueError(f"{name} must differ")
        if self.values and len(self.values) != self.levels:
            raise ValueError("values must be as many as levels")
        self._check_continuous()

    def _check_continuous(self) -> None:
        if self.levels and (self.spikes or self.step or self.noise or self.transform != "none"):
            raise ValueError(
                "a column of levels has neither spikes nor transform nor step nor noise"
            )
        if min(self.step, self.noise, self.place, self.repeated) < 0:
            raise ValueError("step, noise, place and repeated must be at least 0")
        if not 0 <= self.unseen < 1:
            raise ValueError("unseen must be at least 0 and below 1")
        if self.repeated > MOST_REPEATED:
            raise ValueError(f"repeated must be at most {MOST_REPEATED}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        if self.transform in ("logit", "circular") and (self.low is None or self.high is None):
            raise ValueError(f"the transform {self.transform} needs low and high")

    @property
    def states(self) -> int:
        """Number of states of a cell: levels or continuous, spikes, missing."""
        return (self.levels or 1 + len(self.spikes)) + int(self.missing)


@dataclass(frozen=True)
class Variable:
    """Discrete variable of a row: the level of a cell, or the state of a numeric one.

    Attributes:
        column: Number of the column.
        size: Number of its levels or states.
        is_state: True for a state: 0 is continuous, then the spikes, then missing.
    """

    column: int
    size: int
    is_state: bool


@dataclass(frozen=True)
class Layout:
    """Places of the cells in the rows of the model: indices of variables, then continuous values.

    Attributes:
        columns: Columns of the data.
        hides: True if cells can be hidden: every numeric column then has a state, that it can be
            hidden by.
    """

    columns: Sequence[MixedColumn]
    hides: bool = False

    @cached_property
    def variables(self) -> list[Variable]:
        """Discrete variables, each of which depends on those before it."""
        return [
            Variable(number, column.states, is_state=column.levels == 0)
            for number, column in sorted(enumerate(self.columns), key=lambda one: one[1].place)
            if column.levels or column.states > 1 or self.hides
        ]

    @property
    def ordered(self) -> list[tuple[int, list[float]]]:
        """First slot and values of each variable whose levels or spikes are three numbers or more."""
        found, start = [], 0
        for variable in self.variables:
            column = self.columns[variable.column]
            first, values = (
                (start + 1, column.spikes) if variable.is_state else (start, column.values)
            )
            if len(values) > 2:
                found.append((first, values))
            start += variable.size
        return found

    @property
    def is_tree(self) -> bool:
        """True if the variables have an order of their own, parents before children."""
        return any(column.place for column in self.columns)

    @cached_property
    def continuous(self) -> list[int]:
        """Numbers of the continuous columns."""
        return [number for number, column in enumerate(self.columns) if column.levels == 0]

    @cached_property
    def circles(self) -> list[int]:
        """Places of the circular columns among the continuous ones."""
        numbers = enumerate(self.continuous)
        return [place for place, n in numbers if self.columns[n].transform == "circular"]

    @property
    def width(self) -> int:
        """Number of columns of a row of the model."""
        return len(self.variables) + len(self.continuous)

    @property
    def slots(self) -> int:
        """Number of levels and states of all variables."""
        return sum(variable.size for variable in self.variables)

    @property
    def masks(self) -> bool:
        """True if a continuous value may be absent."""
        return any(variable.is_state for variable in self.variables)
