"""What every family that takes observation masks must hold, in float64."""

import copy

import pytest
import torch
from torch import Tensor

from flows import BatchNormSpec, FlowError, build
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import LEAST_OBSERVED, BatchNorm, set_dataset_statistics
from flows.bijections.compose import Chain
from flows.specs.spec import BATCH_NORM_EPS
from tests.flows.cases import CASES, RUNNING, Case, example_rows, find

MASKING = [case for case in CASES if case.spec.masks_columns]
MIXING = [case for case in CASES if not case.spec.masks_columns]
CONTEXT_DIM = 3

every_case = pytest.mark.parametrize("case", MASKING, ids=lambda case: case.name)


def transform(case: Case, dim: int, context_dim: int = 0) -> Bijection:
    """Layers with weights far from their initial ones, in evaluation mode."""
    flow = build(case.spec, dim, context_dim=context_dim, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        for part in flow.transform.parts():
            if isinstance(part, BatchNorm):
                part.mean.normal_(generator=generator)
                part.var.uniform_(0.3, 2, generator=generator)
    return flow.double().eval().transform


def rows_of(rows: int, dim: int, context_dim: int = 0) -> tuple[Tensor, Tensor | None, Tensor]:
    """Rows around 0, their context, and random masks, among them the one of no feature."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    context = torch.randn(rows, context_dim, generator=generator, dtype=torch.float64)
    observed = torch.randint(0, 2, (rows, dim), generator=generator).double()
    observed[0] = 0
    return x * observed, context if context_dim else None, observed


@every_case
def test_directions_cancel_and_what_is_not_observed_stays_0(case):
    for context_dim in (0, CONTEXT_DIM):
        layers = transform(case, 5, context_dim)
        x, context, observed = rows_of(12, 5, context_dim)
        u, log_det = layers.inverse(x, context, observed)
        back, back_log_det = layers.forward(u, context, observed)
        assert bool((u[layers.noise_mask(observed) == 0] == 0).all())
        assert bool((back[observed == 0] == 0).all())
        torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(back_log_det, -log_det, rtol=1e-8, atol=1e-8)


@every_case
def test_log_det_is_that_of_the_jacobian_of_the_observed_features(case):
    layers = transform(case, 4, CONTEXT_DIM)
    x, context, observed = rows_of(8, 4, CONTEXT_DIM)
    x.requires_grad_()
    u, log_det = layers.inverse(x, context, observed)
    noise_mask = layers.noise_mask(observed)
    assert noise_mask is not None
    columns = [torch.autograd.grad(c.sum(), x, retain_graph=True)[0] for c in u.unbind(1)]
    for jacobian, seen, of_noise, found in zip(
        torch.stack(columns, dim=1), observed > 0, noise_mask > 0, log_det, strict=True
    ):
        assert bool((jacobian[:, ~seen] == 0).all())
        inner = jacobian[of_noise][:, seen]
        torch.testing.assert_close(inner.slogdet().logabsdet, found, rtol=1e-6, atol=1e-8)


@every_case
def test_the_density_of_every_one_and_two_features_integrates_to_1(case):
    dim, context_dim = 3, CONTEXT_DIM
    layers = transform(case, dim, context_dim)
    # Dense around 0, where the density bends, and as far as its tails reach.
    t, step = torch.linspace(-4, 4, 161, dtype=torch.float64), 8 / 160
    axis, widths = torch.sinh(t), torch.cosh(t) * step
    for features in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]:
        cells, volumes = (
            torch.cartesian_prod(*[one] * len(features)).reshape(-1, len(features))
            for one in (axis, widths)
        )
        x, observed = torch.zeros(2, len(cells), dim, dtype=torch.float64)
        x[:, features], observed[:, features] = cells, 1.0
        context = rows_of(1, dim, context_dim)[1]
        given = None if context is None else context.expand(len(cells), -1)
        with torch.no_grad():
            density = layers.log_density(x, given, observed).exp()
        assert float(density @ volumes.prod(dim=1)) == pytest.approx(1, abs=5e-3), features
    nothing = torch.zeros(1, dim, dtype=torch.float64)
    assert layers.log_density(nothing, rows_of(1, dim, context_dim)[1], nothing).tolist() == [0]


@every_case
def test_a_mask_of_everything_changes_no_bit(case):
    x, context, _ = rows_of(40, 5, CONTEXT_DIM)
    for training in (False, True):
        layers = transform(case, 5, CONTEXT_DIM).train(training)
        found = _results(copy.deepcopy(layers), x, context, torch.ones_like(x))
        for one, other in zip(found, _results(layers, x, context, None), strict=True):
            # Statistics of a batch, and log-determinants of samplers, are summed in another order.
            if training or case.name in ("iaf", "naf-sampling"):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
            else:
                assert torch.equal(one, other)


def _results(
    layers: Bijection, x: Tensor, context: Tensor | None, observed: Tensor | None
) -> list[Tensor]:
    with torch.no_grad():
        density = layers.log_density(x, context, observed)
        u, log_det = layers.inverse(x, context, observed)
        return [density, u, log_det, *layers.forward(u, context, observed)]


@every_case
def test_values_under_the_mask_change_nothing(case):
    x, context, observed = rows_of(40, 5, CONTEXT_DIM)
    expected = transform(case, 5, CONTEXT_DIM).train().log_density(x, context, observed)
    for value in (7.5, torch.inf, torch.nan):
        layers = transform(case, 5, CONTEXT_DIM).train()
        spoilt = torch.where(observed > 0, x, value).requires_grad_()
        found = layers.log_density(spoilt, context, observed)
        assert torch.equal(found, expected)
        found.sum().backward()
        assert spoilt.grad is not None
        assert bool((spoilt.grad[observed == 0] == 0).all())
        for parameter in layers.parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@every_case
def test_derivatives_equal_finite_differences(case):
    layers = transform(case, 3, CONTEXT_DIM)
    x, context, observed = rows_of(4, 3, CONTEXT_DIM)
    assert context is not None
    inputs = [x.requires_grad_(), context.requires_grad_()]

    def density(*_: Tensor) -> Tensor:
        return layers.log_density(x, context, observed)

    assert torch.autograd.gradcheck(density, tuple(inputs), fast_mode=True)
    assert torch.autograd.gradgradcheck(density, tuple(inputs), fast_mode=True)


NORMALISED = [case for case in MASKING if getattr(case.spec, "batch_norm", None) is not None]


@pytest.mark.parametrize("case", NORMALISED, ids=lambda case: case.name)
def test_derivatives_pass_the_statistics_of_a_batch(case):
    layers = transform(case, 3, CONTEXT_DIM).train()
    x, context, observed = rows_of(2 * LEAST_OBSERVED, 3, CONTEXT_DIM)
    assert context is not None
    inputs = [x.requires_grad_(), context.requires_grad_()]
    norms = [part for part in layers.parts() if isinstance(part, BatchNorm)]
    weights = [weight for norm in norms for weight in norm.parameters()]

    def density(*_: Tensor) -> Tensor:
        return layers.log_density(x, context, observed)

    assert torch.autograd.gradcheck(density, (*inputs, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(density, tuple(inputs), fast_mode=True)


@every_case
def test_a_rows_score_does_not_depend_on_the_rows_beside_it(case):
    layers = transform(case, 5, CONTEXT_DIM)
    x, context, observed = rows_of(12, 5, CONTEXT_DIM)
    assert context is not None
    with torch.no_grad():
        together = layers.log_density(x, context, observed)
        alone = [
            layers.log_density(x[i, None], context[i, None], observed[i, None]) for i in range(12)
        ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-12, atol=1e-10)
    assert layers.log_density(x[:0], context[:0], observed[:0]).shape == (0,)
    assert layers.forward(x[:0], context[:0], observed[:0])[0].shape == (0, 5)


@pytest.mark.parametrize("case", MIXING, ids=lambda case: case.name)
def test_families_that_mix_features_refuse_and_name_those_that_do_not(case):
    layers = build(case.spec, 3, seed=0).transform
    x, observed = torch.zeros(2, 3), torch.ones(2, 3)
    for call in (layers.inverse, layers.forward, layers.log_density):
        with pytest.raises(FlowError, match="maf"):
            call(x, None, observed)


def norm_and_rows() -> tuple[BatchNorm, Tensor, Tensor]:
    """A layer, rows that are 0 where they are not observed, and the mask."""
    norm = BatchNorm(3, RUNNING).double().train()
    x, observed = example_rows(80, 3), torch.ones(80, 3, dtype=torch.float64)
    observed[::2, 0] = 0
    observed[LEAST_OBSERVED - 1 :, 1] = 0
    return norm, x * observed, observed


def test_statistics_of_a_batch_are_those_of_the_observed_values():
    norm, x, observed = norm_and_rows()
    u, log_det = norm.inverse(x, None, observed)
    for column in (0, 2):
        seen = observed[:, column] > 0
        values = x[seen, column]
        expected = (values - values.mean()) / (values.var(correction=0) + BATCH_NORM_EPS).sqrt()
        torch.testing.assert_close(u[seen, column], expected)
        torch.testing.assert_close(norm.mean[column], 0.5 * values.mean())
    std = (x[:, 2].var(correction=0) + BATCH_NORM_EPS).sqrt()
    assert bool((u[observed == 0] == 0).all())
    # A row of which the last feature alone is observed.
    torch.testing.assert_close(log_det[LEAST_OBSERVED + 8], -std.log())


def test_a_feature_that_is_hardly_observed_takes_the_stored_statistics():
    norm, x, observed = norm_and_rows()
    u, _ = norm.inverse(x, None, observed)
    seen = observed[:, 1] > 0
    torch.testing.assert_close(u[seen, 1], x[seen, 1] * (1 + BATCH_NORM_EPS) ** -0.5)
    assert (float(norm.mean[1]), float(norm.var[1])) == (0, 1)
    some = x[:8]  # few, but all of the batch
    assert_close = torch.testing.assert_close
    assert_close(norm.inverse(some, None, torch.ones_like(some))[0], norm.inverse(some)[0])


@pytest.mark.parametrize("chunk_rows", [7, 500])
def test_dataset_statistics_are_those_of_the_observed_values_at_every_layer(chunk_rows):
    layers = build(find("maf").spec, 4, context_dim=CONTEXT_DIM, seed=0).double().transform
    x, context, observed = rows_of(300, 4, CONTEXT_DIM)
    assert context is not None
    pieces = list(zip(*(t.split(chunk_rows) for t in (x, context, observed)), strict=True))
    with torch.no_grad():
        as_one_batch = layers.train().log_density(x, context, observed)
        set_dataset_statistics(layers.eval(), lambda: iter(pieces))
        torch.testing.assert_close(
            layers.log_density(x, context, observed), as_one_batch, rtol=1e-9, atol=1e-9
        )


def test_a_feature_observed_once_in_the_training_set_is_not_normalised():
    norm = BatchNorm(2, BatchNormSpec()).double().eval()
    x, observed = torch.randn(50, 2, dtype=torch.float64), torch.ones(50, 2, dtype=torch.float64)
    observed[1:, 1] = 0
    pieces = [(x * observed, None, observed)]
    set_dataset_statistics(Chain([norm]), lambda: iter(pieces))
    torch.testing.assert_close(norm.mean[0], x[:, 0].mean())
    assert (float(norm.mean[1]), float(norm.var[1])) == (0, 1)
