"""Rows far from the data: no finite row scores NaN, and its quantile is 0."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import (
    Flow,
    MafSpec,
    MixedColumn,
    MixedSpec,
    PreprocessingSpec,
    build,
    compile_flow,
    evaluate,
    quantiles_of,
    rank_among,
)
from tests.flows.cases import CASES, Case, example_rows, trained_flow

FAR = [10.0, 100.0, 1e6, 1e30, 1e39, 1e300]


def far_rows(dim: int) -> Tensor:
    """Rows in all directions from the data, and rows of which one value alone is far."""
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(20, dim, generator=generator, dtype=torch.float64)
    single, axes = example_rows(dim, dim), torch.eye(dim, dtype=torch.float64)
    rows = [around * far for far in FAR]
    for far in FAR:
        rows += [single + axes * far, single - axes * far]
    return torch.cat(rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_finite_row_scores_nan(case: Case) -> None:
    flow = trained_flow(case, 3)
    rows = far_rows(3)
    with torch.no_grad():
        assert not bool(flow.log_prob(rows).isnan().any())
    for space in ("data", "model"):
        assert not np.isnan(compile_flow(flow).log_prob(rows.numpy(), space=space)).any()


def _wild(**fields: Any) -> Flow:
    """A flow of ReLU units and of weights so large that NaN is all that far rows would get."""
    flow = build(MafSpec(layers=3, hidden=[16], activation="relu"), 3, seed=0, **fields)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "weight" in name:
                parameter.mul_(30)
    return flow.eval()


def test_a_far_row_has_quantile_0_and_a_row_that_lacks_a_value_none():
    flow = _wild()
    rows = torch.full((4, 3), 1e3)
    rows[1, 1], rows[2, 0], rows[3] = math.nan, math.inf, 0.0
    for scores in (flow.log_prob(rows).detach().numpy(), compile_flow(flow).log_prob(rows.numpy())):
        assert scores[0] == -math.inf
        assert np.isnan(scores[[1, 2]]).all()
        assert np.isfinite(scores[3])
        ranks = rank_among(scores.astype(np.float64), quantiles_of(np.linspace(-9, 0, 50)), rows=50)
        assert ranks[0] == 0
    parts = compile_flow(flow).log_prob_parts(rows.numpy())
    assert parts[0].tolist() == [0.0, -math.inf]
    assert np.isnan(parts[1]).all()


def test_a_far_context_is_no_reason_for_nan_but_a_missing_one_is():
    moments = torch.zeros(2), torch.ones(2)
    flow = _wild(context_dim=2, standardise_context=moments)
    rows = torch.zeros(3, 5)
    rows[0, 3:], rows[1, 4] = 1e30, math.nan
    for scores in (
        flow.log_prob_of_table(rows).detach(),
        compile_flow(flow).log_prob(rows.numpy()),
    ):
        found = np.asarray(scores)
        assert found[0] == -math.inf
        assert np.isnan(found[1])
        assert np.isfinite(found[2])


def test_a_value_outside_of_a_logit_has_density_0():
    flow = build(
        MafSpec(layers=1, hidden=[8]), 2, preprocessing=PreprocessingSpec(logit=1e-3), seed=0
    )
    rows = torch.tensor([[0.5, 0.5], [0.5, 3.0], [math.nan, 0.5]])
    flow.eval()
    for scores in (flow.log_prob(rows).detach(), compile_flow(flow).log_prob(rows.numpy())):
        found = np.asarray(scores)
        assert np.isfinite(found[0])
        assert found[1] == -math.inf
        assert np.isnan(found[2])


def test_of_a_mixed_row_a_gap_that_training_had_is_a_value():
    columns = [MixedColumn(missing=True), MixedColumn(levels=2, missing=False), MixedColumn()]
    relu = MafSpec(layers=3, hidden=[16], activation="relu")
    flow = build(MixedSpec(columns=columns, flow=relu), 3, seed=0).eval()
    with torch.no_grad():
        for name, parameter in flow.transform.named_parameters():
            if name.startswith("flow") and "weight" in name:
                parameter.mul_(30)
    rows = torch.tensor(
        [[1e3, 0, 1e3], [math.nan, 1, 1e30], [0, math.nan, 1e3], [1e3, 0, math.nan]],
        dtype=torch.float64,
    )
    compiled = compile_flow(flow)
    found = flow.log_prob(rows).detach().numpy(), compiled.log_prob(rows.numpy())
    for scores in found:
        assert scores[0] == -math.inf
        assert not np.isnan(scores[1])
        assert np.isnan(scores[2:]).all()
    for parts in (
        flow.log_prob_parts(rows).detach().numpy(),
        compiled.log_prob_parts(rows.numpy()),
    ):
        assert np.isnan(parts).any(axis=1).tolist() == [False, False, True, True]


def test_a_far_validation_row_does_not_ruin_the_robust_mean():
    flow = _wild()
    rows = torch.cat([torch.zeros(50, 3), torch.full((1, 3), 1e3)])
    reached = evaluate(flow, rows, row_loss_bound=30.0)
    assert reached.mean == -math.inf
    assert math.isfinite(reached.robust_mean)
