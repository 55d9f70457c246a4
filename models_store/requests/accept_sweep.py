"""Acceptance of sweeps: the points that are tried, in stages, all of them within the limits."""

import math
import secrets
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import torch

from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.accept_search import (
    fitting_members,
    most_trials,
    trial_of,
    whole_rows,
)
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.search import (
    AcceptedSearch,
    Choices,
    Interval,
    Range,
    Stage,
    SweepRequest,
)
from models_store.requests.training import AcceptedTraining

Point = dict[str, Any]

_SOBOL_SEEDS = 2**31
# Columns of all trials together: each trial is checked, and stored in one transaction with the others.
_MOST_CHECKED = 16_384
# Training that is shorter than this share of the epochs tells little of the rest.
_LEAST_SHARE = 0.02


def accept_sweep(
    request: SweepRequest, dataset: Dataset, *, limits: TrainingLimits, held_out: HeldOut
) -> AcceptedSearch:
    """Check a sweep, and choose its points.

    Raises:
        RequestError: A point cannot work on this data or is too large.
    """
    columns = len(request.columns or dataset.columns)
    _check_trials(request, columns, most=_MOST_CHECKED // max(1, columns))
    chosen = request.optimisation
    seed = secrets.randbits(31) if chosen.seed is None else chosen.seed
    fixed = chosen.model_copy(update={"seed": seed, "max_seconds": None})
    base = request.model_copy(update={"optimisation": fixed})
    points = draw_points(request)
    default = _accepted(base, points[0], dataset, limits, held_out)
    _check_trials(request, columns, most=most_trials(default))
    others = [_accepted(base, point, dataset, limits, held_out) for point in points[1:]]
    accepted = [default, *others]
    trials = [trial_of(one) for one in accepted]
    members = min(request.ensemble, len(trials))
    return AcceptedSearch(
        **default.table_fields(),
        mixed=whole_rows(default),
        trials=trials,
        stages=_stages(len(trials), request.reduction, last=members),
        ensemble=fitting_members(default, trials, most=members, limits=limits),
        max_seconds=chosen.max_seconds,
        points=points,
    )


def _check_trials(request: SweepRequest, columns: int, *, most: int) -> None:
    """Refuse more trials than are checked in a few seconds, and stored in one transaction.

    Raises:
        RequestError: There are too many for the columns of the dataset, or their levels.
    """
    if request.trials > max(1, most):
        raise RequestError(
            "validation",
            f"a sweep over these {columns:,} columns may have at most {max(1, most)} trials",
            pointer="/trials",
        )


def draw_points(request: SweepRequest) -> list[Point]:
    """Return different points of the ranges, at most as many as the sweep has trials."""
    seed = secrets.randbits(31) if request.seed is None else request.seed % _SOBOL_SEEDS
    points: list[Point] = []
    for place in _places(request, seed):
        ranges = zip(request.ranges.items(), place, strict=True)
        point = {path: _value(one, at) for (path, one), at in ranges}
        if point not in points:
            points.append(point)
    return points


def _places(request: SweepRequest, seed: int) -> Iterator[Sequence[float]]:
    """Yield points of the unit cube."""
    dim = len(request.ranges)
    if request.method == "sobol":
        sobol = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)  # type: ignore[no-untyped-call]  # torch's
        drawn = sobol.draw(request.trials, dtype=torch.float64)
    else:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(request.trials, dim, generator=generator, dtype=torch.float64)
    yield from drawn.tolist()


def _value(one: Range, at: float) -> Any:  # noqa: ANN401  of any type that fields have
    """Return the value at a place from 0 to 1 of a range."""
    match one:
        case Choices(values=values):
            return values[min(int(at * len(values)), len(values) - 1)]
        case Interval():
            return _number(one, at)


def _number(one: Interval, at: float) -> int | float:
    low, high = float(one.low), float(one.high)
    end = high + 1 if one.is_whole else high
    if one.scale == "log":
        number = math.exp(math.log(low) + at * (math.log(end) - math.log(low)))
    else:
        number = low + at * (end - low)
    # Sums and logarithms round; a value is never beyond its range.
    return min(one.high, max(one.low, math.floor(number) if one.is_whole else number))


def _accepted(
    base: SweepRequest,
    point: Point,
    dataset: Dataset,
    limits: TrainingLimits,
    held_out: HeldOut,
) -> AcceptedTraining:
    shown = ", ".join(f"`{path}` {str(value)[:40]}" for path, value in point.items())
    try:
        training = base.with_point(point)
        return accept_training(training, dataset, limits=limits, held_out=held_out)
    except ValueError as error:
        raise RequestError(
            "validation", f"a point of {shown}: {error}", pointer="/ranges"
        ) from None
    except RequestError as error:
        if not error.pointer.startswith(("/flow", "/optimisation")):
            raise
        detail = f"a point of {shown}: {error.detail}"
        raise RequestError(error.slug, detail, pointer="/ranges") from None


def _stages(trials: int, reduction: int, *, last: int) -> list[Stage]:
    """Return the stages of successive halving; the last one trains as many as an ensemble may have."""
    counts = [trials]
    while reduction > 1 and counts[-1] > last:
        counts.append(max(last, ceil(counts[-1] / reduction)))
    steps = len(counts) - 1
    shares = [max(_LEAST_SHARE, 1 / reduction ** (steps - number)) for number in range(steps + 1)]
    return [Stage(trials=n, share=share) for n, share in zip(counts, shares, strict=True)]
