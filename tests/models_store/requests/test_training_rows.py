"""Spikes, scales and bounds come from the training rows, not from those that are held out."""

from typing import Any

import numpy as np
import pytest

from flows import MixedSpec
from models_store.requests.training import AcceptedTraining
from models_store.requests.training_rows import choose_training
from tabular.columns import Column
from tests.models_store.requests.test_mixed import AGE, CUT, RARE, accepted, table

RANDOM = np.random.default_rng(0)
AMOUNT = Column(name="amount", spikes=(-999.0, 0.0), transform="log", low=0.0, decimals=2)


def rows(amounts: Any, *, count: int = 2000) -> Any:
    ages = RANDOM.integers(20, 80, count).astype(float)
    return np.stack([np.resize(amounts, count), RANDOM.integers(0, 2, count), ages], axis=1)


def chosen(amounts: Any, **fields: Any) -> tuple[Column, MixedSpec]:
    job = choose_training(accepted(table(AMOUNT, CUT, AGE), **fields), rows(amounts))
    assert isinstance(job.flow, MixedSpec)
    assert AcceptedTraining.model_validate_json(job.model_dump_json()) == job
    return job.column_types[0], job.flow


def test_spikes_that_training_rows_lack_are_none() -> None:
    amounts = np.where(RANDOM.random(2000) < 0.3, 0.0, RANDOM.lognormal(0, 1, 2000).round(2))
    column, flow = chosen(amounts)
    assert column.spikes == (0.0,)
    assert flow.columns[0].spikes == [0.0]
    assert (column.transform, flow.columns[0].low) == ("log", 0.0)


def test_an_amount_of_a_table_of_numbers_keeps_its_spike_and_scale() -> None:
    given = table(AMOUNT, RARE)
    given.columns[0].update(spike_counts=[0, 600], min=0.0)
    amounts = np.where(RANDOM.random(2000) < 0.6, 0.0, RANDOM.lognormal(0, 1, 2000).round(2))
    job = choose_training(accepted(given), rows(amounts)[:, :2])
    column = job.column_types[0]
    assert (column.spikes, column.transform, column.low) == ((0.0,), "log", 0.0)


def test_the_scale_is_that_of_the_training_rows() -> None:
    column, flow = chosen(RANDOM.normal(100, 1, 2000).round(2))
    assert (column.transform, column.low) == ("quantiles", None)
    assert (flow.columns[0].transform, flow.columns[0].low) == ("quantiles", None)


def test_what_the_caller_states_stays() -> None:
    options = {"columns": {"amount": {"spikes": [7.0], "low": -2000.0, "transform": "asinh"}}}
    column, _ = chosen(RANDOM.normal(100, 1, 2000), preprocessing=options)
    assert (column.spikes, column.transform, column.low) == ((7.0,), "asinh", -2000.0)


def test_a_request_of_plain_numbers_stays() -> None:
    job = accepted(table(Column(name="x"), Column(name="y")))
    assert choose_training(job, RANDOM.normal(size=(1000, 2))) == job


def test_a_shared_value_of_a_table_of_numbers_gets_noise() -> None:
    given = table(Column(name="x"), RARE, Column(name="y"))
    shared = np.where(RANDOM.random(2000) < 0.3, -0.7, RANDOM.normal(0, 1, 2000))
    values = np.stack([shared, np.resize([0.0, 1.0, 7.0], 2000), RANDOM.normal(0, 1, 2000)], axis=1)
    flow = choose_training(accepted(given), values).flow
    assert isinstance(flow, MixedSpec)
    assert [c.noise for c in flow.columns] == [pytest.approx(0.5 * shared.std()), 0.0, 0.0]
    beside_text = choose_training(accepted(table(Column(name="x"), CUT)), values[:, :2]).flow
    assert isinstance(beside_text, MixedSpec)
    assert [c.noise for c in beside_text.columns] == [0.0, 0.0]
