import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from flows import POTENTIALS, GaussianSpec, PlanarSpec, RealNvpSpec
from models_store.database.ids import new_id
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.accept_variational import accept_variational, dataset_of
from models_store.requests.variational import (
    AcceptedVariational,
    PosteriorTarget,
    VariationalRequest,
)
from tests.models_store.requests.test_accept_training import LIMITS, dataset

BELL = {"log_density": "-0.5 * norm(z1, z2)^2", "dim": 2}


def request(target: dict[str, Any], **fields: Any) -> VariationalRequest:
    body = {"model_name": "m", "target": target} | fields
    return VariationalRequest.model_validate_json(json.dumps(body), strict=True)


def accepted(target: dict[str, Any], **fields: Any) -> AcceptedVariational:
    table = fields.pop("table", None)
    return accept_variational(request(target, **fields), table, limits=LIMITS)


def refusal(target: dict[str, Any], **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        accepted(target, **fields)
    return caught.value


def table_of(*, rows: int = 1000, names: tuple[str, ...] = ("x1", "x2", "y")) -> Dataset:
    table = dataset(rows=rows, dim=len(names))
    for column, name in zip(table.columns, names, strict=True):
        column |= {"name": name, "min": -3.0, "max": 3.0, "distinct": None}
    table.columns[-1] |= {"min": 0.0, "max": 1.0, "distinct": 2}
    return replace(table, id="ds_" + "1" * 32)  # the same in every process: tests are named by it


def regression(table: Dataset, kind: str = "linear", **fields: Any) -> dict[str, Any]:
    posterior = {"kind": kind, "dataset_id": table.id, "response": "y"} | fields
    return {"posterior": posterior}


def test_a_target_is_enough_and_the_choices_are_shown() -> None:
    chosen = accepted({"potential": "U3"})
    assert isinstance(chosen.flow, RealNvpSpec)
    options = chosen.optimisation
    assert (options.iterations, options.annealing, options.report_every) == (5000, 1000, 100)
    assert options.batch_size == 128
    assert options.seed >= 0


@pytest.mark.parametrize(
    ("iterations", "wanted", "chosen"),
    [(1, None, 1), (200, None, 4), (10**7, None, 1000), (10**7, 1, 100), (300, 7, 7)],
)
def test_reports_are_neither_too_few_nor_too_many(
    iterations: int, wanted: int | None, chosen: int
) -> None:
    optimisation = {"iterations": iterations, "report_every": wanted}
    assert accepted(BELL, optimisation=optimisation).optimisation.report_every == chosen


def test_an_iteration_of_a_logistic_regression_is_not_too_long() -> None:
    table = table_of(rows=1_000_000)
    accepted(regression(table, "logistic"), table=table)
    accepted(regression(table), table=table, optimisation={"batch_size": 100_000})

    many = {"optimisation": {"batch_size": 100_000}}
    error = refusal(regression(table, "logistic"), table=table, **many)
    assert (error.slug, error.pointer) == ("validation", "/optimisation/batch_size")
    assert "set `batch_rows`" in error.detail
    few = regression(table, "logistic", batch_rows=40_000)
    accepted(few, table=table, **many)
    error = refusal(regression(table, "logistic", batch_rows=40_001), table=table, **many)
    assert "lower it or `batch_rows`" in error.detail


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_the_columns_and_scales_of_a_posterior_are_shown(kind: str) -> None:
    table = table_of()
    target = accepted(regression(table, kind), table=table).target
    assert isinstance(target, PosteriorTarget)
    assert target.posterior.columns == ["x1", "x2"]
    assert target.posterior.prior_scale == 1.0
    assert dataset_of(target) == table.id


def test_an_accepted_request_survives_the_job_row() -> None:
    table = table_of()
    window = {"lower": [-3.0, -3.0], "upper": [3.0, 3.0]}
    for target in ({"potential": "U1"}, BELL | {"window": window}, regression(table, "logistic")):
        chosen = accepted(target, table=table)
        assert AcceptedVariational.model_validate(chosen.model_dump(mode="json")) == chosen


def test_the_flow_suits_its_target() -> None:
    table = table_of()
    assert accepted(regression(table), table=table).flow == GaussianSpec()
    assert isinstance(accepted(regression(table, "logistic"), table=table).flow, RealNvpSpec)
    line = accepted({"log_density": "-z1^4", "dim": 1}).flow
    assert line == PlanarSpec(layers=32, closed="sampling")


@pytest.mark.parametrize("family", ["planar", "radial", "sylvester", "naf"])
def test_a_family_with_a_numerical_direction_is_closed_for_sampling(family: str) -> None:
    flow = accepted(BELL, flow={"family": family}).flow
    assert getattr(flow, "closed", None) == "sampling"


@pytest.mark.parametrize("fields", [{"conditional": "bernoulli"}, {"masks": 4}], ids=str)
def test_a_flow_that_cannot_draw_rows_is_refused_with_the_reason(fields: dict[str, Any]) -> None:
    error = refusal(BELL, flow={"family": "made"} | fields)
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")
    assert "noise to rows" in error.detail


def test_every_potential_of_the_library_can_be_named() -> None:
    for name in POTENTIALS:
        accepted({"potential": name})


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("-0.5 * z1^2 - z3", 15, "unknown coordinate"),
        ("z1 +", 5, ""),
        ("__import__('os')", 12, "unexpected character"),
        ("-z1^2\n - 2 z2", 12, ""),
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(
    text: str, position: int, reason: str
) -> None:
    error = refusal({"log_density": text, "dim": 2})
    assert (error.slug, error.pointer) == ("formula", "/target/log_density")
    assert error.position == position
    first, line, caret = error.detail.split("\n")
    assert first.startswith(f"the formula cannot be read at character {position}: ")
    assert reason in first
    last_line = text.rsplit("\n", maxsplit=1)[-1]
    assert line == last_line
    assert caret.index("^") == position - 1 - (len(text) - len(last_line))


def test_the_place_in_a_long_formula_is_shown_by_its_surroundings() -> None:
    text = "z1 + " * 100 + "z1 ? z2" + " + z1" * 100
    error = refusal({"log_density": text, "dim": 2})
    _, line, caret = error.detail.split("\n")
    assert len(line) <= 80
    assert line[caret.index("^")] == text[(error.position or 0) - 1] == "?"


def test_a_formula_that_is_infinite_at_the_origin_is_accepted() -> None:
    accepted({"log_density": "-log(norm(z1, z2)) - norm(z1, z2)^2", "dim": 2})


def test_a_column_that_is_not_there_is_refused() -> None:
    table = table_of()
    error = refusal(regression(table, response="z"), table=table)
    assert (error.slug, error.pointer) == ("unknown-column", "/target/posterior/response")
    error = refusal(regression(table, columns=["x1", "x9"]), table=table)
    assert (error.slug, error.pointer) == ("unknown-column", "/target/posterior/columns")
    error = refusal(regression(table, columns=["x1", "x1"]), table=table)
    assert error.slug == "duplicate-column"


def test_the_response_does_not_explain_itself() -> None:
    table = table_of()
    error = refusal(regression(table, columns=["x1", "y"]), table=table)
    assert (error.slug, error.pointer) == ("columns-overlap", "/target/posterior/columns")


def test_a_column_may_not_take_the_name_of_the_constant_term() -> None:
    table = table_of(names=("intercept", "x", "y"))
    assert "intercept" in refusal(regression(table), table=table).detail
    accepted(regression(table, columns=["x"]), table=table)


@pytest.mark.parametrize(
    "statistics",
    [{"distinct": 3}, {"max": 2.0}, {"min": -1.0}, {"distinct": None}],
    ids=str,
)
def test_the_response_of_a_logistic_regression_is_0_or_1(statistics: dict[str, Any]) -> None:
    table = table_of()
    accepted(regression(table, "logistic"), table=table)
    table.columns[-1] |= statistics
    error = refusal(regression(table, "logistic"), table=table)
    assert (error.slug, error.pointer) == ("response-not-binary", "/target/posterior/response")
    accepted(regression(table), table=table)


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ({"potential": "U6"}, "potential"),
        ({"log_density": "z1", "dim": 0}, "dim"),
        ({"log_density": "z1", "dim": 101}, "dim"),
        ({"log_density": "", "dim": 1}, "log_density"),
        ({"log_density": "z1" + " " * 10_000, "dim": 1}, "log_density"),
        ({"log_density": "z1"}, "dim"),
        ({"potential": "U1", "dim": 2}, "dim"),
        ({}, "target"),
        ({"potential": "U1", "log_density": "z1", "dim": 1}, "target"),
        ("U1", "target"),
        (BELL | {"window": {"lower": [0.0], "upper": [1.0]}}, "a formula"),
        (BELL | {"window": {"lower": [0.0, 1.0], "upper": [1.0, 1.0]}}, "window"),
        (BELL | {"window": {"lower": [0.0] * 3, "upper": [1.0] * 3}}, "lower"),
        (regression(table_of(), "cubic"), "posterior"),
        (regression(table_of(), prior_scale=0.0), "prior_scale"),
        (regression(table_of(), "logistic", noise_scale=1.0), "noise_scale"),
    ],
    ids=str,
)
def test_what_is_no_target_is_refused_where_it_is_wrong(target: Any, where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(target)
    [error] = caught.value.errors()[:1]
    assert where in map(str, error["loc"])


def test_what_takes_too_much_memory_is_refused() -> None:
    fields = {"flow": {"family": "maf", "layers": 5, "hidden": [1024, 1024]}}
    target = {"log_density": "-z1^2", "dim": 100}
    error = refusal(target, optimisation={"batch_size": 10_000}, **fields)
    assert error.slug == "limit-memory"
    splines = {"family": "nsf", "hidden": [256]}
    error = refusal(target, optimisation={"batch_size": 10_000}, flow=splines)
    assert error.slug == "limit-memory"
    accepted(target, optimisation={"batch_size": 10_000}, flow=splines | {"coupling": True})
    table = table_of(rows=10**8)
    assert refusal(regression(table), table=table).slug == "limit-memory"


def test_a_flow_without_so_many_dimensions_is_refused() -> None:
    error = refusal({"log_density": "-z1^2", "dim": 1}, flow={"family": "realnvp"})
    assert (error.slug, error.pointer) == ("dimension-unsupported", "/flow")


def test_a_posterior_reads_its_dataset_and_others_none() -> None:
    dataset_id = new_id("ds")
    target = regression(table_of(), dataset_id=dataset_id)
    assert dataset_of(request(target).target) == dataset_id
    assert dataset_of(request(BELL).target) is None
