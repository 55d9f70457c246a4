import pytest
import torch

from flows import FitOptions, GaussianSpec, build, evaluate, fit
from flows.families.gaussian import Gaussian


def gaussian(dim: int, *, full: bool = True, context_dim: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    layer = Gaussian(dim, full=full, generator=generator, context_dim=context_dim).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


@pytest.mark.parametrize("full", [True, False])
def test_the_density_is_that_of_torchs_gaussian(full):
    layer = gaussian(4, full=full)
    root = layer.log_scale.exp().diag()
    if layer.lower is not None:
        triangle = torch.eye(4, dtype=torch.float64)
        triangle[tuple(torch.tril_indices(4, 4, offset=-1))] = layer.lower
        root = root @ triangle
    reference = torch.distributions.MultivariateNormal(layer.shift, scale_tril=root)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, log_det = layer.inverse(x)
    base = torch.distributions.Normal(torch.zeros_like(u), 1.0)
    torch.testing.assert_close(base.log_prob(u).sum(dim=1) + log_det, reference.log_prob(x))


def test_maximum_likelihood_finds_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-2.0, 1.0, 0.5]])
    x = torch.randn(2000, 3, generator=generator) @ mix.t() + torch.tensor([5.0, 0.0, -1.0])
    flow = build(GaussianSpec(), 3, standardise=(x.mean(dim=0), x.std(dim=0)), seed=0)
    options = FitOptions(
        learning_rate=0.1, batch_size=500, max_epochs=60, patience=None, schedule="cosine"
    )
    for _ in fit(flow, x, x, options=options):
        pass
    reference = torch.distributions.MultivariateNormal(x.mean(dim=0), x.t().cov(correction=0))
    best = float(reference.log_prob(x).mean())
    assert best - 1e-3 < evaluate(flow, x).mean < best + 1e-5


@pytest.mark.parametrize("full", [True, False])
def test_a_context_moves_mean_and_scale_row_by_row(full):
    layer = gaussian(3, full=full, context_dim=2)
    context = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    u = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, log_det = layer.forward(u, context)
    assert layer.context_weight is not None
    moves, stretches = (context @ layer.context_weight.t()).chunk(2, dim=1)
    plain, plain_log_det = layer.forward(u)
    torch.testing.assert_close(log_det, plain_log_det + stretches.sum(dim=1))
    stretched = (plain - layer.shift) * stretches.exp() + layer.shift + moves
    torch.testing.assert_close(x, stretched)

    back, inverse_log_det = layer.inverse(x, context)
    torch.testing.assert_close(back, u)
    torch.testing.assert_close(inverse_log_det, -log_det)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("context_dim", [0, 3])
def test_parameters_with_a_context_are_counted(covariance, context_dim):
    spec = GaussianSpec(covariance=covariance)
    layer = spec.build(5, torch.Generator(), context_dim)
    expected = sum(parameter.numel() for parameter in layer.parameters())
    assert spec.count_parameters(5, context_dim) == expected


def test_an_unknown_covariance_is_refused(unchecked):
    with pytest.raises(ValueError, match="covariance must be one of diagonal, full"):
        unchecked(GaussianSpec, covariance="spherical")
