import math

import pytest
import torch

from flows import FitError, evaluate
from tests.flows.cases import example_rows, find, trained_flow


def test_it_gives_the_mean_and_two_standard_errors():
    flow = trained_flow(find("maf"), 3)
    x = example_rows(101, 3, seed=1)
    with torch.no_grad():
        scores = flow.log_prob(x)
    result = evaluate(flow, x, chunk_rows=10)
    assert result.rows == 101
    assert result.mean == pytest.approx(float(scores.mean()))
    assert result.two_standard_errors == pytest.approx(2 * float(scores.std()) / math.sqrt(101))


def test_sums_are_taken_in_float64():
    flow = trained_flow(find("maf"), 3).float()
    x = example_rows(20_000, 3, seed=1).float()
    with torch.no_grad():
        exact = flow.log_prob(x).double().mean()
    assert evaluate(flow, x).mean == pytest.approx(float(exact), rel=1e-6)


def test_the_mode_of_the_flow_is_kept_and_not_used():
    flow = trained_flow(find("maf"), 3)
    x = example_rows(40, 3, seed=1)
    expected = evaluate(flow, x)
    assert evaluate(flow.train(), x) == expected
    assert flow.training
    evaluate(flow.eval(), x)
    assert not flow.training


def test_one_row_has_no_standard_error():
    result = evaluate(trained_flow(find("made"), 3), example_rows(1, 3))
    assert math.isfinite(result.mean)
    assert math.isnan(result.two_standard_errors)


def test_no_rows_are_refused():
    with pytest.raises(FitError, match="no rows"):
        evaluate(trained_flow(find("made"), 3), torch.empty(0, 3))


def test_each_chunk_is_told():
    told = []
    evaluate(
        trained_flow(find("made"), 3),
        example_rows(25, 3),
        chunk_rows=10,
        on_chunk=lambda: told.append(1),
    )
    assert len(told) == 3
