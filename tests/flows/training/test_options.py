import pytest

from flows import FitOptions, StepFactor, StepSchedule, VariationalOptions, count_parameters
from flows.defaults import default_flow
from flows.training.steps import one_core_suffices


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"weight_decay": -1.0},
        {"batch_size": 0},
        {"max_epochs": 0},
        {"patience": 0},
        {"max_seconds": 0.0},
        {"row_loss_bound": 0.0},
        {"weight_average": 1.0},
        {"restarts": -1},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        FitOptions(**fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"epochs": 0, "factor": 0.1}, "epochs"),
        ({"epochs": 1, "factor": 0.0}, "factor"),
        ({"epochs": 1, "factor": 1.5}, "factor"),
    ],
)
def test_step_schedules_out_of_range_are_refused(fields, name):
    with pytest.raises(ValueError, match=name):
        StepFactor(**fields)


def test_a_constant_schedule_keeps_the_learning_rate():
    options = FitOptions(learning_rate=0.5)
    assert options.learning_rate_at(1) == options.learning_rate_at(900) == 0.5


def test_a_step_schedule_lowers_the_learning_rate_after_so_many_epochs():
    options = FitOptions(learning_rate=1.0, schedule=StepSchedule(StepFactor(50, 0.1)))
    rates = [options.learning_rate_at(epoch) for epoch in (1, 50, 51, 100, 101)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_cosine_schedule_falls_from_the_learning_rate_towards_0():
    options = FitOptions(learning_rate=2.0, schedule="cosine", max_epochs=10)
    rates = [options.learning_rate_at(epoch) for epoch in range(1, 11)]
    assert rates[0] == 2.0
    assert rates[5] == pytest.approx(1.0)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"max_gradient_norm": 0.0},
        {"batch_size": 0},
        {"iterations": 0},
        {"report_every": 0},
        {"patience": 0},
        {"max_seconds": 0.0},
        {"annealing": -1},
        {"seed": -1},
    ],
)
def test_variational_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        VariationalOptions(**fields)


def test_the_variational_learning_rate_follows_its_schedule():
    constant = VariationalOptions(learning_rate=2.0)
    cosine = VariationalOptions(learning_rate=2.0, schedule="cosine", iterations=10)
    assert constant.learning_rate_at(1) == constant.learning_rate_at(9999) == 2.0
    assert [cosine.learning_rate_at(i) for i in (1, 6)] == pytest.approx([2.0, 1.0])
    assert 0 < cosine.learning_rate_at(10) < 0.1


@pytest.mark.parametrize(("columns", "suffices"), [(1, True), (20, True), (500, False)])
def test_steps_of_narrow_default_flows_suit_one_core(columns: int, suffices: bool) -> None:
    weights = count_parameters(default_flow(50_000, columns), columns)
    assert one_core_suffices(weights, 250) is suffices
