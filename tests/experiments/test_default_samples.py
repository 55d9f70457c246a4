"""Default models of awkward tables: samples are finite, and finite rows have scores."""

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.local_job import run_job
from flows import compile_flow

Rows = NDArray[np.float64]
RANDOM = np.random.default_rng(0)
COUNT = 300


def with_an_outlier() -> Rows:
    return np.vstack([RANDOM.normal(size=(COUNT - 1, 2)), [[1e12, -1e12]]])


def with_shared_values() -> Rows:
    zeros = np.where(RANDOM.random(COUNT) < 0.7, 0, RANDOM.exponential(size=COUNT))
    return np.column_stack([RANDOM.integers(0, 3, COUNT), zeros])


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(RANDOM.standard_cauchy((COUNT, 3)), id="heavy tails"),
        pytest.param(RANDOM.standard_cauchy((COUNT, 70)), id="more columns than splines take"),
        pytest.param(with_an_outlier(), id="an outlier"),
        pytest.param(with_shared_values(), id="shared values"),
    ],
)
def test_samples_of_the_defaults_are_finite(rows: Rows) -> None:
    flow = compile_flow(run_job(rows.astype(np.float32), {"optimisation": {"seed": 0}}).flow)
    assert np.isfinite(flow.sample(10_000, seed=1)).all()
    assert not np.isnan(flow.log_prob(rows)).any()
