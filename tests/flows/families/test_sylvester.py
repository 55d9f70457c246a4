import pytest
import torch

from flows import SpecError, SylvesterSpec, build
from flows.families.sylvester import Sylvester, orthonormal


def _sylvester(dim: int, units: int, *, layers: int = 1) -> Sylvester:
    generator = torch.Generator().manual_seed(0)
    flow = Sylvester(dim, units, layers=layers, context_dim=0, generator=generator)
    return flow.double()


@pytest.mark.parametrize(("dim", "units"), [(1, 1), (3, 1), (4, 4), (9, 5), (40, 40)])
def test_the_basis_is_that_of_the_product_of_reflections(dim, units):
    vectors = torch.randn(2, dim, units, dtype=torch.float64)
    product = torch.eye(dim, dtype=torch.float64).expand(2, dim, dim)
    for unit in range(units):
        v = vectors[:, :, unit : unit + 1]
        reflection = torch.eye(dim) - 2 * v @ v.mT / v.square().sum(dim=1, keepdim=True)
        product = product @ reflection
    basis = orthonormal(vectors)
    torch.testing.assert_close(basis, product[:, :, :units])
    one = torch.eye(units, dtype=torch.float64).expand(2, units, units)
    torch.testing.assert_close(basis.mT @ basis, one)


def test_one_layer_is_the_equation_of_the_paper():
    flow = _sylvester(4, 3)
    with torch.no_grad():
        flow.raw.base.mul_(3)
    layers = flow._layers(None)
    q, r, s = layers.basis[0, 0], layers.outer[0, 0], layers.inner[0, 0]
    assert torch.equal(r, r.triu())
    assert torch.equal(s, s.triu())
    assert bool((r.diagonal() * s.diagonal() > -1).all())
    torch.testing.assert_close(1 + r.diagonal() * s.diagonal(), layers.gain[0, 0])
    u = torch.randn(10, 4, dtype=torch.float64)
    x, log_det = flow.forward(u)
    bend = torch.tanh(u @ q @ s.T + layers.bias[0])
    torch.testing.assert_close(x, u + bend @ (q @ r).T)
    small = torch.eye(3) + torch.diag_embed(1 - bend.square()) @ s @ r
    torch.testing.assert_close(log_det, small.logdet())


def test_units_default_to_the_features():
    flow = build(SylvesterSpec(layers=2), 5, seed=0)
    narrow = build(SylvesterSpec(layers=2, units=5), 5, seed=0)
    x = torch.randn(4, 5)
    assert torch.equal(flow.log_prob(x), narrow.log_prob(x))


def test_what_is_orthogonal_to_all_units_stays_where_it_is():
    flow = _sylvester(5, 2, layers=1)
    basis = flow._layers(None).basis[0, 0]
    u = torch.randn(8, 5, dtype=torch.float64)
    across = torch.eye(5) - basis @ basis.T
    torch.testing.assert_close(flow.forward(u)[0] @ across, u @ across)


def test_more_units_than_features_are_refused():
    with pytest.raises(SpecError, match="units needs at least 4 features") as caught:
        build(SylvesterSpec(units=4), 3, seed=0)
    assert caught.value.code == "dimension-unsupported"
