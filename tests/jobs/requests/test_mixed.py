"""Trainings on tables with categories, gaps, spikes and bounds: what is accepted, and what training rows change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows import MafSpec, MixedSpec, NsfSpec
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.training import AcceptedTraining
from models_store.requests.training_rows import choose_training
from tabular.columns import Column
from tests.jobs.requests.test_accept_training import LIMITS, dataset, request

NO_ROWS = HeldOut()
NUMBERS: dict[str, Any] = {"dtype": "float64", "mean": 3.0, "std": 1.0, "min": 1.0, "max": 9.0}
PRICE = Column(name="price", transform="log", low=0.0, decimals=2)
CUT = Column(name="cut", type="category", levels=("Ideal", "Fair"))
AGE = Column(name="age", type="integer", missing=True, decimals=0)
RARE = Column(name="rare", type="integer", levels=(0.0, 1.0, 7.0))
DAY = Column(name="day", type="datetime", date_only=True)


def table(*columns: Column, rows: int = 1000) -> Dataset:
    described = [NUMBERS | {"distinct": 40} | column.to_dict() for column in columns]
    return replace(dataset(rows=rows), columns=described)


def accepted(given: Dataset, **fields: Any) -> AcceptedTraining:
    return accept_training(request(given, **fields), given, limits=LIMITS)


def mixed(job: AcceptedTraining) -> MixedSpec:
    assert isinstance(job.flow, MixedSpec)
    return job.flow


def refused(given: Dataset, held_out: HeldOut = NO_ROWS, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        accept_training(request(given, **fields), given, limits=LIMITS, held_out=held_out)
    return caught.value


def test_the_accepted_request_shows_the_mixed_density() -> None:
    given = table(PRICE, CUT, AGE, RARE)
    job = accepted(given)
    flow = mixed(job)
    assert [column.levels for column in flow.columns] == [0, 2, 0, 3]
    assert flow.columns[3].values == [0.0, 1.0, 7.0]
    assert (flow.columns[0].transform, flow.columns[0].low) == ("log", 0.0)
    assert [column.missing for column in flow.columns] == [False, False, True, False]
    assert [column.step for column in flow.columns] == [0.01, 0.0, 1.0, 0.0]
    assert flow.rows == 800
    assert job.column_types == [PRICE, CUT, replace(AGE, transform="quantiles"), RARE]
    assert AcceptedTraining.model_validate_json(job.model_dump_json()) == job


def test_ignored_columns_are_not_modelled() -> None:
    given = table(PRICE, Column(name="id", type="ignored"), CUT)
    assert accepted(given).columns == ["price", "cut"]
    error = refused(given, columns=["id"])
    assert error.slug == "unknown-column"
    assert "'id' is ignored there" in str(error)


def test_plain_numbers_keep_their_decimals_and_have_any_flow() -> None:
    columns = [Column(name="a", decimals=2), Column(name="b", type="integer", decimals=0)]
    job = accepted(table(*columns))
    assert job.column_types == columns
    assert isinstance(job.flow, NsfSpec)


def test_a_flow_that_is_named_models_the_continuous_part() -> None:
    named = {"family": "maf", "layers": 3, "hidden": [16]}
    flow = mixed(accepted(table(PRICE, CUT), flow=named, discrete={"hidden": [24]}))
    assert flow.flow == MafSpec(layers=3, hidden=[16])
    assert flow.hidden == [24]


def test_a_flow_that_cannot_leave_out_values_is_refused_with_others_named() -> None:
    error = refused(table(PRICE, AGE), flow={"family": "planar"})
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")
    assert "maf" in error.detail


def test_a_flow_with_an_encoder_is_refused_beside_categories_and_gaps() -> None:
    flow = {"family": "nsf", "encoder": {}}
    error = refused(table(CUT, AGE, DAY), flow=flow, context_columns=["day"])
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")
    assert "without an encoder" in error.detail


def test_a_flow_of_bits_is_refused_where_cells_are_hidden():
    bits = [
        NUMBERS | {"min": 0.0, "max": 1.0, "distinct": 2} | Column(name=n).to_dict() for n in "ab"
    ]
    flow = {"family": "made", "conditional": "bernoulli"}
    error = refused(replace(dataset(rows=1000), columns=bits), flow=flow, missing="any")
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")


def test_any_missing_makes_a_mixed_density_of_plain_numbers() -> None:
    flow = mixed(accepted(table(Column(name="a"), Column(name="b")), missing="any"))
    assert flow.missing == "any"


def test_stated_bounds_need_a_scale_that_keeps_them() -> None:
    given = table(Column(name="a"), Column(name="b"))
    ends = {"low": NUMBERS["min"], "high": NUMBERS["max"]}  # values may lie on them
    flow = mixed(accepted(given, preprocessing={"columns": {"a": ends}}))
    first, second = flow.columns
    assert (first.transform, first.low, first.high) == ("quantiles", *ends.values())
    assert (second.transform, second.low, second.high) == ("none", None, None)


def test_a_context_column_may_be_circular_and_nothing_else() -> None:
    given, turn = table(Column(name="a"), Column(name="b")), {"low": 0.0, "high": 360.0}
    options: dict[str, Any] = {"b": {"transform": "circular", **turn}}
    flow = mixed(accepted(given, context_columns=["b"], preprocessing={"columns": options}))
    assert [column.transform for column in flow.context] == ["circular"]
    options = {"b": {"transform": "asinh"}}
    error = refused(given, context_columns=["b"], preprocessing={"columns": options})
    assert error.slug == "unknown-column"


@pytest.mark.parametrize(
    ("options", "slug"),
    [
        ({"cut": {"transform": "log"}}, "preprocessing-unsuitable"),
        ({"other": {"transform": "log"}}, "unknown-column"),
        ({"age": {"transform": "circular", "high": 360.0}}, "preprocessing-unsuitable"),
        ({"price": {"low": 5.0, "high": 1.0}}, "preprocessing-unsuitable"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], slug: str) -> None:
    error = refused(table(PRICE, CUT, AGE), preprocessing={"columns": options})
    assert error.slug == slug
    assert error.pointer == "/preprocessing/columns"


def test_a_mixed_spec_is_the_servers_to_make() -> None:
    with pytest.raises(ValueError, match="family"):
        request(table(CUT), flow={"family": "mixed"})


def test_the_bernoulli_made_takes_columns_of_0_and_1_as_numbers() -> None:
    bits = Column(name="bit", type="boolean", levels=(0.0, 1.0))
    given = table(bits, replace(bits, name="other"))
    described = [column | {"min": 0.0, "max": 1.0, "distinct": 2} for column in given.columns]
    job = accepted(
        replace(given, columns=described), flow={"family": "made", "conditional": "bernoulli"}
    )
    assert all(column.is_plain and column.decimals == 0 for column in job.column_types)
    assert refused(table(bits, CUT), flow={"family": "made", "conditional": "bernoulli"}).slug == (
        "preprocessing-unsuitable"
    )


def test_held_out_rows_may_have_no_gaps_that_training_rows_lack() -> None:
    gaps = table(replace(PRICE, missing=True), CUT)
    split = {"validation_dataset_id": gaps.id}
    error = refused(table(PRICE, CUT), HeldOut(validation=gaps), split=split)
    assert (error.slug, error.pointer) == ("split-invalid", "/split")


def test_the_memory_of_many_levels_is_counted_before_anything_is_built() -> None:
    levels = tuple(f"level {number}" for number in range(100_000))
    wide = [Column(name=f"c{index}", type="category", levels=levels) for index in range(20)]
    error = refused(table(*wide))
    assert error.slug in ("limit-parameters", "limit-memory")


def test_in_a_table_of_numbers_only_far_values_are_spikes_even_of_most_rows() -> None:
    _check_far_spikes({"0": -999.0, "0.25": 15.0, "0.5": 20.0, "0.75": 24.0, "1": 31.0})
    _check_far_spikes(
        {"0": -999.0, "0.25": -999.0, "0.5": -999.0, "0.75": 15.0, "0.95": 24.0, "1": 31.0}
    )


@pytest.mark.parametrize(
    "shares",
    [
        {"0": 0.0, "0.25": 0.0, "0.5": 0.0, "0.75": 0.0, "0.95": 0.0, "0.99": 30.0, "1": 45.0},
        {"0": 0.0, "0.25": 0.0, "0.5": 20.0, "0.75": 24.0, "0.95": 28.0, "1": 31.0},
    ],
    ids=["rain", "quarter"],
)
def test_zeros_near_the_other_values_are_no_far_spikes(shares: dict[str, float]) -> None:
    column = Column(name="rain", spikes=(0.0,), decimals=1)
    given = table(column, Column(name="other"))
    described = [fields | {"quantiles": shares} for fields in given.columns]
    assert not accepted(replace(given, columns=described)).column_types[0].spikes


def _check_far_spikes(shares: dict[str, float]) -> None:
    column = Column(name="temp", spikes=(-999.0, 0.0, 20.0), decimals=1)
    given = table(column, Column(name="other"))
    described = [fields | {"quantiles": shares} for fields in given.columns]
    flow = mixed(accepted(replace(given, columns=described)))
    assert flow.columns[0].spikes == [-999.0]
    typed = [*described, NUMBERS | {"distinct": 40} | CUT.to_dict()]
    flow = mixed(accepted(replace(given, columns=typed)))
    assert flow.columns[0].spikes == [-999.0, 0.0, 20.0]


@pytest.mark.parametrize(
    ("low", "zeros", "is_spike"), [(0.0, 550, True), (0.0, 150, False), (None, 550, False)]
)
def test_most_zeros_of_an_amount_are_a_spike_of_a_mixed_table_of_numbers(low, zeros, *, is_spike):
    rain = Column(name="rain", spikes=(0.0, 2.0), transform="log", low=low, decimals=1)
    given = table(rain, RARE)
    given.columns[0].update(spike_counts=[zeros, 20], min=0.0)
    job = accepted(given)
    assert job.column_types[0].spikes == ((0.0,) if is_spike else ())
    assert job.column_types[0].transform == ("log" if is_spike else "none")
    assert not accepted(given, columns=["rain"]).column_types[0].spikes
    off = accepted(given, preprocessing={"columns": {"rain": {"spikes": []}}})
    assert not off.column_types[0].spikes


def test_one_giant_value_does_not_set_the_scale_of_a_table_of_numbers() -> None:
    given = table(Column(name="balance", transform="asinh"), Column(name="other", transform="log"))
    shares = {"0.01": -2000.0, "0.25": -600.0, "0.5": 0.0, "0.75": 600.0, "0.99": 2000.0}
    described = [fields | {"quantiles": shares} for fields in given.columns]
    described[0]["std"] = 2e10
    flow = mixed(accepted(replace(given, columns=described)))
    assert [column.transform for column in flow.columns] == ["asinh", "none"]


@pytest.mark.parametrize(
    "values", [{"min": -9.0}, {"min": -9.0, "quantiles": {"0": -9.0, "0.5": 3.0}}]
)
def test_a_sentinel_beyond_the_bound_is_a_spike(values: dict[str, Any]) -> None:
    given = table(replace(PRICE, spikes=(-9.0,)), CUT)
    given.columns[0].update(values)
    if "quantiles" not in values:
        assert refused(given).slug == "preprocessing-unsuitable"  # nothing tells what else is there
        return
    assert accepted(given).column_types[0].low == 0.0
    given.columns[0].update(quantiles={"0": -9.0, "0.05": -2.0, "0.5": 3.0})
    assert refused(given).slug == "preprocessing-unsuitable"


RANDOM = np.random.default_rng(0)
AMOUNT = Column(name="amount", spikes=(-999.0, 0.0), transform="log", low=0.0, decimals=2)


def rows(amounts: Any, *, count: int = 2000) -> Any:
    ages = RANDOM.integers(20, 80, count).astype(float)
    return np.stack([np.resize(amounts, count), RANDOM.integers(0, 2, count), ages], axis=1)


def chosen(amounts: Any, **fields: Any) -> tuple[Column, MixedSpec]:
    job = choose_training(accepted(table(AMOUNT, CUT, AGE), **fields), rows(amounts))
    assert AcceptedTraining.model_validate_json(job.model_dump_json()) == job
    return job.column_types[0], mixed(job)


def test_spikes_that_training_rows_lack_are_none() -> None:
    amounts = np.where(RANDOM.random(2000) < 0.3, 0.0, RANDOM.lognormal(0, 1, 2000).round(2))
    column, flow = chosen(amounts)
    assert column.spikes == (0.0,)
    assert flow.columns[0].spikes == [0.0]
    assert (flow.columns[1].levels, flow.columns[1].values) == (2, [])
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
    flow = mixed(choose_training(accepted(given), values))
    assert [c.noise for c in flow.columns] == [pytest.approx(0.5 * shared.std()), 0.0, 0.0]
    beside_text = choose_training(accepted(table(Column(name="x"), CUT)), values[:, :2])
    assert [c.noise for c in mixed(beside_text).columns] == [0.0, 0.0]


def test_training_rows_tell_which_values_samples_have_and_what_unseen_levels_get() -> None:
    listed = np.array([0.0, 8.0, 12.0, 12.5, 12.7, 16.0])
    _, flow = chosen(RANDOM.choice(listed, 2000))
    spikes = flow.columns[0].spikes
    assert flow.columns[0].repeated == len(listed) - len(spikes) > 0
    assert flow.columns[1].unseen == pytest.approx(0.1 / 2001)
    _, flow = chosen(RANDOM.lognormal(0, 1, 2000).round(6))
    assert flow.columns[0].repeated == 0
    rare = rows(listed)
    rare[:3, 1] = [7.0, 8.0, 9.0]
    job = choose_training(accepted(table(AMOUNT, CUT, AGE)), rare)
    assert mixed(job).columns[1].unseen == pytest.approx(3 / 2001)


def test_numbers_that_come_in_the_same_pairs_have_probabilities_of_levels() -> None:
    """As the rate and the limit of a state: neither is a density near the other."""
    state = RANDOM.integers(0, 30, 4000)
    rates, limits = RANDOM.permutation(30) / 10, RANDOM.permutation(np.arange(100, 190, 3))
    given = table(Column(name="rate"), Column(name="limit", missing=True), CUT, rows=5000)
    values = np.stack([rates[state], limits[state].astype(float), state % 2], axis=1)
    values[::50, 1] = np.nan
    job = choose_training(accepted(given), values)
    columns = mixed(job).columns
    assert [column.levels for column in columns] == [30, 30, 2]
    assert columns[1].values == sorted(limits) == list(job.column_types[1].levels)
    assert [column.missing for column in columns] == [False, True, False]
    assert AcceptedTraining.model_validate_json(job.model_dump_json()) == job
    stated = {"columns": {"rate": {"transform": "quantiles"}}}
    unlike = RANDOM.permuted(values[:, :1], axis=0)
    for one, fields in (
        (values, {"preprocessing": stated}),
        (np.hstack([unlike, values[:, 1:]]), {}),
    ):
        assert mixed(choose_training(accepted(given, **fields), one)).columns[0].levels == 0
