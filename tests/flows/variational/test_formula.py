import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import FitError, FormulaError, FormulaTarget, Potential, Window
from flows.variational.formula import FUNCTIONS, MAX_LENGTH, MAX_NODES

Z = torch.tensor([[0.3, -1.2], [2.0, 0.5], [-0.7, 0.0]], dtype=torch.float64)
Z1, Z2 = Z.unbind(dim=1)


def evaluate(text: str, z: Tensor = Z) -> Tensor:
    return FormulaTarget(text, z.shape[1]).log_density(z)


NUMBERS = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("10 - 4 - 3", 3),
    ("12 / 3 / 2", 2),
    ("2 ^ 3 ^ 2", 512),
    ("2 ** 3 ** 2", 512),
    ("-3 ^ 2", -9),
    ("(-3) ^ 2", 9),
    ("2 ^ -1 * 4", 2),
    ("2 ^ -2 ^ 2", 2**-4),
    ("2 * -3 + 1", -5),
    ("- - + 2", 2),
    (".5 + 1. + 2.5e-1 + 1E2", 101.75),
    ("pi / e", math.pi / math.e),
    ("max(1, 3, 2) - min(4, 2)", 1),
    ("pow(2, 5)", 32),
    ("norm(2, 3, 6)", 7),
    ("logaddexp(0, 0, 0)", math.log(3)),
    ("1 / 0", math.inf),
    ("\t1\n+\r\n1 ", 2),
]


def test_numbers_follow_the_usual_rules():
    for text, expected in NUMBERS:
        found = evaluate(text)
        wanted = torch.full((3,), float(expected), dtype=torch.float64)
        torch.testing.assert_close(found, wanted, msg=text)


def test_coordinates_are_the_columns():
    torch.testing.assert_close(evaluate("z2 - 2 * z1"), Z2 - 2 * Z1)
    wide = torch.arange(24.0).view(2, 12)
    torch.testing.assert_close(evaluate("z12 + z1 - z10", wide), wide[:, 2])


def test_functions_are_those_of_their_names():
    others: dict[str, Callable[..., float]] = {
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "softplus": lambda v: math.log1p(math.exp(v)),
        "square": lambda v: v * v,
        "abs": abs,
    }
    for name in sorted(set(FUNCTIONS) - {"logaddexp", "max", "min", "norm", "pow"}):
        function = others.get(name) or getattr(math, name)
        values = [function(abs(z1)) for z1, _ in Z.tolist()]
        expected = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(evaluate(f"{name}(abs(z1))"), expected, msg=name)
    torch.testing.assert_close(evaluate("pow(abs(z1), z2)"), Z1.abs() ** Z2)


def test_a_potential_written_as_a_formula_equals_it():
    text = """
      -0.5 * ((norm(z1, z2) - 2) / 0.4) ^ 2
      + logaddexp(-0.5 * ((z1 - 2) / 0.6) ^ 2, -0.5 * ((z1 + 2) / 0.6) ^ 2)
    """
    torch.testing.assert_close(evaluate(text), Potential("U1").log_density(Z))


def test_formulas_are_differentiable():
    target = FormulaTarget("-0.5 * (z1^2 + (z2 - z1^2)^2) + tanh(z1) * softplus(z2)", 2)
    assert torch.autograd.gradcheck(target.log_density, Z.clone().requires_grad_())


def test_a_formula_without_coordinates_still_gives_a_value_and_a_zero_gradient_for_each_row():
    z = Z.clone().requires_grad_()
    evaluate("0 * z1", z).sum().backward()
    assert z.grad is not None
    assert not z.grad.any()
    assert evaluate("3").shape == (3,)


REFUSED = [
    ("", 1, "empty"),
    ("  \n", 1, "empty"),
    ("z1 +", 5, "invalid syntax"),
    ("z1 z2", 4, "invalid syntax"),
    ("2z1", 1, "invalid decimal literal"),
    ("(z1 + 2", 1, "never closed"),
    ("z1)", 3, "unmatched ')'"),
    ("z1 ^ ^ z2", 6, "invalid syntax"),
    ("exp(z1, z2)", 1, "exp takes 1 argument, not 2"),
    ("pow(2)", 1, "pow takes 2 arguments, not 1"),
    ("1 + max(2)", 5, "max takes 2 to 100 arguments, not 1"),
    ("exp()", 1, "exp takes 1 argument, not 0"),
    ("max(1, 2", 4, "never closed"),
    ("2^2 + z3", 7, "unknown coordinate 'z3'; there are z1 to z2"),
    ("z" + "9" * 5000, 1, "unknown coordinate"),
    ("z0", 1, "unknown name 'z0'"),
    ("exp", 1, "unknown name 'exp'"),
    ("1 + foo(2)", 5, "unknown function 'foo'"),
    ("__import__('os')", 12, "unexpected character"),
    ("z1 = 2", 4, "unexpected character '='"),
    ("z1.real", 1, "numbers, coordinates, functions"),
    ("z1 // 2", 1, "numbers, coordinates, functions"),
    ("max(*z1, 2)", 5, "numbers, coordinates, functions"),
    ("(z1, z2)", 1, "numbers, coordinates, functions"),
    ("lambda", 7, "invalid syntax"),
    ("1 + 1e999", 5, "too large"),
    ("9" * 400, 1, "too large"),
    ("2j", 1, "numbers, coordinates, functions"),
    ("\u0661", 1, "unexpected character"),
]


def test_what_is_no_formula_is_refused_with_the_place():
    for text, position, words in REFUSED:
        with pytest.raises(FormulaError) as caught:
            FormulaTarget(text, 2)
        assert caught.value.position == position, text
        assert words in caught.value.reason
        assert str(position) in str(caught.value)
        assert len(str(caught.value)) < 300


def test_the_pointer_stands_under_the_error():
    text = "z1 +\n  foo * 2\n+ 3"
    with pytest.raises(FormulaError) as caught:
        FormulaTarget(text, 2)
    assert caught.value.pointer(text) == "  foo * 2\n  ^"


@pytest.mark.parametrize("nest", ["({})", "-{}", "exp({})", "2^{}", "norm(1, {})"])
def test_nesting_without_end_is_refused(nest):
    opening, closing = nest.split("{}")
    levels = MAX_LENGTH // (len(nest) - 2) - 1
    with pytest.raises(FormulaError, match=r"too|at most"):
        FormulaTarget(opening * levels + "1" + closing * levels, 1)


def test_length_and_size_are_limited():
    with pytest.raises(FormulaError, match=f"at most {MAX_LENGTH} characters") as caught:
        FormulaTarget("1" + " " * MAX_LENGTH, 1)
    assert caught.value.position == MAX_LENGTH + 1
    longest = "z1" + "+z1" * (MAX_NODES // 2 - 1)
    z = torch.ones(1, 1, requires_grad=True)
    evaluate(longest, z).sum().backward()
    assert z.grad is not None
    assert float(z.grad) == MAX_NODES // 2
    with pytest.raises(FormulaError, match=f"at most {MAX_NODES} numbers"):
        FormulaTarget(longest + "+z1+z1", 1)


def test_dimensions_that_do_not_fit_are_refused():
    with pytest.raises(FitError, match="at least 1"):
        FormulaTarget("1", 0)
    with pytest.raises(FitError, match="2 coordinates"):
        FormulaTarget("1", 2, window=Window((0.0,), (1.0,)))


Tree = tuple[str, Tensor]


def _leaves() -> st.SearchStrategy[Tree]:
    numbers = st.floats(0, 1e6).map(lambda v: (repr(v), torch.full((3,), v, dtype=torch.float64)))
    return st.one_of(numbers, st.just(("z1", Z1)), st.just(("z2", Z2)))


def _grown(trees: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Bigger trees: their fully or sparingly bracketed text and their value."""
    binary: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "+": torch.add,
        "-": torch.sub,
        "*": torch.mul,
        "/": torch.div,
        "^": torch.pow,
    }
    spaces = st.sampled_from(["", " ", "\n "])
    return st.one_of(
        st.builds(
            lambda op, a, b, space: (
                f"({a[0]}){space}{op}{space}({b[0]})",
                binary[op](a[1], b[1]),
            ),
            st.sampled_from(sorted(binary)),
            trees,
            trees,
            spaces,
        ),
        st.builds(lambda a: (f"-({a[0]})", -a[1]), trees),
        st.builds(
            lambda name, a: (f"{name}({a[0]})", FUNCTIONS[name][0](a[1])),
            st.sampled_from([name for name, (_, arity) in FUNCTIONS.items() if arity == (1, 1)]),
            trees,
        ),
        st.builds(
            lambda name, a, b: (f"{name}({a[0]}, {b[0]})", FUNCTIONS[name][0](a[1], b[1])),
            st.sampled_from([name for name, (_, arity) in FUNCTIONS.items() if arity != (1, 1)]),
            trees,
            trees,
        ),
    )


@settings(deadline=None, max_examples=40)
@given(st.recursive(_leaves(), _grown, max_leaves=20))
def test_random_expressions_evaluate_as_their_trees(tree):
    text, expected = tree
    torch.testing.assert_close(evaluate(text), expected, equal_nan=True)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["+", "-", "*", "/", "**"]), min_size=1, max_size=8), st.data())
def test_operators_without_brackets_bind_as_in_python(operators, data):
    signed = st.sampled_from(["z1", "z2", "-z1", "+z2", "2", "- 0.5"])
    terms = data.draw(st.lists(signed, min_size=len(operators) + 1, max_size=len(operators) + 1))
    text = terms[0] + "".join(f" {op} {b}" for op, b in zip(operators, terms[1:], strict=True))
    number = lambda v: torch.full((3,), v, dtype=torch.float64)  # noqa: E731
    python = text.replace("2", "number(2.0)").replace("0.5", "number(0.5)")
    python = python.replace("znumber(2.0)", "z2")
    names = {"z1": Z1, "z2": Z2, "number": number}
    expected = eval(python, {}, names)  # noqa: S307  of this test's own text: the reference
    torch.testing.assert_close(evaluate(text), expected, equal_nan=True)


@settings(deadline=None, max_examples=75)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="z12.e()+-*/^, expmaxlog_\n", max_size=60),
        st.lists(
            st.sampled_from(["z1", "z2", "(", ")", "+", "-", "**", "exp", ",", "1e3", "max(", " "]),
            max_size=20,
        ).map("".join),
    )
)
def test_junk_raises_nothing_but_the_parsers_own_error(text):
    try:
        target = FormulaTarget(text, 2)
    except FormulaError as error:
        assert 1 <= error.position <= len(text) + 1  # noqa: PT017  not always raised
        assert error.pointer(text).endswith("^")  # noqa: PT017
    else:
        assert target.log_density(Z).shape == (3,)
