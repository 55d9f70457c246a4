"""The verdict on a version in plain words, and the facts that it is made of."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

Level = Literal["usable", "usable_with_care", "not_usable"]

_FEW_ROWS = 100  # held-out rows, of which ranks are coarse
_LARGE_GAP = 0.5  # nats a row between training rows and others
_SMALL_GAP = 0.05
_LARGE_DISTANCE = 0.1  # of the distribution functions of a column
_SIMPLE = {"gaussian": "one Gaussian", "mixture": "a mixture of Gaussians"}
_MOST_TIMES = 1e6

_Metrics = Mapping[str, Any]


class Fact(BaseModel):
    """Fact behind a verdict."""

    name: Literal["independent", "simple", "training", "data", "columns", "ranks", "held_out"] = (
        Field(description="Stable name of the fact.")
    )
    good: bool | None = Field(
        description="True if it speaks for the version, false if against it; null for neither."
    )
    text: str = Field(description="Fact in a sentence.")
    value: float | None = Field(
        description="Number that it is about: nats per row of `independent`, `simple`, `training` and `data`,"
        " distances of distribution functions of `columns` and `ranks`, rows of `held_out`."
    )
    standard_error: float | None = Field(
        description="Standard error of the value; null if there is none."
    )


class VerdictView(BaseModel):
    """Verdict on a version."""

    level: Level = Field(
        description="`usable`, `usable_with_care`: a fact speaks against it, or `not_usable`."
    )
    sentence: str = Field(description="Verdict and its reason in a sentence.")
    facts: list[Fact] = Field(description="Facts that it is made of.")

    @classmethod
    def of(cls, metrics: _Metrics, *, dim: int) -> "VerdictView | None":
        """Return the verdict on a version.

        Returns:
            The verdict; None for a version whose training did not tell enough: one of a former release, one
            that was imported, or an approximation of a target.
        """
        gain = metrics.get("gain_over_independent")
        part = "test" if metrics.get("test_rows") else "validation"
        if gain is None or not metrics.get(f"{part}_rows"):
            return None
        found = [
            _independent(metrics, gain, dim=dim),
            _simple(metrics),
            _training(metrics),
            _data(metrics, part),
            _columns(metrics),
            _ranks(metrics),
            _held_out(int(metrics[f"{part}_rows"])),
        ]
        facts = [fact for fact in found if fact is not None]
        against = next((fact for fact in facts if fact.good is False), None)
        level: Level = "usable"
        if facts[0].name == "independent" and facts[0].good is False:
            level = "not_usable"
        elif against is not None or facts[0].good is None:
            level = "usable_with_care"
        reason = against or facts[0]
        opening = level.replace("_", " ").capitalize()
        return cls(level=level, sentence=f"{opening}: {_lowered(reason.text)}", facts=facts)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def times_likelier(nats: float) -> str:
    """Return how many times likelier some nats are, in words."""
    times = math.exp(min(nats, 700.0))
    if times > _MOST_TIMES:
        return "more than a million times"
    return f"{times:,.0f} times" if times >= 10 else f"{times:.1f} times"


def _independent(metrics: _Metrics, gain: float, *, dim: int) -> Fact | None:
    if dim == 1:
        return None
    error = metrics.get("gain_over_independent_standard_error")
    is_sure = abs(gain) > 2 * (error or 0.0)
    text = "No dependence between the columns was found: each is judged alone."
    if is_sure and gain > 0:
        text = (
            f"It knows the dependence between the columns: rows are on average {times_likelier(gain)} likelier than"
            " if the columns had nothing to do with each other."
        )
    elif is_sure:
        text = "Rows are less likely than if the columns had nothing to do with each other; train longer, or on more rows."
    good = gain > 0 if is_sure else None
    return Fact(name="independent", good=good, text=text, value=gain, standard_error=error)


def _simple(metrics: _Metrics) -> Fact | None:
    known = {
        name: float(metrics[f"gain_over_{name}"])
        for name in _SIMPLE
        if metrics.get(f"gain_over_{name}") is not None
    }
    if not known:
        return None
    best = min(known, key=lambda name: known[name])
    gain, error = known[best], metrics.get(f"gain_over_{best}_standard_error")
    if abs(gain) <= 2 * (error or 0.0):
        text = f"It is as good as {_SIMPLE[best]}, the best simple model."
    elif gain > 0:
        text = f"Rows are on average {times_likelier(gain)} likelier than by {_SIMPLE[best]}, the best simple model."
    else:
        text = f"Rows are on average {times_likelier(-gain)} likelier by {_SIMPLE[best]}: train longer, or choose that."
    good = gain > -2 * (error or 0.0)
    return Fact(name="simple", good=good, text=text, value=gain, standard_error=error)


def _training(metrics: _Metrics) -> Fact | None:
    rising = metrics.get("still_rising")
    if rising is None:
        return None
    gain, error = metrics.get("expected_gain"), metrics.get("validation_standard_error")
    good: bool | None = not rising
    text = "More time would hardly help: the likelihood of validation rows rose no more."
    if gain is not None:
        about = f"twice the time is expected to gain {gain:.2g} nats a row"
        errors = f"two standard errors, of {error or 0.0:.2g} each"
        if rising:
            text = f"Training ended while it still improved: {about}, more than {errors}."
        elif gain > _SMALL_GAP:
            good, text = None, f"More time may help: {about}, which lies within {errors}."
        else:
            text = f"More time would hardly help: {about}."
    return Fact(name="training", good=good, text=text, value=gain, standard_error=error)


def _data(metrics: _Metrics, part: str) -> Fact | None:
    names = [
        f"{one}_{what}" for one in ("train", part) for what in ("log_likelihood", "standard_error")
    ]
    numbers = [metrics.get(name) for name in names]
    if any(number is None for number in numbers):
        return None
    trained, first, other, second = (float(number or 0.0) for number in numbers)
    gap, error = trained - other, math.hypot(first, second)
    good: bool | None = True
    text = "It fits rows that it has not seen as well as those that it was trained on."
    if gap > max(2 * error, _SMALL_GAP):
        text = (
            f"More rows would probably help: it gives those that it was trained on {times_likelier(gap)} the density of"
            " others."
        )
        good = None if gap <= _LARGE_GAP else False
    return Fact(name="data", good=good, text=text, value=gap, standard_error=error)


def _columns(metrics: _Metrics) -> Fact | None:
    distances = metrics.get("column_distances")
    if distances is None:
        return None
    bad = {name: value for name, value in distances.items() if value > _LARGE_DISTANCE}
    text = "All columns fit."
    if distances:
        named = ", ".join(f"{name} ({value:.2f})" for name, value in (bad or distances).items())
        how = "fit badly" if bad else "fit less well than the others"
        text = f"These columns {how}, by the distance of samples from held-out rows: {named}."
    worst = max(distances.values(), default=0.0)
    return Fact(name="columns", good=not bad, text=text, value=worst, standard_error=None)


def _ranks(metrics: _Metrics) -> Fact | None:
    distance, limit = metrics.get("rank_distance"), metrics.get("rank_distance_limit")
    if distance is None or limit is None:
        return None
    good = distance <= limit
    text = "Ranks hold on other rows: of these a share r has a rank of at most r."
    if not good:
        text = f"Ranks are off by up to {distance:.2f} on other rows: those of the split are not alike."
    return Fact(name="ranks", good=good, text=text, value=distance, standard_error=None)


def _held_out(rows: int) -> Fact:
    text = f"It was judged by {rows:,} held-out rows; the lowest rank is {1 / (rows + 1):.2g}."
    if rows < _FEW_ROWS:
        text = (
            f"It was judged by {rows:,} held-out rows only: no rank is below {1 / (rows + 1):.2g}."
        )
    return Fact(name="held_out", good=rows >= _FEW_ROWS, text=text, value=rows, standard_error=None)
