"""Plan of a search: successive halving on the robust validation likelihood, then an ensemble.

All trials are trained for a share of their epochs, with the learning rate falling over that share;
the best of them again, for longer; and so on (Jamieson and Talwalkar 2016). The flows that were
trained to their end become one version: the best alone, or an ensemble of the best few. A search of
flows trains the default to its end first, and the others share what the limit of time leaves, or five
times as long as the default took: so no limit makes the search worse than the default alone. A mixture of Gaussians is fitted once, to its end:
expectation maximisation converges in seconds, and would find the same again.

Requests are the plain values that rows have: whoever claims a job takes the steps of parents, and
the processes that do must never import torch, which the classes of the specs need.
"""

import math
from typing import Any

from models_store.job_states import JobKind
from models_store.plans.plan import (
    Account,
    Child,
    Finish,
    GiveUp,
    NewChild,
    Start,
    Step,
    lasting_failure,
    remaining_s,
)

SCORE = "best_robust_validation_log_likelihood"
"""Metric that trials are compared by."""

# Fields of an accepted search beside those of its table.
_OWN_FIELDS = frozenset({"mixed", "trials", "stages", "ensemble", "max_seconds", "points"})
# Families that model a whole mixed row.
_WHOLE_ROWS = ("mixed", "ensemble")
# Below this many, families differ by how fast they begin.
_FEWEST_EPOCHS = 10
# Times that the training of the default takes, of all trainings of a search of flows without a limit.
MOST_TIMES = 6.0
# Less training time than this, in seconds, is no trial.
_LEAST_S = 0.05


def search_step(search: dict[str, Any], children: list[Child]) -> Step:
    """Return the next step of a search all of whose children have ended."""
    if not children:
        return _stage(search, 0, list(range(search["stages"][0]["trials"])), children)
    ensembles = [child for child in children if child.kind is JobKind.ENSEMBLE]
    trained = [child for child in children if child.kind is JobKind.TRAINING]
    if ensembles:
        made = next((child for child in ensembles if child.succeeded), None)
        return _finish(search, made, trained)
    stage = max(child.stage for child in trained)
    if stage + 1 < len(search["stages"]) and _seconds_left(search, trained) > _LEAST_S:
        kept = _kept(search, stage, trained)
        if kept:
            return _stage(search, stage + 1, kept, children)
    members = _members(search, _ranked(_compared(search, stage, trained)))
    if len(members) < 2:
        return _finish(search, None, trained)
    return Start((_ensemble(search, members, stage + 1),))


def _members(search: dict[str, Any], ranked: list[Child]) -> list[Child]:
    """Return the best few, the default among them where it was trained first: it is what a model compares with."""
    best = ranked[: search["ensemble"]]
    default = [child for child in ranked if child.number == 0 and child.stage == 0]
    is_told = search["ensemble"] > 1 and _trains_default_first(search) and default
    if not is_told or default[0] in best:
        return best
    return [*best[:-1], default[0]]


def search_account(
    request: dict[str, Any], children: list[Child], *, elapsed_s: float | None
) -> Account:
    """Return the table of what was tried, the time that it took, and how far the search is."""
    stages = request["stages"]
    table = [_row(request, child) for child in children if child.kind is JobKind.TRAINING]
    planned = [stage["share"] for stage in stages for _ in range(stage["trials"])]
    whole = sum(planned)
    done = sum(
        stages[child.stage]["share"]
        for child in children
        if child.ended and child.kind is JobKind.TRAINING
    )
    last, fraction = children[-1] if children else None, min(1.0, done / whole)
    progress = {
        "stage": 1 + (0 if last is None else min(last.stage, len(stages) - 1)),
        "stages": len(stages),
        "children_ended": sum(child.ended for child in children),
        "children": len(children) or stages[0]["trials"],
        "fraction": round(fraction, 4),
        "eta_seconds": remaining_s(fraction, elapsed_s),
    }
    return {"trials": table, "seconds": _seconds(children)}, progress


def trial_training(
    search: dict[str, Any], number: int, *, max_epochs: int, max_seconds: float | None
) -> dict[str, Any]:
    """Return the accepted request for the training of a trial.

    Args:
        number: Number of the trial.
        max_epochs: Epochs after which it ends, over which the learning rate falls.
        max_seconds: Longest time of training; None: no limit.
    """
    trial = search["trials"][number]
    flow, mixed = trial["flow"], search["mixed"]
    if mixed is not None and flow["family"] not in _WHOLE_ROWS:
        flow = {**mixed, "flow": flow}
    patience = trial["optimisation"]["patience"]
    limits = {
        "max_epochs": max_epochs,
        "max_seconds": max_seconds,
        "patience": None if patience is None else min(patience, max_epochs),
    }
    return {**_table(search), "flow": flow, "optimisation": {**trial["optimisation"], **limits}}


def _table(search: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in search.items() if name not in _OWN_FIELDS}


def _kept(search: dict[str, Any], stage: int, trained: list[Child]) -> list[int]:
    """Return the numbers of the trials of the next stage: as many of the best as the time allows.

    A mixture that is fitted keeps its place among the best, and is trained no more.
    """
    stages = search["stages"]
    if stage == 0 and _trains_default_first(search):
        return list(range(stages[0]["trials"], len(search["trials"])))
    fitted = {child.number for child in trained if _is_fitted(search, child)}
    ranked = _ranked([one for one in trained if one.stage == stage or one.number in fitted])
    best = [child.number for child in ranked[: stages[stage + 1]["trials"]]]
    numbers = [number for number in best if number not in fitted]
    if math.isinf(_limit_s(search, trained)):
        return numbers
    share, left_s = stages[stage + 1]["share"], _stage_seconds(search, stage + 1, trained)
    kept = list[int]()
    for number in numbers:
        left_s -= _epochs(search, number, share) * (_pace_s(number, trained) or 0.0)
        if kept and left_s < 0:
            break
        kept.append(number)
    return kept


def _compared(search: dict[str, Any], stage: int, trained: list[Child]) -> list[Child]:
    """Return the trainings that may become the version: the latest, and all to their end."""
    return [
        child
        for child in trained
        if child.stage == stage
        or search["stages"][child.stage]["share"] == 1
        or _is_fitted(search, child)
    ]


def _is_mixture(search: dict[str, Any], number: int) -> bool:
    """Return True for a trial that expectation maximisation fits."""
    return bool(search["trials"][number]["flow"]["family"] == "gaussian_mixture")


def _is_fitted(search: dict[str, Any], child: Child) -> bool:
    """Return True for a mixture that no limit of time has cut short: later stages have it as it is."""
    cut = child.metrics.get("stop_reason") == "max_seconds"
    return _is_mixture(search, child.number) and child.succeeded and not cut


def _stage_seconds(search: dict[str, Any], stage: int, children: list[Child]) -> float:
    """Return the seconds of the time left that a stage may take: all, where one trial goes first."""
    left_s = _seconds_left(search, children)
    if stage == 0 and _trains_default_first(search):
        return left_s
    work = [one["trials"] * one["share"] for one in search["stages"][stage:]]
    return float(left_s * work[0] / sum(work))


def _stage(search: dict[str, Any], stage: int, numbers: list[int], children: list[Child]) -> Step:
    """Return the step that trains some trials for the share of a stage, within the time left."""
    share = search["stages"][stage]["share"]
    slice_s = None
    if math.isfinite(_limit_s(search, children)):
        slice_s = max(_LEAST_S, _stage_seconds(search, stage, children) / len(numbers))
    new = []
    for number in numbers:
        epochs = _epochs(search, number, share)
        if slice_s is not None:
            epochs = min(epochs, _epochs_within(slice_s, number, children) or epochs)
        fields = trial_training(search, number, max_epochs=epochs, max_seconds=slice_s)
        new.append(NewChild(kind=JobKind.TRAINING, stage=stage, number=number, request=fields))
    return Start(tuple(new))


def _epochs(search: dict[str, Any], number: int, share: float) -> int:
    most: int = search["trials"][number]["optimisation"]["max_epochs"]
    if _is_mixture(search, number):
        return most
    return min(most, max(_FEWEST_EPOCHS, math.ceil(share * most)))


def _epochs_within(slice_s: float, number: int, children: list[Child]) -> int | None:
    """Return the epochs of a trial that fit, at its pace so far; None: it has not been trained yet.

    So the learning rate has fallen to its end when the time is over.
    """
    pace_s = _pace_s(number, children)
    return None if pace_s is None else max(_FEWEST_EPOCHS, int(slice_s / pace_s))


def _pace_s(number: int, children: list[Child]) -> float | None:
    """Return the seconds of an epoch of a trial; None: it has not been trained yet."""
    known = [child for child in children if child.number == number and child.metrics.get("epoch")]
    if not known:
        return None
    return max(1e-6, float(known[-1].metrics["seconds"]) / float(known[-1].metrics["epoch"]))


def _ensemble(search: dict[str, Any], members: list[Child], stage: int) -> NewChild:
    first = search["trials"][members[0].number]["optimisation"]
    fields = {
        **_table(search),
        "members": [_member(child) for child in members],
        "seed": first["seed"],
        "row_loss_bound": first["row_loss_bound"],
    }
    return NewChild(kind=JobKind.ENSEMBLE, stage=stage, number=0, request=fields)


def _member(child: Child) -> dict[str, Any]:
    product = child.product()
    return {
        "trial": child.number,
        "key": product["checkpoint_key"],
        "sha256": product["checkpoint_sha256"],
        "flow": product["flow"],
    }


def _finish(search: dict[str, Any], made: Child | None, trained: list[Child]) -> Finish | GiveUp:
    """Return the last step: with the ensemble, or the best flow of the latest stage that has one."""
    if made is not None:
        return Finish(made)
    for stage in sorted({child.stage for child in trained}, reverse=True):
        ranked = _ranked(_compared(search, stage, trained))
        if ranked:
            return Finish(ranked[0])
    return lasting_failure(trained)


def _ranked(children: list[Child]) -> list[Child]:
    """Return the children that succeeded, the best one first."""
    succeeded = [child for child in children if child.succeeded and _score(child) is not None]
    return sorted(succeeded, key=lambda child: (-(_score(child) or 0.0), child.number))


def _score(child: Child) -> float | None:
    value = child.metrics.get(SCORE)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _seconds(children: list[Child]) -> float:
    return round(sum(float(child.metrics.get("seconds") or 0.0) for child in children), 3)


def _seconds_left(search: dict[str, Any], children: list[Child]) -> float:
    return _limit_s(search, children) - _seconds(children)


def _limit_s(search: dict[str, Any], children: list[Child]) -> float:
    """Return the seconds that all trainings may take: what is asked, or some times what the default took."""
    most: float | None = search["max_seconds"]
    if most is not None:
        return most
    first = next((one for one in children if (one.stage, one.number) == (0, 0)), None)
    if first is None or not first.succeeded or not _trains_default_first(search):
        return math.inf
    return MOST_TIMES * float(first.metrics.get("seconds") or math.inf)


def _trains_default_first(search: dict[str, Any]) -> bool:
    return bool(search["stages"][0]["trials"] < len(search["trials"]))


def _row(search: dict[str, Any], child: Child) -> dict[str, Any]:
    flow, points = search["trials"][child.number]["flow"], search.get("points")
    return {
        "stage": child.stage + 1,
        "trial": child.number,
        "family": flow["family"],
        **({} if points is None else {"values": points[child.number]}),
        "job_id": child.id,
        "state": child.state.value,
        "epochs": child.metrics.get("epoch"),
        "seconds": child.metrics.get("seconds"),
        "robust_validation_log_likelihood": _score(child),
        "validation_log_likelihood": child.metrics.get("validation_log_likelihood"),
    }
