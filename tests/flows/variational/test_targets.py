"""Targets, formulas and the plane that shows them."""

import doctest
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import (
    POTENTIALS,
    FitError,
    FormulaError,
    FormulaTarget,
    Potential,
    Window,
    density_in_plane,
)
from flows.variational.formula import CONSTANTS, FUNCTIONS, MAX_LENGTH, MAX_NODES
from tests.flows.cases import draw


def value(name: str, z1: float, z2: float) -> float:
    z = torch.tensor([[z1, z2]], dtype=torch.float64)
    return float(Potential(name).log_density(z))


def bell(distance: float) -> float:
    return math.exp(-0.5 * distance**2)


# Half of w2 at z1 = 1.6, and of w3 at z1 = 1.3.
HALF_W2, HALF_W3 = 1.5 * bell(1), 1.5 / (1 + math.exp(-1))

BY_HAND = [
    # On the ring at a bright spot: the ring's term is 0, the other spot is 4 / 0.6 away.
    ("U1", 2.0, 0.0, math.log(1 + bell(4 / 0.6))),
    ("U1", -2.0, 0.0, math.log(1 + bell(4 / 0.6))),
    ("U1", 0.0, 2.0, math.log(2 * bell(2 / 0.6))),
    ("U1", 0.0, -2.0, math.log(2 * bell(2 / 0.6))),
    ("U1", 0.0, 0.0, -0.5 * 5**2 + math.log(2 * bell(2 / 0.6))),
    ("U2", 0.0, 0.0, 0.0),
    ("U2", 1.0, 1.0, 0.0),  # the crest of the wave
    ("U2", 3.0, -1.0, 0.0),
    ("U2", -1.0, -1.0, 0.0),
    ("U2", 1.0, 0.2, -0.5 * 2**2),
    ("U2", 5.0, 1.0, -0.5 * 10**2),  # the crest of the next, 1 behind the wall
    # At z1 = 1 the wave is at 1 and w2 = 3: the branches are at 1 and -2.
    ("U3", 1.0, 1.0, math.log(1 + bell(3 / 0.35))),
    ("U3", 1.0, -2.0, math.log(1 + bell(3 / 0.35))),
    # Without the square in w2 the branches would not meet again on the left.
    ("U3", -3.0, 1.0, math.log(2)),
    ("U3", 1.6, math.sin(0.8 * math.pi) - HALF_W2, math.log(2 * bell(HALF_W2 / 0.35))),
    # At z1 = 1, w3 = 1.5: the branches are at 1 and -0.5.
    ("U4", 1.0, 1.0, math.log(1 + bell(1.5 / 0.35))),
    ("U4", 1.0, -0.5, math.log(1 + bell(1.5 / 0.4))),
    (
        *("U4", 1.3, math.sin(0.65 * math.pi) - HALF_W3),
        math.log(bell(HALF_W3 / 0.4) + bell(HALF_W3 / 0.35)),
    ),
    ("U5", 0.0, 4.0, math.log(2 * bell(2 / 0.8))),
    ("U5", 4.0, 0.0, math.log(bell(2 / 0.8) + bell(6 / 0.8))),
    ("U5", -4.0, 0.0, math.log(bell(2 / 0.8) + bell(6 / 0.8))),
]


@pytest.mark.parametrize(("name", "z1", "z2", "expected"), BY_HAND)
def test_potentials_have_the_values_computed_by_hand(name, z1, z2, expected):
    assert value(name, z1, z2) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_waves_end_at_a_wall_outside_the_window(name):
    inside, outside, far = (value(name, z1, 0.0) for z1 in (4.0, 4.1, 8.0))
    assert outside < inside
    assert far < -700


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_window_of_a_potential_holds_its_mass(name):
    target = Potential(name)
    assert target.window is not None
    axis = torch.linspace(-9, 9, 901, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    mass = target.log_density(z).exp()
    inside = (z.abs() <= target.window.upper[0]).all(dim=1)
    assert float(mass[inside].sum() / mass.sum()) > 0.96


@pytest.mark.parametrize(
    "target",
    [
        *map(Potential, POTENTIALS),
        FormulaTarget("-0.5 * (z1^2 + (z2 - z1^2)^2) + tanh(z1) * softplus(z2)", 2),
    ],
    ids=[*POTENTIALS, "formula"],
)
def test_gradients_equal_finite_differences(target):
    assert torch.autograd.gradcheck(target.log_density, draw(8, 2).requires_grad_())


def test_unknown_potentials_are_refused():
    with pytest.raises(FitError, match="U1, U2, U3, U4, U5"):
        Potential("U6")


@pytest.mark.parametrize(
    ("lower", "upper"), [((), ()), ((0.0,), (1.0, 2.0)), ((1.0,), (1.0,)), ((0.0,), (math.inf,))]
)
def test_windows_that_hold_nothing_are_refused(lower, upper):
    with pytest.raises(ValueError, match="lower"):
        Window(lower, upper)


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
        wanted = torch.full((3,), float(expected), dtype=torch.float64)
        torch.testing.assert_close(evaluate(text), wanted, msg=text)


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
    ("z1 ^ 2 +", 9, "invalid syntax"),
    (" z1 +", 6, "invalid syntax"),
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
    with pytest.raises(FormulaError) as caught:
        FormulaTarget(text := "z1 +\n  foo * 2\n+ 3", 2)
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


def test_a_plane_has_the_second_coordinate_in_rows_and_is_empty_where_nothing_is_finite() -> None:
    window = Window((0.0, 0.0), (1.0, 10.0))
    values = density_in_plane(FormulaTarget("z1 + z2", 2, window=window), size=3).log_density
    assert values.tolist() == [[-11.0, -10.5, -10.0], [-6.0, -5.5, -5.0], [-1.0, -0.5, 0.0]]
    square = FormulaTarget("log(z1)", 2, window=Window.square(1.0))
    values = density_in_plane(square, size=5).log_density
    assert torch.isneginf(values[:, :3]).all()
    assert values[:, 4].tolist() == [0.0] * 5
    plane = density_in_plane(Potential("U5"), size=20)
    assert plane.window == Potential("U5").window
    assert plane.log_density.max() == 0


@pytest.mark.parametrize(
    ("middle", "scale"),
    [((0.0, 0.0), 1.0), ((300.0, -2.0), 2.0), ((0.0, 0.5), 0.01), ((0, 0), 500)],
)
def test_a_window_holds_the_density_and_little_else(middle, scale):
    text = f"-0.5 * ((z1 - {middle[0]}) / {scale})^2 - 0.5 * ((z2 + {-middle[1]}) / {scale})^2"
    plane = density_in_plane(FormulaTarget(text, 2), size=80)
    window, values = plane.window, plane.log_density
    assert values.shape == (80, 80)
    reach = scale * math.sqrt(2 * 8)  # 8 nats below the peak
    for low, high, at in zip(window.lower, window.upper, middle, strict=True):
        assert low <= at - 0.9 * reach
        assert high >= at + 0.9 * reach
        assert high - low < 8 * reach


def test_a_density_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(FitError, match="two coordinates"):
        density_in_plane(FormulaTarget("z1", 1), size=8)
    with pytest.raises(FitError, match="nowhere"):
        density_in_plane(FormulaTarget("log(-1 - z1^2)", 2), size=8)


DOCS = Path(__file__).parents[3] / "docs" / "variational.md"


@pytest.mark.slow
def test_the_examples_print_what_the_docs_say():
    found = doctest.testfile(str(DOCS), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 10
    assert found.failed == 0


def test_the_docs_name_every_function_and_limit_of_formulas():
    text = DOCS.read_text()
    for name in FUNCTIONS:
        assert f"`{name}`" in text, name
    for name in CONSTANTS:
        assert f'"{name}"' in text, name
    assert f"{MAX_LENGTH:,} characters and {MAX_NODES:,}" in text
