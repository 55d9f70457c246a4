"""Acceptance of searches and sweeps: the flows to try, in stages, all of them within the limits."""

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from flows import (
    EnsembleSpec,
    FlowSpec,
    LatentSpec,
    MixedSpec,
    flow_cost,
)
from flows.defaults import candidate_flows
from flows.specs.family import FamilySpec
from models_store.errors import RequestError
from models_store.plans.plan import MAX_REQUESTS_BYTES
from models_store.records import Dataset
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import MEASURES, Described, TrainingLimits, check_flow
from models_store.requests.search import (
    AcceptedSearch,
    Choices,
    Interval,
    Range,
    Stage,
    SweepRequest,
)
from models_store.requests.training import (
    AcceptedTraining,
    AutoFlow,
    Quality,
    TrainingRequest,
    Trial,
)

Point = dict[str, Any]

_SOBOL_SEEDS = 2**31
# Columns of all trials together: each trial is checked, and stored in one transaction with the others.
_MOST_CHECKED = 16_384
# Training that is shorter than this share of the epochs tells little of the rest.
_LEAST_SHARE = 0.02
_EFFORTS: dict[Quality, int] = {"fast": 0, "balanced": 1, "best": 2}
_ENSEMBLES: dict[Quality, int] = {"fast": 1, "balanced": 3, "best": 5}
# Shares of the epochs, and of the trials that are trained for them.
_STAGES: dict[Quality, tuple[tuple[float, float], ...]] = {
    "fast": ((1.0, 1.0),),
    "balanced": ((0.2, 1.0), (1.0, 0.0)),
    "best": ((0.1, 1.0), (0.35, 0.5), (1.0, 0.0)),
}


def accept_auto(
    request: TrainingRequest,
    dataset: Dataset,
    *,
    limits: TrainingLimits,
    held_out: HeldOut,
) -> AcceptedSearch:
    """Check a request that leaves the flow to a search, and choose what is tried.

    The default flow is always among the trials, and the first one. Flows that pass a limit, or that the table does not
    suit, are left out.

    Raises:
        RequestError: The request cannot work on this data or is too large.
    """
    chosen = request.optimisation
    seed = secrets.randbits(31) if chosen.seed is None else chosen.seed
    optimisation = chosen.model_copy(update={"seed": seed, "max_seconds": None})
    common = {"flow": None, "optimisation": optimisation}
    default = accept_training(
        request.model_copy(update=common), dataset, limits=limits, held_out=held_out
    )
    accepted = [default]
    for flow in _candidates(default, request.quality):
        wanted = request.model_copy(update=common | {"flow": flow})
        try:
            accepted.append(accept_training(wanted, dataset, limits=limits, held_out=held_out))
        except RequestError:
            continue
    asked = request.flow.ensemble if isinstance(request.flow, AutoFlow) else None
    members = asked or _ENSEMBLES[request.quality]
    trials = [_trial_of(one) for one in accepted]
    trials = [one for at, one in enumerate(trials) if one not in trials[:at]]
    trials = trials[: _most_trials(default)]
    return AcceptedSearch(
        **_common_fields(default, trials, members=members, limits=limits),
        stages=_stages_of(len(trials), request.quality, last=members),
        max_seconds=chosen.max_seconds,
    )


def _candidates(default: AcceptedTraining, quality: Quality) -> Iterator[FamilySpec]:
    """Yield the flows to try beside the default."""
    inner = _inner(default.flow)
    if isinstance(inner, MixedSpec | EnsembleSpec):
        return  # no column is continuous: there is no flow to choose
    dim = len(default.columns)
    if isinstance(default.flow, MixedSpec):
        dim = len(default.flow.layout(dim).continuous)
    yield from candidate_flows(inner, dim, effort=_EFFORTS[quality])


def _inner(flow: FlowSpec) -> FlowSpec:
    return flow.flow if isinstance(flow, MixedSpec) and flow.flow is not None else flow


def _most_trials(accepted: AcceptedTraining) -> int:
    """Return how many trials a search may have, each of which repeats what is said of the table."""
    return max(1, MAX_REQUESTS_BYTES // len(accepted.model_dump_json()))


def _common_fields(
    default: AcceptedTraining, trials: list[Trial], *, members: int, limits: TrainingLimits
) -> dict[str, Any]:
    """Return what any search keeps of its trials: their table, and how many may be averaged."""
    return {
        **default.table_fields(),
        "mixed": default.flow if isinstance(default.flow, MixedSpec) else None,
        "trials": trials,
        "ensemble": _fitting_members(default, trials, most=members, limits=limits),
    }


def _trial_of(accepted: AcceptedTraining) -> Trial:
    """Return a training as a trial, without its table."""
    return Trial(flow=_inner(accepted.flow), optimisation=accepted.optimisation)


def _stages_of(trials: int, quality: Quality, *, last: int) -> list[Stage]:
    """Return the stages; the last one trains as many trials to their end as an ensemble may have.

    The first one trains the default alone, to its end.
    """
    stages = [Stage(trials=1, share=1)]
    for share, part in _STAGES[quality]:
        kept = max(min(last, trials), ceil(part * trials))
        stages.append(Stage(trials=kept, share=share))
    return stages if trials > 1 else stages[-1:]


def _fitting_members(
    default: AcceptedTraining, trials: Sequence[Trial], *, most: int, limits: TrainingLimits
) -> int:
    """Return the most members of an ensemble that can be loaded, whichever trials they are."""
    dim, context_dim = len(default.columns), len(default.context_columns)
    flows = [_whole(default.flow, trial.flow) for trial in trials]
    costs = [flow_cost(flow, dim, context_dim) for flow in flows]
    for count in range(most, 1, -1):
        ensembles = []
        for measure in MEASURES:
            order = sorted(zip(map(measure, costs), range(len(flows)), strict=True), reverse=True)
            members: list[Any] = [flows[at] for _, at in order[:count]]
            ensembles.append(
                EnsembleSpec(members=members, weights=[1 / len(members)] * len(members))
            )
        if all(_is_served(Described(one, dim, context_dim), limits) for one in ensembles):
            return count
    return 1


def _is_served(described: Described, limits: TrainingLimits) -> bool:
    try:
        check_flow(described, limits=limits)
    except RequestError:
        return False
    return True


def _whole(default: FlowSpec, flow: FlowSpec) -> FlowSpec:
    if not isinstance(default, MixedSpec) or isinstance(
        flow, MixedSpec | EnsembleSpec | LatentSpec
    ):
        return flow
    return replace(default, flow=flow)


def accept_sweep(
    request: SweepRequest, dataset: Dataset, *, limits: TrainingLimits, held_out: HeldOut
) -> AcceptedSearch:
    """Check a sweep, and choose its points.

    Raises:
        RequestError: A point cannot work on this data or is too large.
    """
    chosen = request.optimisation
    seed = secrets.randbits(31) if chosen.seed is None else chosen.seed
    fixed = chosen.model_copy(update={"seed": seed, "max_seconds": None})
    base = request.model_copy(update={"optimisation": fixed})
    points = draw_points(request)
    default = _accepted(base, points[0], dataset, limits, held_out)
    _check_trials(request, default)
    others = [_accepted(base, point, dataset, limits, held_out) for point in points[1:]]
    trials = [_trial_of(one) for one in (default, *others)]
    members = min(request.ensemble, len(trials))
    return AcceptedSearch(
        **_common_fields(default, trials, members=members, limits=limits),
        stages=_halving(len(trials), request.reduction, last=members),
        max_seconds=chosen.max_seconds,
        points=points,
    )


def _check_trials(request: SweepRequest, first: AcceptedTraining) -> None:
    """Refuse more trials than are checked in a few seconds, and stored in one transaction.

    Raises:
        RequestError: There are too many for the columns of the dataset, or their levels.
    """
    columns = len(first.columns) + len(first.context_columns)
    most = max(1, min(_most_trials(first), _MOST_CHECKED // columns))
    if request.trials > most:
        raise RequestError(
            "validation",
            f"a sweep over these {columns:,} columns may have at most {most} trials",
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
    import torch  # noqa: PLC0415  only sweeps need it

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


def _halving(trials: int, reduction: int, *, last: int) -> list[Stage]:
    """Return the stages of successive halving; the last one trains as many as an ensemble may have."""
    counts = [trials]
    while reduction > 1 and counts[-1] > last:
        counts.append(max(last, ceil(counts[-1] / reduction)))
    steps = len(counts) - 1
    shares = [max(_LEAST_SHARE, 1 / reduction ** (steps - number)) for number in range(steps + 1)]
    return [Stage(trials=n, share=share) for n, share in zip(counts, shares, strict=True)]
