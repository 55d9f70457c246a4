"""Work of one ensemble job: a choice among trained flows, and one model file of those that it takes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flows import (
    EnsembleSpec,
    Flow,
    FlowSpec,
    LatentSpec,
    MixedSpec,
    ensemble_of,
    spec_from_dict,
)
from flows.compiled.calibration import companion_of
from flows.compiled.sampling import calibrate_samples
from flows.ensemble import mix
from flows.training.evaluate import default_chunk_rows, spread_table
from flows.training.robust import robust_mean, robust_standard_error
from models_store.files.blobs import Blobs
from models_store.requests.search import AcceptedEnsemble, Member
from workers.protocol import EnsembleTask, Interrupted, Send, Trained
from workers.trainer.checkpoints import store
from workers.trainer.data import SplitRows, load_flow, load_parts
from workers.trainer.devices import find_device, memory_of
from workers.trainer.progress import Evaluation, EvaluationEndedError, Teller
from workers.trainer.summary import summarise
from workers.trainer.training import held_out_quantiles, likelihoods, rows_to_score
from workers.trainer.unusual import unusual_rows

# An ensemble is slower to serve than its best member: it must be this much better, in nats per row.
_LEAST_GAIN = 0.005
# A member this much worse than the best one, in nats per row, adds nothing but time.
_MOST_BEHIND = 1.0
# Rank correlation with the default below which a caller is warned, and the fewest rows that tell it.
_LEAST_CORRELATION, _FEWEST_RANKS = 0.8, 50
_ITERATIONS, _SHARE_OF_EM = 20, 0.7


def assemble(task: EnsembleTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Store the ensemble of the members that `task` names, or the best member alone.

    Members that are much worse than the best are left out. The weights of the others are
    between equal ones and those that a few iterations of EM find for the validation rows, so that few
    rows do not decide too much. The ensemble is taken unless its robust validation likelihood is
    clearly no better. The last message is `Trained`, or `Interrupted` once `interrupted()` is true.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: The model could not be written.
    """
    torch.set_num_threads(task.threads)
    request = AcceptedEnsemble.model_validate(task.request)
    device = find_device(task.device)
    blobs = Blobs(task.store)
    parts = load_parts(task, blobs, split=request.split, columns=request.column_types)
    parts = parts.to(device, memory_bytes=memory_of(device))
    of_one = len(parts.validation) + rows_to_score(parts)
    teller = Teller(task, send, interrupted)
    evaluation = Evaluation(len(request.members) * of_one, teller)
    try:
        send(_assembled(request, parts, task, blobs, teller=teller, evaluation=evaluation))
    except EvaluationEndedError:
        send(Interrupted(metrics={}, progress={}, checkpoint=None))


def _assembled(
    request: AcceptedEnsemble,
    parts: SplitRows,
    task: EnsembleTask,
    blobs: Blobs,
    *,
    teller: Teller,
    evaluation: Evaluation,
) -> Trained:
    """Choose, evaluate and store the ensemble; return the last message."""
    device, seed = find_device(task.device), request.seed
    flows, scores = [], []
    for member in request.members:
        flow = load_flow(blobs, member, request.columns).to(device)
        flows.append(flow)
        scores.append(_score(flow, parts, seed=seed, scored=evaluation.scored))
    choice = choose(torch.stack(scores), request.row_loss_bound)
    members = [request.members[number] for number in choice.members]
    left_out = len(flows) - len(members)
    evaluation.rows -= left_out * rows_to_score(parts)
    flow, spec = _mixture([flows[number] for number in choice.members], members, choice.weights)
    evaluation.flows = len(members)
    teller.note(_account(members, gain=choice.gain))
    for text in _about_ranks(request, scores, choice):
        teller.note(text)
    metrics: dict[str, Any] = {
        "members": [member.trial for member in members],
        "weights": [round(weight, 4) for weight in choice.weights],
        "best_robust_validation_log_likelihood": choice.reached,
        **likelihoods(flow, parts, seed=seed, scored=evaluation.scored),
        **summarise(flow, parts, spec=spec, columns=request.columns, seed=seed),
    }
    held_out = held_out_quantiles(flow, parts, device, scored=evaluation.scored)
    unusual = unusual_rows(
        flow,
        task,
        blobs,
        request=request,
        held_out=held_out,
        scored=evaluation.scored,
    )
    if flow.companion is None:
        calibrate_samples(flow, parts.train, seed=seed, alive=teller.tick)
        flow.companion = companion_of(
            flow, parts.train, parts.validation, seed=seed, alive=teller.tick
        )
    return store(
        task,
        blobs,
        flow,
        spec=spec,
        columns=request.columns,
        context_columns=request.context_columns,
        types=request.types,
        preprocessing=request.preprocessing,
        seed=seed,
        metrics=metrics,
        held_out=held_out,
        unusual=unusual,
    )


def _score(
    flow: Flow, parts: SplitRows, *, seed: int, scored: Callable[[int], None]
) -> Float[Tensor, " rows"]:
    """Return the log densities of the validation rows, whose discrete values have the noise of the seed."""
    noise, most = torch.Generator().manual_seed(seed), default_chunk_rows(flow)
    pieces = torch.split(parts.validation, most)
    spread = (spread_table(flow, some.to(flow.device), noise) for some in pieces)
    found = []
    with torch.no_grad():
        for rows in spread:
            found.append(flow.log_prob_of_table(rows).cpu())
            scored(len(rows))
    return torch.cat(found).double()


@dataclass(frozen=True)
class Choice:
    """Members of an ensemble, and their weights.

    Attributes:
        members: Numbers of the members, the best one first.
        weights: Weight of each; they sum to 1.
        reached: Robust validation likelihood.
        gain: Part of it that the best member alone lacks.
    """

    members: list[int]
    weights: list[float]
    reached: float
    gain: float


def choose(scores: Float[Tensor, "members rows"], bound: float | None) -> Choice:
    """Return the best member alone, or the ensemble if it is better.

    Args:
        scores: Log densities of the validation rows, by each member.
        bound: Bound of the losses of single rows; None: none.
    """
    alone = [_mean(one, bound) for one in scores]
    order = sorted(range(len(alone)), key=lambda number: -alone[number])
    best = order[0]
    kept = [best, *(number for number in order[1:] if alone[number] > alone[best] - _MOST_BEHIND)]
    weights = _weights(scores[kept])
    mixed = mix(scores[kept], weights)
    reached = _mean(mixed, bound)
    gain = reached - alone[best]
    # Of few rows the choice of one flow is chance: a mixture is taken unless it is clearly no better.
    if len(kept) == 1 or gain < _LEAST_GAIN - 2 * _standard_error(mixed, scores[best], bound):
        return Choice([best], [1.0], alone[best], 0.0)
    return Choice(kept, weights.tolist(), reached, gain)


def _weights(scores: Float[Tensor, "members rows"]) -> Float[Tensor, " members"]:
    """Return the mean of equal weights and those of some iterations of EM, which begin there."""
    equal = torch.full((len(scores),), 1 / len(scores), dtype=torch.float64)
    # A row that no member gives a density tells nothing of them.
    told = scores[:, scores.isfinite().any(dim=0)].nan_to_num(nan=-torch.inf)
    weights = equal
    for _ in range(_ITERATIONS):
        weights = torch.softmax(told + weights.log()[:, None], dim=0).mean(dim=1)
    mixed = _SHARE_OF_EM * weights + (1 - _SHARE_OF_EM) * equal
    return mixed / mixed.sum()


def _standard_error(
    one: Float[Tensor, " rows"], other: Float[Tensor, " rows"], bound: float | None
) -> float:
    """Return the standard error of the difference of two means as `_mean` takes them."""
    if bound is not None:
        return robust_standard_error(one, other, bound)
    differences = one - other
    told = differences[differences.isfinite()]
    return float(told.std()) / math.sqrt(len(told)) if len(told) > 1 else 0.0


def _mean(scores: Float[Tensor, " rows"], bound: float | None) -> float:
    mean = float(scores.mean()) if bound is None else robust_mean(scores, bound)
    return -math.inf if math.isnan(mean) else mean


def _mixture(
    flows: list[Flow], members: list[Member], weights: list[float]
) -> tuple[Flow, FlowSpec]:
    specs = [spec_from_dict(member.flow) for member in members]
    if len(flows) == 1:
        return flows[0], specs[0]
    parts = [spec for spec in specs if not isinstance(spec, EnsembleSpec | LatentSpec)]
    spec = EnsembleSpec(members=parts, weights=weights)
    return ensemble_of(flows, weights).eval(), spec


def _about_ranks(
    request: AcceptedEnsemble, scores: list[Float[Tensor, " rows"]], choice: "Choice"
) -> Iterator[str]:
    """Yield a warning where the chosen flows rank rows very differently from the default, trial 0."""
    default = next((at for at, one in enumerate(request.members) if one.trial == 0), None)
    if default is None or choice.members == [default]:
        return
    weights = torch.tensor(choice.weights, dtype=torch.float64)
    chosen = mix(torch.stack([scores[at] for at in choice.members]), weights)
    ranks = torch.stack([one.argsort().argsort().double() for one in (chosen, scores[default])])
    correlation = float(torch.corrcoef(ranks)[0, 1])
    if len(chosen) >= _FEWEST_RANKS and correlation < _LEAST_CORRELATION:
        yield (
            f"The model ranks rows very differently from the default flow (a rank correlation of"
            f" {correlation:.2f}): before you rank outliers by it, compare both on rows that you know."
        )


def _account(members: list[Member], *, gain: float) -> str:
    families = [_family(spec_from_dict(member.flow)) for member in members]
    if len(members) == 1:
        return f"The best flow alone ({families[0]}) is the model: a mixture gains no more than it costs."
    told = (
        f"{gain:.3f} nats better than the best alone"
        if gain > 0
        else "no worse than the best alone"
    )
    return f"The model is a mixture of {', '.join(families)}, {told}."


def _family(spec: FlowSpec) -> str:
    inner = spec.flow if isinstance(spec, MixedSpec) else None
    return spec.family if inner is None else inner.family
