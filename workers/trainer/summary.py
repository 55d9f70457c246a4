"""Summary of a model in words: what a person should know of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows import Flow, FlowSpec, compile_flow
from flows.training.comparison import column_distances, gains_of
from models_store.requests.training import AcceptedTraining
from workers.trainer.checkpoints import finite
from workers.trainer.data import SplitRows, sample

# Rows that a summary looks at, of training and of those held out.
_ROWS = 5000
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
    """Return the summary of a trained flow, and whether its likelihood still rose.

    Args:
        flow: Trained flow.
        parts: Rows of the training.
        request: Accepted request of the job.
        metrics: Metrics of the last epoch.
    """
    rising, seed = is_rising(metrics), request.optimisation.seed
    told = [_told_rise(request, metrics)] if rising else []
    found = summarise(flow, parts, spec=request.flow, columns=request.columns, seed=seed)
    return found | {"still_rising": rising, "summary": [*told, *found["summary"]]}


def summarise(
    flow: Flow, parts: SplitRows, *, spec: FlowSpec, columns: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the numbers behind a summary, and the sentences as `summary`.

    Args:
        flow: Trained flow or ensemble.
        parts: Rows of the training.
        spec: Specification of the flow.
        columns: Names of the columns.
        seed: Seed of the noise on discrete columns, of the mixture and of the samples.
    """
    found: dict[str, Any] = {}
    texts: list[str] = []
    most = max(100, min(_ROWS, _CELLS // (flow.dim + flow.context_dim)))
    held_out = parts.validation if parts.test is None else parts.test
    train = sample(parts.train, most)
    other = sample(held_out, most).to(train.device)  # a small part may be on the device alone
    gains = None if spec.is_binary else gains_of(flow, train, other, seed=seed)
    if gains is not None:
        found["gain_over_gaussian"] = finite(gains.gaussian)
        found["gain_over_mixture"] = None if gains.mixture is None else finite(gains.mixture)
        texts += told_gains(found["gain_over_gaussian"], found["gain_over_mixture"])
    compiled = compile_flow(flow, device=flow.device)
    distances = column_distances(compiled, other.cpu().numpy().astype(np.float64), seed=seed)
    worst = dict(list(distances.items())[:_COLUMNS])
    found["column_distances"] = {columns[at]: value for at, value in worst.items()}
    if worst:
        texts.append(_told_columns(found["column_distances"], len(distances)))
    return found | {"summary": texts}


def is_rising(metrics: Mapping[str, Any]) -> bool:
    """Return True if training was ended by a limit while the likelihood still rose."""
    ended, last = metrics["stop_reason"], metrics["epoch"]
    return ended in ("max_epochs", "max_seconds") and metrics["best_epoch"] > 0.9 * last


def told_gains(gaussian: float | None, mixture: float | None) -> Sequence[str]:
    """Return what people are told of a model beside simple ones, a sentence or none.

    Args:
        gaussian: Gain over one Gaussian in nats per held-out row; None if there is none.
        mixture: Gain over a mixture of Gaussians, likewise.
    """
    if gaussian is None:
        return []
    told = f"On held-out rows the model is {_nats(gaussian)} one Gaussian"
    if mixture is None:
        return [f"{told}."]
    told += f" and {_nats(mixture)} a mixture of Gaussians."
    if mixture <= -0.005:
        told += " Train longer, or take the mixture: `flow.family` gaussian_mixture."
    return [told]


def _nats(gain: float) -> str:
    size = f"{abs(gain):.2f}"
    if float(size) == 0:
        return "as good as"
    return f"{size} nats per row {'better' if gain >= 0 else 'worse'} than"


def _told_rise(request: AcceptedTraining, metrics: Mapping[str, Any]) -> str:
    ended = metrics["stop_reason"]
    limit = getattr(request.optimisation, ended)
    return (
        f"The validation likelihood still rose when training ended, after epoch {metrics['epoch']}:"
        f" a higher `optimisation.{ended}` than {limit:g} gives a better model."
    )


def _told_columns(distances: Mapping[str, float], count: int) -> str:
    named = ", ".join(f"{name} ({value:.2f})" for name, value in distances.items())
    more = f" and {count - len(distances)} more" if count > len(distances) else ""
    return (
        f"Samples differ from held-out rows in {named}{more}: the largest difference of their"
        " distribution functions in brackets."
    )
