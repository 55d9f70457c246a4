"""Encoding of columns: decided by the profile of an upload, stated in the accepted request, and by rows where there is none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from flows import MixedColumn, MixedSpec
from models_store.records import Dataset
from models_store.requests.accept_training import accept_training
from models_store.requests.encoding import decide
from models_store.requests.training import AcceptedTraining
from tabular.formats import TableFormat
from tabular.ingest.storing import parse_table
from tests.jobs.requests.test_accept_training import LIMITS, dataset, request

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=2000)
COLOURS = RANDOM.choice(["red", "blue"], 2000)


@pytest.fixture
def upload(tmp_path):
    def uploaded(**columns: Any) -> Dataset:
        pd.DataFrame(columns).to_csv(tmp_path / "table.csv", index=False)
        table = parse_table(tmp_path / "table.csv", tmp_path / "table.npy", TableFormat.CSV)
        described = [column.to_dict() for column in table.columns]
        return replace(dataset(rows=table.rows), columns=described)

    return uploaded


def accepted(given: Dataset, **fields: Any) -> AcceptedTraining:
    job = accept_training(request(given, **fields), given, limits=LIMITS)
    assert AcceptedTraining.model_validate_json(job.model_dump_json()) == job
    return job


def encoding(job: AcceptedTraining) -> list[MixedColumn]:
    assert job.is_decided
    if isinstance(job.flow, MixedSpec):
        assert job.encoding is None
        return job.flow.columns
    assert job.encoding is not None
    return job.encoding


def integers(low: int, high: int) -> NDArray[np.float64]:
    return RANDOM.integers(low, high, 2000).astype(float)


def spiky(every: int, column: NDArray[np.float64] = NORMAL) -> NDArray[np.float64]:
    return np.where(np.arange(2000) % every == 0, 0.0, column)


COUNTS = spiky(3, integers(1, 100))


@pytest.mark.parametrize(
    ("column", "step", "noise"),
    [
        pytest.param(NORMAL, 0.0, 0.0, id="continuous"),
        pytest.param((integers(-40, 60) * 0.1).round(1), 0.1, 0.0, id="multiples of a step"),
        pytest.param(integers(-40, 60) * 40.0, 40.0, 0.0, id="multiples of a wide step"),
        pytest.param(integers(0, 50) * 3 + 6, 3.0, 0.0, id="multiples of the smallest gap"),
        pytest.param((integers(0, 100) * 0.1 + 0.03).round(2), 0.01, 0.1, id="a grid off 0"),
        pytest.param(spiky(3), 0.0, 0.5 * float(spiky(3).std()), id="a shared value"),
        pytest.param(COUNTS, 1.0, 0.5 * float(COUNTS.std()), id="counts and 0"),
        pytest.param(spiky(30), 0.0, 0.0, id="a rare repeated value is none"),
    ],
)
def test_noise_of_numbers_follows_from_what_repeats(upload, column, step, noise):
    job = accepted(upload(x=column, y=NORMAL[::-1]))
    assert job.encoding is not None
    assert (encoding(job)[0].step, encoding(job)[0].noise) == pytest.approx((step, noise), rel=1e-3)


def test_values_that_a_column_repeats_are_counted_in_the_request(upload):
    listed = np.round(np.sort(RANDOM.normal(size=30)).cumsum(), 3)
    job = accepted(upload(x=RANDOM.choice(listed, 2000), y=NORMAL), missing="any")
    columns = encoding(job)
    assert columns[0].levels + columns[0].repeated + len(columns[0].spikes) == 30
    assert columns[1].repeated == 0


def test_preprocessing_that_a_caller_states_has_no_noise(upload):
    given = upload(x=COUNTS, y=NORMAL)
    assert accepted(given, preprocessing={"dequantise": None}).encoding is None
    job = accepted(given, preprocessing={"dequantise": None}, missing="any")
    assert [(c.step, c.noise, c.repeated) for c in encoding(job)] == [(0.0, 0.0, 0)] * 2


def test_spikes_beside_categories_are_those_of_the_profile(upload):
    amounts = np.where(RANDOM.random(2000) < 0.3, 0.0, RANDOM.lognormal(0, 1, 2000).round(2))
    columns = encoding(accepted(upload(amount=amounts, colour=COLOURS)))
    assert columns[0].spikes == [0.0]
    assert (columns[0].low, columns[0].step, columns[0].noise) == (0.0, 0.0, 0.0)
    assert columns[1].unseen == pytest.approx(0.1 / 2001)


def test_unseen_levels_get_the_share_of_those_that_came_once(upload):
    colours = [*COLOURS[:-3], "green", "grey", "pink"]
    columns = encoding(accepted(upload(x=NORMAL, colour=colours)))
    assert columns[1].unseen == pytest.approx(3 / 2001)


def test_a_shared_value_gets_noise_in_a_table_of_numbers_alone(upload):
    shared, levels = (
        np.where(RANDOM.random(2000) < 0.3, -0.7, NORMAL),
        RANDOM.choice([0, 1, 7], 2000),
    )
    numbers = encoding(accepted(upload(x=shared, level=levels)))
    assert numbers[0].noise == pytest.approx(0.5 * shared.std(), rel=1e-3)
    assert encoding(accepted(upload(x=shared, colour=COLOURS)))[0].noise == 0.0


def test_numbers_that_come_in_the_same_pairs_have_probabilities_of_levels(upload):
    """As the rate and the limit of a state: neither is a density near the other."""
    state = RANDOM.integers(0, 30, 2000)
    rates, limits = np.arange(30) * 0.1 + 0.7, RANDOM.permutation(np.arange(100, 130))
    table = {"rate": rates[state].round(1), "limit": limits[state], "colour": COLOURS}
    columns = encoding(accepted(upload(**table)))
    assert [column.levels for column in columns] == [30, 30, 2]
    assert columns[1].values == sorted(limits)
    stated = {"columns": {"rate": {"transform": "quantiles"}}}
    assert encoding(accepted(upload(**table), preprocessing=stated))[0].levels == 0
    alone = accepted(upload(**table), columns=["rate", "colour"])
    assert encoding(alone)[0].levels == 0
    table["rate"] = RANDOM.permutation(table["rate"])
    assert encoding(accepted(upload(**table)))[0].levels == 0


def test_training_rows_decide_for_a_dataset_of_an_earlier_release(upload):
    given = upload(x=COUNTS, y=NORMAL)
    older = [{k: v for k, v in one.items() if k != "repetition"} for one in given.columns]
    job = accepted(replace(given, columns=older))
    assert not job.is_decided
    assert job.encoding is None
    rows = np.stack([COUNTS, NORMAL], axis=1)
    whole = accepted(given)
    found = decide(job, rows)
    assert [(c.step, c.repeated) for c in encoding(found)] == [(1.0, 100), (0.0, 0)]
    assert [c.noise for c in encoding(found)] == pytest.approx([c.noise for c in encoding(whole)])
    assert decide(whole, rows[:100]) == whole


def test_training_rows_complete_a_mixed_density_of_an_earlier_release(upload):
    given = upload(x=COUNTS, colour=COLOURS)
    whole = accepted(given)
    columns = [replace(c, step=0.0, repeated=0, unseen=0.0) for c in encoding(whole)]
    assert isinstance(whole.flow, MixedSpec)
    older = whole.model_copy(
        update={"flow": replace(whole.flow, columns=columns), "is_decided": False}
    )
    rows = np.stack([COUNTS, (COLOURS == "red").astype(float)], axis=1)
    assert decide(older, rows).flow == whole.flow
