"""The checks of the test run see what they should, also in functions that are made again."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from flows import MadeSpec, build
from tests.shape_checks import checked


def make(result: Tensor) -> Callable[[Tensor], Tensor]:
    @checked
    def answer(x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return result[: len(x)]

    return answer


def test_the_flow_library_is_checked():
    with pytest.raises(TypeCheckError, match="x"):
        build(MadeSpec(), 3, seed=0).log_prob(torch.zeros(5))


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_function_made_again_is_checked_again(time):
    answer = make(torch.zeros(2))
    assert answer(torch.zeros(2, 5)).shape == (2,), time
    with pytest.raises(TypeCheckError, match="return value"):
        answer(torch.zeros(3, 5))
    with pytest.raises(TypeCheckError, match="parameters"):
        answer(torch.zeros(3))


def test_what_differs_from_a_right_call_is_checked():
    answer = make(torch.zeros(2))
    for _ in range(2):
        assert answer(torch.zeros(2, 5)).shape == (2,)
        with pytest.raises(TypeCheckError, match="parameters"):
            answer(torch.zeros(2, 5, dtype=torch.int64))
        with pytest.raises(TypeCheckError, match="parameters"):
            answer(torch.zeros(2, 5, 1))


def test_what_a_list_holds_is_checked():
    @checked
    def count(parts: list[Float[Tensor, " batch"]]) -> int:
        return len(parts)

    assert count([torch.zeros(2)]) == 1
    with pytest.raises(TypeCheckError):
        count([torch.zeros(2, 1)])
    with pytest.raises(TypeCheckError):
        count([3.0])


def test_the_fields_of_a_spec_are_checked():
    with pytest.raises(TypeCheckError):
        MadeSpec(hidden="16")  # type: ignore[arg-type]


def test_each_function_gives_its_own_answer():
    one, other = make(torch.zeros(2)), make(torch.ones(2))
    assert one(torch.zeros(2, 5)).sum() == 0
    assert other(torch.zeros(2, 5)).sum() == 2
