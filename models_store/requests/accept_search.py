"""Acceptance of searches: the flows to try, in stages, all of them within the limits."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from flows import (
    Cost,
    EnsembleSpec,
    FlowSpec,
    LatentSpec,
    MixedSpec,
)
from flows.defaults import candidate_flows
from flows.families.family import FamilySpec
from models_store.errors import RequestError
from models_store.plans.plan import MAX_REQUESTS_BYTES
from models_store.records import Dataset
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import Described, TrainingLimits, check_flow
from models_store.requests.search import AcceptedSearch, Stage
from models_store.requests.training import (
    AcceptedTraining,
    AutoFlow,
    Quality,
    TrainingRequest,
    Trial,
)

_EFFORTS: dict[Quality, int] = {"fast": 0, "balanced": 1, "best": 2}
_ENSEMBLES: dict[Quality, int] = {"fast": 1, "balanced": 5, "best": 8}
# Shares of the epochs, and of the trials that are trained for them.
_STAGES: dict[Quality, tuple[tuple[float, float], ...]] = {
    "fast": ((1.0, 1.0),),
    "balanced": ((0.15, 1.0), (0.4, 0.5), (1.0, 0.0)),
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
    trials = _different([trial_of(one) for one in accepted])[: most_trials(default)]
    wanted_members = request.flow.ensemble if isinstance(request.flow, AutoFlow) else None
    members = wanted_members or _ENSEMBLES[request.quality]
    return AcceptedSearch(
        **default.table_fields(),
        mixed=whole_rows(default),
        trials=trials,
        stages=_stages(
            len(trials), request.quality, last=members, limited=chosen.max_seconds is not None
        ),
        ensemble=fitting_members(default, trials, most=members, limits=limits),
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


def most_trials(accepted: AcceptedTraining) -> int:
    """Return how many trials a search may have, each of which repeats what is said of the table."""
    return max(1, MAX_REQUESTS_BYTES // len(accepted.model_dump_json()))


def whole_rows(accepted: AcceptedTraining) -> MixedSpec | None:
    """Return the density of mixed rows that a search keeps; None: the table has numbers alone."""
    return accepted.flow if isinstance(accepted.flow, MixedSpec) else None


def trial_of(accepted: AcceptedTraining) -> Trial:
    """Return a training as a trial, without its table."""
    return Trial(flow=_inner(accepted.flow), optimisation=accepted.optimisation)


def _different(trials: Sequence[Trial]) -> list[Trial]:
    found: list[Trial] = []
    for trial in trials:
        if trial not in found:
            found.append(trial)
    return found


def _stages(trials: int, quality: Quality, *, last: int, limited: bool) -> list[Stage]:
    """Return the stages; the last one trains as many trials to their end as an ensemble may have.

    Where time is limited, the first one trains the default alone, to its end.
    """
    stages = [Stage(trials=1, share=1)] if limited else []
    for share, part in _STAGES[quality]:
        kept = max(min(last, trials), ceil(part * trials))
        stages.append(Stage(trials=kept, share=share))
    return stages if trials > 1 else stages[-1:]


def fitting_members(
    default: AcceptedTraining, trials: Sequence[Trial], *, most: int, limits: TrainingLimits
) -> int:
    """Return the most members of an ensemble that can be loaded, whichever trials they are."""
    dim, context_dim = len(default.columns), len(default.context_columns)
    flows = [_whole(default.flow, trial.flow) for trial in trials]
    described = [Described(flow, dim, context_dim) for flow in flows]
    for count in range(most, 1, -1):
        if all(
            _fits(described, measure, count=count, limits=limits)
            for measure in (_parameters, _operations, _layers, _loaded)
        ):
            return count
    return 1


def _fits(
    described: Sequence[Described],
    measure: Callable[[Cost], int],
    *,
    count: int,
    limits: TrainingLimits,
) -> bool:
    """Return whether the ensemble of the flows that a measure finds the largest can be loaded."""
    heaviest = sorted(described, key=lambda one: measure(one.cost), reverse=True)[:count]
    members: list[Any] = [one.flow for one in heaviest]
    spec = EnsembleSpec(members=members, weights=[1 / len(members)] * len(members))
    dim, context_dim = described[0].dim, described[0].context_dim
    try:
        check_flow(Described(spec, dim, context_dim), limits=limits)
    except RequestError:
        return False
    return True


def _parameters(cost: Cost) -> int:
    return cost.parameters


def _operations(cost: Cost) -> int:
    return max(cost.density.operations, cost.sampling.operations)


def _layers(cost: Cost) -> int:
    return cost.layers


def _loaded(cost: Cost) -> int:
    return cost.loaded_bytes


def _whole(default: FlowSpec, flow: FlowSpec) -> FlowSpec:
    if not isinstance(default, MixedSpec) or isinstance(
        flow, MixedSpec | EnsembleSpec | LatentSpec
    ):
        return flow
    return replace(default, flow=flow)
