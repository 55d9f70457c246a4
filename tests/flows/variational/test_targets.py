import math

import pytest
import torch

from flows import POTENTIALS, FitError, Potential, Window


def value(name: str, z1: float, z2: float) -> float:
    z = torch.tensor([[z1, z2]], dtype=torch.float64)
    return float(Potential(name).log_density(z))


def bell(distance: float) -> float:
    return math.exp(-0.5 * distance**2)


# Each potential at points where its terms can be read off by hand.
BY_HAND = [
    # On the ring at a bright spot: the ring's term is 0, the other spot is 4 / 0.6 away.
    ("U1", 2.0, 0.0, math.log(1 + bell(4 / 0.6))),
    ("U1", 0.0, 2.0, math.log(2 * bell(2 / 0.6))),
    ("U1", 0.0, 0.0, -0.5 * 5**2 + math.log(2 * bell(2 / 0.6))),
    ("U2", 0.0, 0.0, 0.0),
    ("U2", 1.0, 1.0, 0.0),  # the crest of the wave
    ("U2", 3.0, -1.0, 0.0),
    ("U2", 1.0, 0.2, -0.5 * 2**2),
    # At z1 = 1 the wave is at 1 and w2 = 3: the branches are at 1 and -2.
    ("U3", 1.0, 1.0, math.log(1 + bell(3 / 0.35))),
    ("U3", 1.0, -2.0, math.log(1 + bell(3 / 0.35))),
    # Without the square in w2 the branches would not meet again on the left.
    ("U3", -3.0, 1.0, math.log(2)),
    # At z1 = 1, w3 = 1.5: the branches are at 1 and -0.5.
    ("U4", 1.0, 1.0, math.log(1 + bell(1.5 / 0.35))),
    ("U4", 1.0, -0.5, math.log(1 + bell(1.5 / 0.4))),
    ("U5", 0.0, 4.0, math.log(2 * bell(2 / 0.8))),
    ("U5", 4.0, 0.0, math.log(bell(2 / 0.8) + bell(6 / 0.8))),
]


@pytest.mark.parametrize(("name", "z1", "z2", "expected"), BY_HAND)
def test_potentials_have_the_values_computed_by_hand(name, z1, z2, expected):
    assert value(name, z1, z2) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["U1", "U5"])
def test_rings_are_symmetric_in_both_coordinates(name):
    z = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    target = Potential(name)
    for signs in ([-1, 1], [1, -1], [-1, -1]):
        mirrored = target.log_density(z * torch.tensor(signs))
        torch.testing.assert_close(mirrored, target.log_density(z))


def test_the_plain_wave_is_symmetric_under_a_half_turn_and_periodic():
    z = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 2
    target = Potential("U2")
    torch.testing.assert_close(target.log_density(-z), target.log_density(z))
    shifted = z + torch.tensor([4.0, 0.0])
    torch.testing.assert_close(target.log_density(shifted), target.log_density(z))


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_waves_end_at_a_wall_outside_the_window(name):
    inside, outside, far = (value(name, z1, 0.0) for z1 in (4.0, 4.1, 8.0))
    assert outside < inside
    assert far < -700
    near, wide = (integral(name, reach) for reach in (5.0, 9.0))
    assert wide == pytest.approx(near, rel=1e-3)


def integral(name: str, reach: float) -> float:
    axis = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    density = Potential(name).log_density(torch.cartesian_prod(axis, axis)).exp()
    return float(density.sum()) * (2 * reach / 800) ** 2


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_window_of_a_potential_holds_its_mass(name):
    target = Potential(name)
    assert target.window is not None
    axis = torch.linspace(-9, 9, 901, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    mass = target.log_density(z).exp()
    inside = (z.abs() <= target.window.upper[0]).all(dim=1)
    assert float(mass[inside].sum() / mass.sum()) > 0.96


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_gradients_of_potentials_equal_finite_differences(name):
    z = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(Potential(name).log_density, z.requires_grad_())


def test_unknown_potentials_are_refused():
    with pytest.raises(FitError, match="U1, U2, U3, U4, U5"):
        Potential("U6")


@pytest.mark.parametrize(
    ("lower", "upper"),
    [((), ()), ((0.0,), (1.0, 2.0)), ((1.0,), (1.0,)), ((0.0,), (math.inf,))],
)
def test_windows_that_hold_nothing_are_refused(lower, upper):
    with pytest.raises(ValueError, match="lower"):
        Window(lower, upper)
