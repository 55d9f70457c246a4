"""Test metrics of a flow."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flows import Flow
from flows.training.evaluate import default_chunk_rows

_RULING_SHARE = 1e-3  # share of the test rows: the least likely ones
_LISTED = 10


def log_densities(flow: Flow, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
    """Return the log density of each preprocessed row, in its units before standardisation."""
    flow.eval()
    with torch.no_grad():
        chunks = torch.split(rows, default_chunk_rows(flow))
        scores = [flow.log_prob(chunk.to(flow.device), space="model") for chunk in chunks]
    return torch.cat(scores).double().cpu() + log_scale(flow)


def log_scale(flow: Flow) -> float:
    """Return the difference of log densities before and after standardisation, in nats."""
    layer = flow.preprocessing.standardise
    return 0.0 if layer is None else -float(layer.std.log().sum())


def score_metrics(scores: Float[Tensor, " rows"]) -> dict[str, Any]:
    """Return the mean test log density with its standard error, with and without outliers.

    One row to which a flow gives next to no density can dominate the mean of ten thousand; so there
    is also the mean of all but the least likely thousandth. Non-finite values become None.
    """
    ordered = scores.sort().values
    kept = ordered[math.ceil(_RULING_SHARE * len(ordered)) :]
    metrics: dict[str, Any] = {"test_rows": len(ordered)}
    for name, some in (("test", ordered), ("test_but_least_likely", kept)):
        metrics[f"{name}_log_likelihood"] = _finite(some.mean())
        metrics[f"{name}_standard_error"] = _finite(some.std() / math.sqrt(len(some)))
    return metrics | {
        "test_left_out": len(ordered) - len(kept),
        "test_least_likely": [_finite(score.round(decimals=1)) for score in ordered[:_LISTED]],
        "test_median": float(scores.median()),
    }


def _finite(number: Tensor) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
