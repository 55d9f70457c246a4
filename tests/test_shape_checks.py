"""The checks of the test run see what they should, also in functions that are made again."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from flows import MadeSpec, build
from tests.shape_checks import checked


def make(result: Tensor) -> Callable[[Tensor], Tensor]:
    @jaxtyped(typechecker=checked)
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


def test_each_function_gives_its_own_answer():
    one, other = make(torch.zeros(2)), make(torch.ones(2))
    assert one(torch.zeros(2, 5)).sum() == 0
    assert other(torch.zeros(2, 5)).sum() == 2
