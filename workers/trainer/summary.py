"""Summary of a model in words: what a person should know of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from flows import CompiledFlow, Flow, FlowSpec, compile_flow
from flows.training.comparison import Gain, Gains, column_distances, gains_of, ks_distance
from models_store.requests.training import AcceptedTraining
from workers.trainer.checkpoints import finite
from workers.trainer.data import SplitRows, sample

# Rows that a summary looks at, of training and of others.
_ROWS = 5000
_ROWS_OF = {"test": "held-out rows", "validation": "the validation rows, which chose the epoch,"}
_COLUMNS = 5
# Cells of these rows at most: a summary takes a moment.
_CELLS = 2**20


def summarise_training(
    flow: Flow,
    parts: SplitRows,
    *,
    request: AcceptedTraining,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the summary of a trained flow, and whether its likelihood still rose."""
    rising, seed = is_rising(metrics), request.optimisation.seed
    told = [_told_rise(metrics)] if rising else []
    found = summarise(flow, parts, spec=request.flow, columns=request.columns, seed=seed)
    return found | {"still_rising": rising, "summary": [*told, *found["summary"]]}


def summarise(
    flow: Flow, parts: SplitRows, *, spec: FlowSpec, columns: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the numbers behind a summary, and the sentences as `summary`."""
    found: dict[str, Any] = {}
    texts: list[str] = []
    most = max(100, min(_ROWS, _CELLS // (flow.dim + flow.context_dim)))
    part, rows = "validation", parts.validation
    if parts.test is not None:
        part, rows = "test", parts.test
    train = sample(parts.train, most)
    other = sample(rows, most).to(train.device)  # a small part may be on the device alone
    gains = None if spec.is_binary else gains_of(flow, train, other, seed=seed)
    if gains is not None:
        for name, gain in vars(gains).items():
            found[f"gain_over_{name}"] = None if gain is None else finite(gain.mean)
            found[f"gain_over_{name}_standard_error"] = gain and finite(gain.standard_error)
        texts += told_gains(gains, part)
    compiled = compile_flow(flow, device=flow.device)
    distances = column_distances(compiled, other.cpu().numpy().astype(np.float64), seed=seed)
    worst = dict(list(distances.items())[:_COLUMNS])
    found["column_distances"] = {columns[at]: value for at, value in worst.items()}
    if worst:
        texts.append(_told_columns(found["column_distances"], len(distances), part))
    if parts.test is not None:
        found |= _rank_distance(compiled, sample(parts.validation, most), other)
    return found | {"summary": texts}


def _rank_distance(flow: CompiledFlow, validation: Tensor, test: Tensor) -> dict[str, Any]:
    """Return how far the ranks of validation rows among test rows are from even ones (Kolmogorov, Smirnov)."""
    scores = [flow.log_prob(rows.cpu().numpy()) for rows in (validation, test)]
    distance, limit = ks_distance(*scores)
    return {"rank_distance": round(distance, 4), "rank_distance_limit": round(limit, 4)}


def is_rising(metrics: Mapping[str, Any]) -> bool:
    """Return True if more training is expected to gain more than two standard errors of the likelihood."""
    gain, error = metrics.get("expected_gain"), metrics.get("validation_standard_error")
    return gain is not None and error is not None and gain > 2 * error


def told_gains(gains: Gains, part: str) -> Sequence[str]:
    """Return what people are told of a model beside simple ones, a sentence or none."""
    if gains.gaussian is None or not math.isfinite(gains.gaussian.mean):
        return []
    told = f"On {_ROWS_OF[part]} the model is {_nats(gains.gaussian)} one Gaussian"
    mixture = gains.mixture
    if mixture is None or not math.isfinite(mixture.mean):
        return [f"{told}."]
    told += f" and {_nats(mixture)} a mixture of Gaussians."
    if mixture.is_sure and mixture.mean < 0:
        told += " Train longer, or train a mixture of Gaussians instead."
    return [told]


def _nats(gain: Gain) -> str:
    size = f"{abs(gain.mean):.2f}"
    if not gain.is_sure or float(size) == 0:
        return "as good as"
    return f"{size} nats per row {'better' if gain.mean >= 0 else 'worse'} than"


def _told_rise(metrics: Mapping[str, Any]) -> str:
    return (
        f"The validation likelihood still rose when training ended, after epoch {metrics['epoch']}:"
        f" twice the training is expected to gain {metrics['expected_gain']:.2g} nats per row."
    )


def _told_columns(distances: Mapping[str, float], count: int, part: str) -> str:
    named = ", ".join(f"{name} ({value:.2f})" for name, value in distances.items())
    more = f" and {count - len(distances)} more" if count > len(distances) else ""
    return (
        f"Samples differ from {part} rows in {named}{more}: the largest difference of their"
        " distribution functions in brackets."
    )
