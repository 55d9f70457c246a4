"""Acceptance of variational jobs: of a density, of a posterior, of latent variables of rows."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from flows import GaussianSpec, IafSpec, LatentSpec, PlanarSpec, RealNvpSpec
from models_store.errors import RequestError
from models_store.jobs.memory import variational_memory
from models_store.records import Dataset
from models_store.requests.accept_variational import accept_variational, dataset_of
from models_store.requests.variational import (
    AcceptedVariational,
    LatentTarget,
    PosteriorTarget,
    VariationalRequest,
)
from tests.jobs.requests.test_accept_training import LIMITS, dataset

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


def test_reports_are_neither_too_few_nor_too_many() -> None:
    for iterations, wanted, chosen in (
        (1, None, 1),
        (10**7, None, 1000),
        (10**7, 1, 100),
        (300, 7, 7),
    ):
        optimisation = {"iterations": iterations, "report_every": wanted}
        assert accepted(BELL, optimisation=optimisation).optimisation.report_every == chosen


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


def test_a_flow_is_closed_for_sampling_or_refused_with_the_reason() -> None:
    for family in ("planar", "radial", "sylvester", "naf"):
        flow = accepted(BELL, flow={"family": family}).flow
        assert getattr(flow, "closed", None) == "sampling"
    error = refusal(BELL, flow={"family": "made", "masks": 4})
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")
    assert "noise to rows" in error.detail
    error = refusal({"log_density": "-z1^2", "dim": 1}, flow={"family": "realnvp"})
    assert (error.slug, error.pointer) == ("dimension-unsupported", "/flow")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("-0.5 * z1^2 - z3", 15, "unknown coordinate"),
        ("__import__('os')", 12, "unexpected character"),
        ("-z1^2\n - 2 z2", 12, ""),
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(text, position, reason):
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


def test_a_column_that_is_not_there_is_refused() -> None:
    table = table_of()
    error = refusal(regression(table, response="z"), table=table)
    assert (error.slug, error.pointer) == ("unknown-column", "/target/posterior/response")
    error = refusal(regression(table, columns=["x1", "x9"]), table=table)
    assert (error.slug, error.pointer) == ("unknown-column", "/target/posterior/columns")
    error = refusal(regression(table, columns=["x1", "x1"]), table=table)
    assert error.slug == "duplicate-column"


def test_neither_the_response_nor_a_namesake_of_the_constant_term_explains() -> None:
    table = table_of()
    error = refusal(regression(table, columns=["x1", "y"]), table=table)
    assert (error.slug, error.pointer) == ("columns-overlap", "/target/posterior/columns")
    table = table_of(names=("intercept", "x", "y"))
    assert "intercept" in refusal(regression(table), table=table).detail
    accepted(regression(table, columns=["x"]), table=table)


def test_the_response_of_a_logistic_regression_is_0_or_1() -> None:
    accepted(regression(table_of(), "logistic"), table=table_of())
    for statistics in ({"distinct": 3}, {"max": 2.0}, {"distinct": None}):
        table = table_of()
        table.columns[-1] |= statistics
        error = refusal(regression(table, "logistic"), table=table)
        assert (error.slug, error.pointer) == ("response-not-binary", "/target/posterior/response")
        accepted(regression(table), table=table)


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ({"potential": "U6"}, "potential"),
        ({"log_density": "z1", "dim": 101}, "dim"),
        ({"log_density": "z1" + " " * 10_000, "dim": 1}, "log_density"),
        ({"potential": "U1", "dim": 2}, "dim"),
        ({"potential": "U1", "log_density": "z1", "dim": 1}, "target"),
        (BELL | {"window": {"lower": [0.0], "upper": [1.0]}}, "a formula"),
        (BELL | {"window": {"lower": [0.0, 1.0], "upper": [1.0, 1.0]}}, "window"),
        (BELL | {"window": {"lower": [0.0, 0.0], "upper": [1.0]}}, "window"),
        (regression(table_of(), "cubic"), "posterior"),
        (regression(table_of(), "logistic", noise_scale=1.0), "noise_scale"),
    ],
    ids=str,
)
def test_what_is_no_target_is_refused_where_it_is_wrong(target: Any, where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(target)
    [error] = caught.value.errors()[:1]
    assert where in map(str, error["loc"])
    assert "zip" not in error["msg"]


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


def test_memory_grows_with_the_samples_of_a_step_and_the_formula() -> None:
    long = BELL | {"log_density": f"{BELL['log_density']} - 0 * ({' + '.join(['z1'] * 100)})"}
    needed = [
        variational_memory(accepted(target, optimisation={"batch_size": size}), None)
        for target, size in ((BELL, 1000), (long, 1000), (long, 10_000))
    ]
    assert needed[0] < needed[1] < needed[2]
    to_data, to_noise = (
        variational_memory(accepted(BELL | {"dim": 20}, flow={"family": family}), None)
        for family in ("iaf", "maf")
    )
    assert to_data < to_noise, "which goes to data a column at a time"


@pytest.mark.parametrize(
    "of_rows", [regression, lambda table: {"latent": {**LEARNT, "dataset_id": table.id}}]
)
def test_memory_grows_with_the_rows_of_a_target_and_its_columns(of_rows):
    def needed(rows: int, columns: int, **changes: Any) -> float:
        table = table_of(rows=rows, names=(*(f"x{i}" for i in range(columns - 1)), "y"))
        target = {kind: {**fields, **changes} for kind, fields in of_rows(table).items()}
        return variational_memory(accepted(target, table=table), table)

    for columns in (3, 7):
        growth = needed(10**6, columns) - needed(10**3, columns)
        assert growth == 3 * 8 * (10**6 - 10**3) * (columns + 1)
    assert needed(10**3, 7) - needed(10**3, 3) > 3 * 8 * 10**3 * 4, "its flow grows, too"
    if of_rows is regression:
        drawn = [needed(10**6, 3, kind="logistic", batch_rows=count) for count in (10, 1010)]
        assert drawn[1] - drawn[0] == 2 * 8 * 1000 * 4
    else:
        assert needed(10**3, 3, dim=100) > needed(10**3, 3)


LATENT_TABLE = table_of(names=("x1", "x2", "y"))
LEARNT: dict[str, Any] = {"likelihood": "gaussian", "dim": 2}
KNOWN = {"likelihood": "gaussian", "loadings": [[1.0], [2.0], [0.5]], "noise_scale": 0.1}
BINARY = {"likelihood": "bernoulli", "dim": 2, "columns": ["y"], "hidden": [20]}


def latent(fields: dict[str, Any]) -> dict[str, Any]:
    return {"latent": {"dataset_id": LATENT_TABLE.id} | fields}


@pytest.mark.parametrize(
    ("fields", "flow", "latents"),
    [(LEARNT, GaussianSpec, 2), (KNOWN, GaussianSpec, 1), (BINARY, IafSpec, 2)],
    ids=["learnt", "known", "binary"],
)
def test_the_flow_suits_the_model_and_its_columns_are_shown(fields, flow, latents):
    chosen = accepted(latent(fields), table=LATENT_TABLE)
    assert isinstance(chosen.flow, LatentSpec)
    assert isinstance(chosen.flow.flow, flow)
    assert chosen.flow.hidden == fields.get("hidden", [])
    assert isinstance(chosen.target, LatentTarget)
    assert chosen.target.latent.columns == fields.get("columns", ["x1", "x2", "y"])
    assert chosen.target.latent.latents == latents
    assert dataset_of(chosen.target) == LATENT_TABLE.id
    assert chosen.optimisation.annealing == 0
    assert AcceptedVariational.model_validate(chosen.model_dump(mode="json")) == chosen


def test_a_flow_of_the_callers_choice_gets_the_decoder() -> None:
    chosen = accepted(latent(LEARNT), table=LATENT_TABLE, flow={"family": "realnvp", "layers": 2})
    assert isinstance(chosen.flow, LatentSpec)
    assert chosen.flow.flow.family == "realnvp"
    error = refusal(latent(LEARNT), table=LATENT_TABLE, flow={"family": "made", "masks": 4})
    assert (error.slug, error.pointer) == ("flow-unsuitable", "/flow")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"likelihood": "gaussian"}, "with dim, or known"),
        (LEARNT | {"offset": [0.0]}, "with loadings"),
        (KNOWN | {"hidden": [3]}, "no hidden layers"),
        (KNOWN | {"likelihood": "bernoulli"}, "has a noise_scale"),
        (KNOWN | {"loadings": [[1.0], [1.0, 2.0], [1.0]]}, "as many weights"),
        (KNOWN | {"offset": [1.0]}, "a value for each column"),
        (LEARNT | {"dim": 101}, "less than or equal to 100"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        request(latent(fields))


@pytest.mark.parametrize(
    ("fields", "slug", "pointer"),
    [
        (LEARNT | {"columns": ["a"]}, "unknown-column", "columns"),
        (BINARY | {"columns": ["x1"]}, "response-not-binary", "columns"),
        (KNOWN | {"columns": ["x1"]}, "dimension-mismatch", "loadings"),
        (LEARNT | {"held_out": 0.001}, "split-too-small", "held_out"),
    ],
    ids=["unknown", "binary", "loadings", "few held out"],
)
def test_a_model_that_does_not_fit_the_table_is_refused(fields, slug, pointer):
    error = refusal(latent(fields), table=LATENT_TABLE)
    assert (error.slug, error.pointer) == (slug, f"/target/latent/{pointer}")


def test_columns_of_one_value_and_of_the_names_of_latents_are_refused() -> None:
    table = table_of(names=("z1", "x2", "y"))
    assert refusal(latent(LEARNT), table=table).slug == "columns-overlap"
    table.columns[0] |= {"name": "x1", "std": 0.0}
    assert refusal(latent(LEARNT), table=table).slug == "dataset-constant-column"
    table.columns[0] |= {"std": 1.0, "missing": 3}
    assert refusal(latent(LEARNT), table=table).slug == "preprocessing-unsuitable"


def test_a_decoder_that_is_too_large_is_refused_before_it_is_built() -> None:
    error = refusal(latent(BINARY | {"hidden": [2**31, 2**31]}), table=LATENT_TABLE)
    assert error.slug in ("limit-parameters", "limit-memory")
    assert error.pointer == "/target/latent/hidden"
    least = replace(LIMITS, max_parameters=100)
    with pytest.raises(Exception, match="parameters"):
        accept_variational(request(latent(BINARY)), LATENT_TABLE, limits=least)
