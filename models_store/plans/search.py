"""Plan of a search: successive halving on the robust validation likelihood, then an ensemble.

All trials are trained for a share of their epochs, with the learning rate falling over that share;
the best of them again, for longer; and so on (Jamieson and Talwalkar 2016). The flows of the last
stage become one version: the best alone, or an ensemble of the best few.

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
# Less training time than this, in seconds, is no trial.
_LEAST_S = 0.05


def search_step(search: dict[str, Any], children: list[Child]) -> Step:
    """Return the next step of a search all of whose children have ended."""
    if not children:
        return _stage(search, 0, list(range(len(search["trials"]))), children)
    ensembles = [child for child in children if child.kind is JobKind.ENSEMBLE]
    trained = [child for child in children if child.kind is JobKind.TRAINING]
    if ensembles:
        made = next((child for child in ensembles if child.succeeded), None)
        return _finish(made, trained)
    stage = max(child.stage for child in trained)
    ranked = _ranked([child for child in trained if child.stage == stage])
    more = stage + 1 < len(search["stages"]) and _seconds_left(search, trained) > _LEAST_S
    if ranked and more:
        kept = [child.number for child in ranked[: search["stages"][stage + 1]["trials"]]]
        return _stage(search, stage + 1, kept, children)
    members = ranked[: search["ensemble"]]
    if len(members) < 2:
        return _finish(None, trained)
    return Start((_ensemble(search, members, stage + 1),))


def search_account(
    search: dict[str, Any], children: list[Child], *, elapsed_s: float | None
) -> Account:
    """Return the table of what was tried, the time that it took, and how far the search is."""
    stages = search["stages"]
    table = [_row(search, child) for child in children if child.kind is JobKind.TRAINING]
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
    return Account(metrics={"trials": table, "seconds": _seconds(children)}, progress=progress)


def trial_training(
    search: dict[str, Any], number: int, *, max_epochs: int, max_seconds: float | None
) -> dict[str, Any]:
    """Return the accepted request for the training of a trial.

    Args:
        search: Accepted search.
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


def _stage(search: dict[str, Any], stage: int, numbers: list[int], children: list[Child]) -> Step:
    """Return the step that trains some trials for the share of a stage, within the time left."""
    share = search["stages"][stage]["share"]
    slice_s = None
    if search["max_seconds"] is not None:
        work = [one["trials"] * one["share"] for one in search["stages"][stage:]]
        left_s = _seconds_left(search, children)
        slice_s = max(_LEAST_S, left_s * work[0] / sum(work) / len(numbers))
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
    return min(most, max(_FEWEST_EPOCHS, math.ceil(share * most)))


def _epochs_within(slice_s: float, number: int, children: list[Child]) -> int | None:
    """Return the epochs of a trial that fit, at its pace so far; None: it has not been trained yet.

    So the learning rate has fallen to its end when the time is over.
    """
    known = [child for child in children if child.number == number and child.metrics.get("epoch")]
    if not known:
        return None
    pace_s = known[-1].metrics["seconds"] / known[-1].metrics["epoch"]
    return max(_FEWEST_EPOCHS, int(slice_s / max(pace_s, 1e-6)))


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
    product = child.product or {}
    return {
        "trial": child.number,
        "key": product["checkpoint_key"],
        "sha256": product["checkpoint_sha256"],
        "flow": product["flow"],
    }


def _finish(made: Child | None, trained: list[Child]) -> Finish | GiveUp:
    """Return the last step: with the ensemble, or the best flow of the latest stage that has one."""
    if made is not None:
        return Finish(made)
    for stage in sorted({child.stage for child in trained}, reverse=True):
        ranked = _ranked([child for child in trained if child.stage == stage])
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
    most: float | None = search["max_seconds"]
    return math.inf if most is None else most - _seconds(children)


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
