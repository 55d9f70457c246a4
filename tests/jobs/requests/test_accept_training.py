import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from flows import MadeSpec, MafSpec, NsfSpec, RealNvpSpec
from models_store.errors import RequestError
from models_store.plans.search import trial_training
from models_store.records import Dataset
from models_store.requests import accept_search
from models_store.requests.accept_search import accept_auto, accept_sweep, draw_points
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import AcceptedTraining, TrainingRequest
from tests.store.makers import a_dataset

LIMITS = TrainingLimits(
    max_parameters=10_000_000, max_layers=256, max_memory_bytes=2**32, max_model_bytes=2**30
)


def dataset(*, rows: int = 1000, dim: int = 3, std: float = 1.0) -> Dataset:
    columns = [{"name": f"x{i + 1}", "dtype": "float64", "std": std} for i in range(dim)]
    new = a_dataset(rows=rows, columns=columns)
    return Dataset(**vars(new), created_at=datetime(2026, 1, 1, tzinfo=UTC))


def request(table: Dataset, **fields: Any) -> TrainingRequest:
    body = {"model_name": "m", "dataset_id": table.id} | fields
    return TrainingRequest.model_validate(body)


def accept(table: Dataset, *, held_out: HeldOut = HeldOut(), **fields: Any) -> AcceptedTraining:  # noqa: B008 - it has no state
    return accept_training(request(table, **fields), table, limits=LIMITS, held_out=held_out)


def refusal(table: Dataset, **fields: Any) -> RequestError:
    held_out = fields.pop("held_out", HeldOut())
    limits = fields.pop("limits", LIMITS)
    with pytest.raises(RequestError) as caught:
        accept_training(request(table, **fields), table, limits=limits, held_out=held_out)
    return caught.value


def test_two_fields_are_enough_and_the_choices_are_shown() -> None:
    accepted = accept(dataset())
    assert isinstance(accepted.flow, NsfSpec)
    assert accepted.columns == ["x1", "x2", "x3"]
    assert (accepted.split.train, accepted.split.validation, accepted.split.test) == (0.8, 0.1, 0.1)
    assert accepted.optimisation.batch_size == 50
    assert accepted.optimisation.seed >= 0


def test_training_is_robust_unless_it_is_asked_not_to_be() -> None:
    table = dataset()
    chosen = accept(table).optimisation
    assert (chosen.row_loss_bound, chosen.weight_average) == (30.0, 0.99)
    assert (chosen.noise, chosen.restarts) == ("epoch", 1)
    chosen = accept(table, optimisation={"robust": False}).optimisation
    assert (chosen.row_loss_bound, chosen.weight_average) == (None, None)
    assert (chosen.noise, chosen.restarts) == ("once", 0)
    assert accept(table, optimisation={"max_epochs": 60}).optimisation.patience == 20
    averaged = {"robust": False, "weight_average": 0.999}
    chosen = accept(table, optimisation=averaged).optimisation
    assert (chosen.row_loss_bound, chosen.weight_average) == (None, 0.999)


@pytest.mark.parametrize(
    ("rows", "dim", "family", "width", "epochs"),
    [
        (1000, 16, NsfSpec, 32, 200),
        (50_000, 9, NsfSpec, 64, 140),
        (10**6, 9, NsfSpec, 128, 63),
        (50_000, 65, MafSpec, 130, 160),
    ],
)
def test_flow_and_epochs_follow_the_size_of_the_table(rows, dim, family, width, epochs):
    accepted = accept(dataset(rows=rows, dim=dim))
    assert isinstance(accepted.flow, family)
    affine = 3 if rows >= 10_000 and 5 <= dim <= 64 else 0
    assert accepted.flow.layers == (2 if affine else 5)
    assert getattr(accepted.flow, "affine_layers", 0) == affine
    assert accepted.flow.hidden == [width, width]
    factor = 0.32 if affine else 0.16
    assert accepted.optimisation.learning_rate == pytest.approx(factor / width)
    assert accepted.optimisation.max_epochs == epochs


def test_an_accepted_request_survives_the_job_row() -> None:
    flow = {"family": "realnvp", "layers": 3, "hidden": [7], "batch_norm": None}
    accepted = accept(dataset(), flow=flow)
    assert accepted.flow == RealNvpSpec(layers=3, hidden=[7], batch_norm=None)
    assert AcceptedTraining.model_validate(accepted.model_dump(mode="json")) == accepted


def test_gradients_are_bounded_unless_they_are_asked_not_to_be() -> None:
    table = dataset()
    for wanted, norm in ((None, 5.0), (2.5, 2.5), ("none", None)):
        optimisation = {"max_gradient_norm": wanted, "weight_decay": 0.5}
        chosen = accept(table, optimisation=optimisation).optimisation
        assert (chosen.max_gradient_norm, chosen.weight_decay) == (norm, 0.5)


def test_one_column_gets_a_flow_that_works_in_one_dimension() -> None:
    flow = accept(dataset(dim=1)).flow
    assert isinstance(flow, MadeSpec)
    assert flow.conditional == "mixture"


def test_training_that_would_not_fit_into_memory_is_refused() -> None:
    limits = replace(LIMITS, max_memory_bytes=2**20)
    small = {"family": "made", "hidden": [8]}
    error = refusal(dataset(rows=1_000_000), limits=limits, flow=small)
    assert (error.slug, error.pointer) == ("limit-memory", "")


def test_the_memory_of_wide_maps_of_single_features_is_counted() -> None:
    flow = {"family": "naf", "units": 1000}
    table, optimisation = dataset(rows=100_000), {"batch_size": 80_000}
    error = refusal(table, flow=flow, optimisation=optimisation)
    assert (error.slug, error.pointer) == ("limit-memory", "/optimisation/batch_size")
    accept(table, flow={"family": "naf"}, optimisation=optimisation)


def test_a_part_without_enough_rows_is_refused() -> None:
    for rows, split in (
        (3, {"validation": 0.999}),
        (1000, {"validation": 0.0}),
        (1000, {"train": 0.001}),
        (1000, {"train": 0.85}),
    ):
        error = refusal(dataset(rows=rows), split=split)
        assert error.slug in {"split-too-small", "split-invalid"}
        assert "-" not in error.detail  # no part has fewer than no rows
        assert error.pointer.startswith("/split")


def test_a_table_of_twelve_rows_can_be_split_and_one_of_eleven_cannot() -> None:
    for rows in range(12, 21):
        split = accept(dataset(rows=rows)).split
        assert int(rows * split.validation) == 2
        assert int(rows * split.test) == (0 if rows < 20 else 2)
        assert split.train + split.validation + split.test == pytest.approx(1)
    assert refusal(dataset(rows=11)).slug == "split-too-small"


def test_a_test_part_is_optional() -> None:
    accepted = accept(dataset(), split={"test": 0.0})
    assert accepted.split.test == 0
    assert accepted.split.train == pytest.approx(0.9)


def test_named_datasets_leave_their_rows_to_training() -> None:
    table, validation, test = dataset(), dataset(rows=50), dataset(rows=50)
    split = {"validation_dataset_id": validation.id, "test_dataset_id": test.id}
    accepted = accept(table, held_out=HeldOut(validation, test), split=split)
    assert (accepted.split.train, accepted.split.validation, accepted.split.test) == (1.0, 0, 0)
    for name, few in (
        ("validation", HeldOut(dataset(rows=1))),
        ("test", HeldOut(test=dataset(rows=1))),
    ):
        error = refusal(table, split={f"{name}_dataset_id": validation.id}, held_out=few)
        assert (error.slug, error.pointer) == ("split-too-small", f"/split/{name}")


def test_a_named_dataset_must_have_the_columns() -> None:
    table, held_out = dataset(), HeldOut(dataset(dim=2))
    split = {"validation_dataset_id": "ds_" + "1" * 32}
    assert refusal(table, split=split, held_out=held_out).slug == "unknown-column"
    with pytest.raises(RequestError, match="x3"):
        accept_auto(request(table, split=split), table, limits=LIMITS, held_out=held_out)
    with pytest.raises(RequestError, match="x3"):
        accept_sweep(sweep_request(RATES, split=split), table, limits=LIMITS, held_out=held_out)


def test_columns_must_exist_once_and_have_more_than_one_value() -> None:
    for name, slug in (("nope", "unknown-column"), ("x1", "duplicate-column")):
        error = refusal(dataset(), columns=["x1", name])
        assert (error.slug, error.pointer) == (slug, "/columns")
        assert f"column '{name}'" in str(error)
    assert refusal(dataset(std=0.0)).slug == "dataset-constant-column"


@pytest.mark.parametrize(
    "fields",
    [
        {"optimisation": {"max_epochs": 0}},
        {"optimisation": {"learning_rate": 1e308}},
        {"optimisation": {"epocs": 5}},
        {"optimisation": {"schedule": {"step": {"epochs": 0, "factor": 0.5}}}},
        {"flow": {"family": "__import__"}},
        {"flow": {"family": "maf", "layers": 0}},
        {"flow": {"family": "maf", "widths": [3]}},
        {"split": {"train": 0.9, "validation": 0.2}},
        {"split": {"validation": 0.1, "validation_dataset_id": "ds_" + "0" * 32}},
        {"source_url": "file:///etc/passwd"},
        {"model_name": "../up"},
        {"preprocessing": {"logit": {"lambda": 0.5}}},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(dataset(), **fields)


def binary(dim: int = 3) -> Dataset:
    columns = [
        {"name": f"b{i}", "dtype": "float64", "std": 0.5, "min": 0.0, "max": 1.0, "distinct": 2}
        for i in range(dim)
    ]
    return replace(dataset(dim=dim), columns=columns)


def test_the_context_is_left_out_of_the_columns_to_model() -> None:
    accepted = accept(dataset(), context_columns=["x2"])
    assert (accepted.columns, accepted.context_columns) == (["x1", "x3"], ["x2"])


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"context_columns": ["x9"]}, "unknown-column", "/context_columns"),
        ({"context_columns": ["x1", "x1"]}, "duplicate-column", "/context_columns"),
        (
            {"columns": ["x1", "x2"], "context_columns": ["x3", "x2"]},
            "columns-overlap",
            "/context_columns/1",
        ),
        ({"context_columns": ["x1", "x2", "x3"]}, "columns-overlap", "/context_columns"),
        ({"flow": {"family": "maf", "encoder": {}}}, "encoder-without-context", "/flow"),
    ],
)
def test_a_context_that_cannot_be_is_refused(fields: Any, code: str, pointer: str) -> None:
    error = refusal(dataset(), **fields)
    assert (error.slug, error.pointer) == (code, pointer)


def test_a_bernoulli_made_takes_columns_of_0_and_1_as_they_are() -> None:
    table = binary()
    flow = {"family": "made", "conditional": "bernoulli"}
    accepted = accept(table, flow=flow)
    assert not accepted.preprocessing.standardise
    assert accepted.preprocessing.dequantise is None
    error = refusal(table, flow=flow, preprocessing={"standardise": True})
    assert (error.slug, error.pointer) == ("preprocessing-unsuitable", "/preprocessing/standardise")
    other = replace(table, columns=[*table.columns[:2], {**table.columns[2], "max": 2.0}])
    assert refusal(other, flow=flow).slug == "preprocessing-unsuitable"


def test_values_must_suit_the_preprocessing() -> None:
    table = binary()
    table = replace(table, columns=[{**table.columns[0], "max": 3.0}])
    for name, value in (("dequantise", {"levels": 1}), ("logit", {"lambda": 1e-6})):
        error = refusal(table, preprocessing={name: value})
        found = error.slug, error.pointer
        assert found == ("preprocessing-unsuitable", f"/preprocessing/{name}")


LAYERS = {"flow.layers": {"low": 2, "high": 8}}
RATES = {"optimisation.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}}
MAF = {"family": "maf", "hidden": [8]}


def sweep_request(ranges: dict[str, Any], **fields: Any) -> SweepRequest:
    body = {"model_name": "m", "dataset_id": "ds_" + 32 * "0", "flow": MAF, "ranges": ranges}
    return SweepRequest.model_validate_json(json.dumps(body | fields), strict=True)


def accepted(ranges: dict[str, Any], **fields: Any) -> AcceptedSearch:
    wanted = sweep_request(ranges, **fields)
    return accept_sweep(wanted, dataset(), limits=LIMITS, held_out=HeldOut())


def test_each_trial_is_a_training_at_its_point() -> None:
    search = accepted({**LAYERS, **RATES}, seed=3, trials=8, optimisation={"max_epochs": 50})
    assert search.points is not None
    assert len(search.trials) == len(search.points) == 8
    for trial, point in zip(search.trials, search.points, strict=True):
        assert isinstance(trial.flow, MafSpec)
        assert trial.flow.layers == point["flow.layers"]
        assert trial.flow.hidden == [8]
        assert trial.optimisation.learning_rate == point["optimisation.learning_rate"]
        assert trial.optimisation.max_epochs == 50
    assert len({trial.optimisation.seed for trial in search.trials}) == 1
    child = trial_training(search.model_dump(mode="json"), 3, max_epochs=7, max_seconds=None)
    assert AcceptedTraining.model_validate(child).flow == search.trials[3].flow


@pytest.mark.parametrize(
    ("trials", "reduction", "ensemble", "stages"),
    [
        (16, 3, 1, [(16, 1 / 27), (6, 1 / 9), (2, 1 / 3), (1, 1.0)]),
        (9, 3, 3, [(9, 1 / 3), (3, 1.0)]),
        (8, 1, 1, [(8, 1.0)]),
        (
            64,
            2,
            1,
            [(64, 0.02), (32, 1 / 32), (16, 1 / 16), (8, 1 / 8), (4, 0.25), (2, 0.5), (1, 1.0)],
        ),
    ],
)
def test_stages_halve_the_trials_and_lengthen_their_training(trials, reduction, ensemble, stages):
    search = accepted(RATES, trials=trials, reduction=reduction, ensemble=ensemble)
    found = [(stage.trials, stage.share) for stage in search.stages]
    assert [count for count, _ in found] == [count for count, _ in stages]
    assert [share for _, share in found] == pytest.approx([share for _, share in stages])


@given(
    low=st.integers(-100, 100),
    width=st.integers(1, 50),
    method=st.sampled_from(["sobol", "random"]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=30, deadline=None)
def test_points_lie_within_their_ranges_and_differ(low, width, method, seed):
    wanted = sweep_request(LAYERS, method=method, seed=seed, trials=32)
    for name, range_ in (("low", low), ("high", low + width)):
        object.__setattr__(wanted.ranges["flow.layers"], name, range_)
    points = draw_points(wanted)
    values = [point["flow.layers"] for point in points]
    assert len(set(values)) == len(values) <= width + 1
    assert all(type(value) is int and low <= value <= low + width for value in values)
    assert draw_points(wanted) == points


def test_sobol_points_fill_a_logarithmic_range_evenly() -> None:
    points = draw_points(sweep_request(RATES, trials=32, seed=0))
    rates = [point["optimisation.learning_rate"] for point in points]
    assert sum(rate < 1e-3 for rate in rates) == 16
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_whole_specs_of_several_families_are_a_range() -> None:
    families = {"flow": {"values": [{"family": "nsf"}, {"family": "realnvp"}]}}
    search = accepted(families, flow=None, trials=16)
    assert sorted(trial.flow.family for trial in search.trials) == ["nsf", "realnvp"]


@pytest.mark.parametrize(
    ("ranges", "fields", "reason"),
    [
        ({"flow.layers": {"low": 0, "high": 8}}, {}, "`flow.layers` cannot be 0"),
        ({"flow.depth": {"values": [1]}}, {}, "`flow.depth` cannot be 1"),
        ({"optimisation.max_epochs": {"values": ["many" * 999]}}, {}, "..."),
        ({"flow.layers": {"low": 3, "high": 3}}, {}, "high must be above low"),
        ({"flow.layers": {"low": 0, "high": 3, "scale": "log"}}, {}, "a low above 0"),
        (LAYERS, {"flow": None}, "family"),
        ({**LAYERS, "flow": {"values": [MAF]}}, {}, "not both"),
        ({f"flow.{'a' * n}": {"values": [1] * 64} for n in range(1, 6)}, {}, "256 values"),
        (LAYERS, {"flow": "auto"}, "flow"),
    ],
)
def test_wrong_ranges_are_refused(ranges, fields, reason):
    with pytest.raises(ValidationError, match=r"ranges|flow|trials") as caught:
        sweep_request(ranges, **fields)
    assert reason in str(caught.value)
    assert all(len(one["msg"]) < 700 for one in caught.value.errors())


def test_values_that_do_not_fit_together_or_are_too_large_name_the_point() -> None:
    grown = {"flow.hidden": {"values": [[2**31]]}}
    with pytest.raises(RequestError) as caught:
        accepted(grown)
    assert (caught.value.slug, caught.value.pointer) == ("limit-parameters", "/ranges")
    assert "flow.hidden" in caught.value.detail


def test_a_wide_table_may_have_fewer_trials() -> None:
    wanted = sweep_request(RATES, trials=5)
    with pytest.raises(RequestError, match="at most 4 trials"):
        accept_sweep(wanted, dataset(dim=4096), limits=LIMITS, held_out=HeldOut())


def test_trials_that_repeat_long_levels_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(json.dumps(accepted(RATES, trials=1).model_dump(mode="json")))
    monkeypatch.setattr(accept_search, "MAX_REQUESTS_BYTES", 4 * size)
    most = len(accepted(RATES, trials=2).trials)
    with pytest.raises(RequestError, match=r"at most [2-9] trials") as caught:
        accepted(RATES, trials=16)
    assert (most, caught.value.pointer) == (2, "/trials")
    training = TrainingRequest.model_validate(
        {"model_name": "m", "dataset_id": "ds_" + 32 * "0", "flow": "auto"}
    )
    search = accept_auto(training, dataset(), limits=LIMITS, held_out=HeldOut())
    assert 1 < len(search.trials) < 10
    monkeypatch.setattr(accept_search, "MAX_REQUESTS_BYTES", 1)
    search = accept_auto(training, dataset(), limits=LIMITS, held_out=HeldOut())
    assert [stage.trials for stage in search.stages] == [1]
