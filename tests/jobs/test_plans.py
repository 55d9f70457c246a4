"""Plans of parents: which trainings of a search follow those that have ended, and how far the parts of a bulk job are."""

from typing import Any

import pytest

from models_store.job_states import JobKind, JobState
from models_store.plans.parts import parts_account
from models_store.plans.plan import Child, Finish, Start
from models_store.plans.search import SCORE, search_step
from tests.jobs.searches import a_search

LIMITED = ((1, 1.0), (4, 0.25), (2, 1.0))


def a_child(
    stage: int,
    number: int,
    score: float,
    *,
    epochs: int = 40,
    seconds: float = 1.0,
    stop_reason: str = "max_epochs",
) -> Child:
    return Child(
        id=f"job_{stage}_{number}",
        kind=JobKind.TRAINING,
        stage=stage,
        number=number,
        state=JobState.SUCCEEDED,
        metrics={SCORE: score, "epoch": epochs, "seconds": seconds, "stop_reason": stop_reason},
        product=lambda: {"checkpoint_key": f"{number}", "checkpoint_sha256": "0", "flow": {}},
    )


def started(search: dict[str, Any], children: list[Child]) -> list[tuple[int, int]]:
    step = search_step(search, children)
    assert isinstance(step, Start), step
    return [(child.stage, child.number) for child in step.children]


def limited(max_seconds: float, **changes: Any) -> dict[str, Any]:
    return a_search(trials=4, stages=LIMITED, max_seconds=max_seconds, **changes)


def test_a_limited_search_trains_the_default_alone_for_all_of_the_time_first() -> None:
    step = search_step(limited(30.0), [])
    assert isinstance(step, Start)
    (first,) = step.children
    limits = first.request["optimisation"]
    assert (first.number, limits["max_seconds"], limits["max_epochs"]) == (0, 30.0, 40)


def test_a_limit_that_the_default_uses_up_gives_the_default() -> None:
    default = a_child(0, 0, 1.0, epochs=20, seconds=30.0)
    assert search_step(limited(30.0), [default]) == Finish(default)


def test_the_others_share_what_the_default_leaves() -> None:
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    step = search_step(limited(30.0), [default])
    assert isinstance(step, Start)
    assert [child.number for child in step.children] == [1, 2, 3]
    slices = [child.request["optimisation"]["max_seconds"] for child in step.children]
    assert sum(slices) == pytest.approx(20.0 * 1.0 / 3.0)


@pytest.mark.parametrize(("left_s", "kept"), [(100.0, [(2, 2), (2, 3)]), (15.0, [(2, 2)])])
def test_only_as_many_are_trained_to_their_end_as_the_time_allows(
    left_s: float, kept: list[tuple[int, int]]
) -> None:
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    others = [
        a_child(1, number, score, epochs=10, seconds=2.5)  # 10 s for their 40 epochs
        for number, score in ((1, 0.0), (2, 3.0), (3, 2.0))
    ]
    search = limited(10.0 + 7.5 + left_s)
    assert started(search, [default, *others]) == kept


def test_the_default_competes_with_what_was_trained_after_it() -> None:
    default = a_child(0, 0, 9.0, epochs=40, seconds=10.0)
    others = [a_child(1, n, 1.0, epochs=10, seconds=1.0) for n in (1, 2, 3)]
    last = a_child(2, 1, 5.0, epochs=40, seconds=4.0)
    assert search_step(limited(60.0), [default, *others, last]) == Finish(default)
    step = search_step(limited(60.0, ensemble=2), [default, *others, last])
    assert isinstance(step, Start)
    (ensemble,) = step.children
    assert [member["trial"] for member in ensemble.request["members"]] == [0, 1]


def test_without_a_limit_all_trainings_take_six_times_the_default() -> None:
    search = a_search(trials=4, stages=LIMITED)
    default = a_child(0, 0, 1.0, epochs=40, seconds=10.0)
    assert started(search, []) == [(0, 0)]
    step = search_step(search, [default])
    assert isinstance(step, Start)
    slices = [child.request["optimisation"]["max_seconds"] for child in step.children]
    assert sum(slices) == pytest.approx(50.0 * 1.0 / 3.0)
    others = [a_child(1, number, 9.0 - number, epochs=10, seconds=2.5) for number in (1, 2, 3)]
    assert started(search, [default, *others]) == [(2, 1), (2, 2)]


def test_the_default_is_among_those_that_an_ensemble_is_chosen_of() -> None:
    children = [a_child(0, 0, -9.0), *(a_child(1, n, 0.0) for n in (1, 2, 3))]
    children += [a_child(2, n, float(n)) for n in (1, 2, 3)]
    step = search_step(a_search(trials=4, stages=LIMITED, ensemble=2), children)
    assert isinstance(step, Start)
    assert [member["trial"] for member in step.children[0].request["members"]] == [3, 0]


def test_a_default_that_fails_leaves_the_search_to_the_others() -> None:
    failed = Child(
        id="job",
        kind=JobKind.TRAINING,
        stage=0,
        number=0,
        state=JobState.FAILED,
        metrics={"seconds": 1.0},
    )
    assert started(limited(30.0), [failed]) == [(1, 1), (1, 2), (1, 3)]


def test_a_search_without_a_limit_begins_with_all() -> None:
    search = a_search(trials=3)
    assert started(search, []) == [(0, 0), (0, 1), (0, 2)]


MIXTURE = 1


def with_mixture(**changes: Any) -> dict[str, Any]:
    """A search of four trials in three stages, the second of which is a mixture of Gaussians."""
    search = a_search(trials=4, stages=((4, 0.1), (2, 0.4), (1, 1.0)), **changes)
    search["trials"][MIXTURE]["flow"] = {"family": "gaussian_mixture"}
    return search


def epochs_of(step: Any) -> list[int]:
    assert isinstance(step, Start), step
    return [child.request["optimisation"]["max_epochs"] for child in step.children]


def first_stage(mixture: float, **of_mixture: Any) -> list[Child]:
    others = [a_child(0, number, float(number)) for number in (0, 2, 3)]
    return [*others, a_child(0, MIXTURE, mixture, **of_mixture)]


def test_a_mixture_is_fitted_to_its_end_at_once() -> None:
    assert epochs_of(search_step(with_mixture(), [])) == [10, 40, 10, 10]


@pytest.mark.parametrize(
    ("mixture", "second"),
    [(9.0, [(1, 3)]), (2.5, [(1, 3)]), (0.5, [(1, 3), (1, 2)])],
)
def test_a_mixture_is_fitted_once_and_competes_to_the_end(
    mixture: float, second: list[tuple[int, int]]
) -> None:
    search, children = with_mixture(), first_stage(mixture, stop_reason="converged")
    assert started(search, children) == second
    children += [a_child(stage, number, float(number)) for stage, number in second]
    last = search_step(search, children)
    if mixture > 4:
        assert last == Finish(children[3])
        return
    assert started(search, children) == [(2, 3)]
    children.append(a_child(2, 3, 1.0))
    best = children[3] if mixture > 1 else children[-1]
    assert search_step(search, children) == Finish(best)


def test_a_mixture_is_a_member_of_the_ensemble_as_it_was_fitted() -> None:
    search = with_mixture(ensemble=2)
    children = [*first_stage(9.0, stop_reason="converged"), a_child(1, 3, 3.0)]
    step = search_step(search, children)
    assert isinstance(step, Start)
    assert [member["trial"] for member in step.children[0].request["members"]] == [MIXTURE, 3]


def test_a_mixture_that_ran_out_of_time_goes_on_in_the_next_stage() -> None:
    children = first_stage(9.0, stop_reason="max_seconds")
    assert (1, MIXTURE) in started(with_mixture(max_seconds=600.0), children)


REQUEST = {"total_rows": 25, "part_rows": 10}


def a_part(number: int, state: JobState) -> Child:
    return Child(
        id=f"job_{number}",
        kind=JobKind.SCORING,
        stage=0,
        number=number,
        state=state,
        metrics={},
    )


def test_rows_of_parts_follow_from_the_request() -> None:
    parts = [
        a_part(0, JobState.SUCCEEDED),
        a_part(1, JobState.RUNNING),
        a_part(2, JobState.SUCCEEDED),
    ]
    metrics, progress = parts_account(REQUEST, parts, elapsed_s=9.0)
    assert metrics == {"rows": 15}
    assert progress["children_ended"] == 2
    assert progress["fraction"] == 0.54
