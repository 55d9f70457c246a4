"""Trainings on tables with categories, gaps, spikes and bounds: what is accepted."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from flows import MafSpec, MixedSpec, NsfSpec
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.training import AcceptedTraining
from tabular.columns import Column
from tabular.formats import Repetition
from tests.jobs.requests.test_accept_training import LIMITS, dataset, request

NO_ROWS = HeldOut()
NUMBERS: dict[str, Any] = {"dtype": "float64", "mean": 3.0, "std": 1.0, "min": 1.0, "max": 9.0}
REPEATS = Repetition(gap=0.05)
PRICE = Column(name="price", transform="log", low=0.0, decimals=2)
CUT = Column(name="cut", type="category", levels=("Ideal", "Fair"))
AGE = Column(name="age", type="integer", missing=True, decimals=0)
RARE = Column(name="rare", type="integer", levels=(0.0, 1.0, 7.0))
DAY = Column(name="day", type="datetime", date_only=True)


def table(*columns: Column, rows: int = 1000) -> Dataset:
    described = [
        NUMBERS | {"distinct": 40, "repetition": asdict(REPEATS)} | column.to_dict()
        for column in columns
    ]
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
