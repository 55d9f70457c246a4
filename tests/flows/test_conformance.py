"""What every family must hold, untrained and after real training steps, in one to three dimensions, in float64."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows import (
    EnsembleSpec,
    Flow,
    FlowError,
    MafSpec,
    Space,
    SpecError,
    build,
    check_dim,
    compile_flow,
    count_parameters,
    ensemble_of,
)
from flows.bijections.autoregressive.masked import MaskedLinear
from tests.flows.cases import (
    CASES,
    Case,
    example_rows,
    find,
    fresh_flow,
    grid,
    is_packed,
    trained_flow,
)

DIM = 3


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def every_flow(case: Case, *, most: int = DIM) -> list[Flow]:
    """The flow untrained and trained, in each dimension."""
    dims = range(case.min_dim, most + 1)
    return [make(case, dim) for dim in dims for make in (fresh_flow, trained_flow)]


@every_case
def test_inverse_undoes_forward(case):
    for flow in every_flow(case):
        x = example_rows(40, flow.dim, seed=1)
        with torch.no_grad():
            u, log_det = flow.inverse(x)
            back, log_det_back = flow.forward(u)
        torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)


@every_case
def test_log_det_equals_that_of_autograds_jacobian(case):
    for flow in every_flow(case):
        x = example_rows(4, flow.dim, seed=1).requires_grad_()
        u, inverse_log_det = flow.inverse(x)
        noise = u.detach().requires_grad_()
        back, forward_log_det = flow.forward(noise)
        for found, log_det in (
            (_jacobians(u, x), inverse_log_det),
            (_jacobians(back, noise), forward_log_det),
        ):
            torch.testing.assert_close(found.slogdet().logabsdet, log_det)


def _jacobians(results: Tensor, rows: Tensor) -> Tensor:
    """The Jacobian of each row; `sum` is right as no row's result depends on another row."""
    columns = [
        torch.autograd.grad(column.sum(), rows, retain_graph=True)[0]
        for column in results.unbind(dim=1)
    ]
    return torch.stack(columns, dim=1)


@every_case
def test_density_integrates_to_1(case):
    for flow in every_flow(case, most=2):
        fine, coarse = 0.0, 1.0
        for points in (401, 2001, 8001) if flow.dim == 1 else (101, 201, 401, 801):
            fine, coarse = _integrals(flow, points=points)
            if abs(fine - coarse) < 1e-3:  # fine enough for this density
                break
        assert fine == pytest.approx(1, abs=2e-3)


def _integrals(flow: Flow, *, points: int) -> tuple[float, float]:
    """The integral of the density on a regular grid, and on every second point of it."""
    rows, volume = grid(flow, points=points, reach=30.0)
    with torch.no_grad():
        density = torch.cat([flow.log_prob(chunk).exp() for chunk in rows.split(50_000)])
    density = density.view([points] * flow.dim)
    every_second = density[(slice(None, None, 2),) * flow.dim]
    return float(density.sum()) * volume, float(every_second.sum()) * volume * 2**flow.dim


@every_case
def test_a_rows_score_does_not_depend_on_the_rows_beside_it(case):
    for flow in every_flow(case):
        x = example_rows(12, flow.dim, seed=1)
        with torch.no_grad():
            together = flow.log_prob(x)
            alone = torch.cat([flow.log_prob(row[None]) for row in x])
            chunked = torch.cat([flow.log_prob(rows) for rows in x.split(5)])
        torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(chunked, together, rtol=1e-12, atol=1e-10)


@every_case
def test_gradients_reach_every_parameter_in_both_directions(case):
    # In evaluation mode: a batch norm of a batch takes off any shift in front of it.
    flow, rows = fresh_flow(case, 5), example_rows(50, 5)
    x, log_det = flow.forward(flow.inverse(rows)[0].detach())
    for loss in (flow.log_prob(rows).sum(), x.square().sum() + log_det.sum()):
        flow.zero_grad()
        loss.backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert bool((parameter.grad != 0).any()), name


@every_case
def test_first_and_second_derivatives_equal_finite_differences(case):
    flow = trained_flow(case, DIM).train()
    # Of 2 rows, batch norm would leave nothing but signs.
    x = example_rows(3, DIM, seed=1).requires_grad_()
    noise = torch.randn(2, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(flow.inverse, x, fast_mode=True)
    assert torch.autograd.gradcheck(flow.forward, noise.requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(flow.log_prob, x, fast_mode=True)


@every_case
def test_parameter_gradients_equal_finite_differences(case):
    flow = trained_flow(case, DIM).train()
    x = example_rows(6, DIM, seed=1)
    flow.log_prob(x).sum().backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None
        mask = _mask_of(flow, name)
        step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * mask
        numeric = _difference(flow, parameter, step, x)
        expected = float((parameter.grad * step).sum())
        assert numeric == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def _mask_of(flow: Flow, name: str) -> Tensor:
    module = flow.get_submodule(name.rpartition(".")[0])
    if isinstance(module, MaskedLinear) and name.endswith("weight"):
        return module.mask
    return torch.tensor(1.0)


def _difference(flow: Flow, parameter: Tensor, step: Tensor, x: Tensor) -> float:
    """The derivative of the sum of log densities along a step, by central differences."""
    sums = []
    with torch.no_grad():
        for move in (1e-6, -2e-6):
            parameter.add_(step, alpha=move)
            sums.append(float(flow.log_prob(x).sum()))
        parameter.add_(step, alpha=1e-6)
    return (sums[0] - sums[1]) / 2e-6


@every_case
def test_a_saved_flow_scores_the_same_to_the_bit(case):
    flow = trained_flow(case, DIM)
    x = example_rows(20, DIM, seed=1)
    other = fresh_flow(case, DIM, seed=99)
    other.load_state_dict(copy.deepcopy(flow.state_dict()))
    assert torch.equal(other.log_prob(x), flow.log_prob(x))
    assert torch.equal(copy.deepcopy(flow).log_prob(x), flow.log_prob(x))


@every_case
def test_samples_follow_the_density(case):
    flow = trained_flow(case, 2)
    generator = torch.Generator().manual_seed(0)
    check_samples(flow, flow.sample(6_000, generator=generator, space="model"))


def test_an_ensemble_is_the_mixture_of_its_members():
    members = [trained_flow(find(name), 2) for name in ("nsf", "maf", "gaussian-mixture")]
    with torch.no_grad():  # one that the others are far from
        members[0].preprocessing = members[1].preprocessing = members[2].preprocessing
        members[1].transform = fresh_flow(find("maf"), 2, seed=9).transform
    flow, weights = ensemble_of(members, [0.5, 0.2, 0.3]), torch.tensor([0.5, 0.2, 0.3]).log()
    rows = example_rows(50, 2)
    scores = torch.stack([member.log_prob(rows) for member in members])
    torch.testing.assert_close(flow.log_prob(rows), (scores + weights[:, None]).logsumexp(dim=0))
    generator = torch.Generator().manual_seed(0)
    check_samples(flow, flow.sample(6_000, generator=generator, space="model"))
    compiled = compile_flow(flow)
    drawn = compiled.sample(6_000, seed=0, space="model")
    check_samples(flow, torch.from_numpy(drawn).double())
    table = np.concatenate([rows.numpy(), [[np.nan, 0.0]]])
    for ask in (lambda: flow.inverse(rows), lambda: compiled.inverse(table)):
        with pytest.raises(FlowError, match="no noise"):
            ask()
    with pytest.raises(FlowError, match="parts"):
        flow.log_prob_parts(rows)
    nothing = np.append(np.zeros(len(rows)), np.nan)  # discrete
    expected = np.column_stack([nothing, compiled.log_prob(table)])
    np.testing.assert_array_equal(compiled.log_prob_parts(table), expected)
    assert compiled.explaining_passes == 0
    spec = EnsembleSpec(members=[MafSpec(layers=1, hidden=[8])] * 2, weights=[0.5, 0.5])
    conditional, context = build(spec, 2, context_dim=1, seed=0), example_rows(40, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = conditional.sample(40, generator=generator, context=context).numpy()
    found = compile_flow(conditional).sample(40, seed=0, context=context.numpy())
    np.testing.assert_allclose(found, drawn, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("differs", ["preprocessing", "context"])
def test_members_of_an_ensemble_are_given_the_same(differs):
    flows = [build(find("maf").spec, 2, context_dim=1, seed=seed) for seed in (0, 1)]
    moments = [(torch.zeros(count), torch.ones(count)) for count in (2, 1)]
    other = build(
        find("maf").spec,
        2,
        context_dim=1,
        standardise=moments[0] if differs == "preprocessing" else None,
        standardise_context=moments[1] if differs == "context" else None,
        seed=2,
    )
    ensemble_of(flows, [0.5, 0.5])
    with pytest.raises(FlowError, match=f"the same {differs}"):
        ensemble_of([flows[0], other], [0.5, 0.5])


def check_samples(flow: Flow, samples: Tensor) -> None:
    """Check by a chi-square test that samples in the model's space follow the density."""
    middles = torch.linspace(-4 + 1 / 16, 4 - 1 / 16, 64, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(middles, middles), space="model").exp()
    expected = (density / 8**2).view(16, 4, 16, 4).sum(dim=(1, 3)).flatten() * len(samples)
    inside = samples[(samples.abs() < 4).all(dim=1)]
    index = ((inside + 4) / 0.5).long()
    counts = torch.bincount(index[:, 0] * 16 + index[:, 1], minlength=256)
    filled = expected > 10
    chi_square = float(((counts - expected).square() / expected)[filled].sum())
    bins = int(filled.sum())
    assert bins > 30
    assert chi_square < bins + 5 * (2 * bins) ** 0.5


@every_case
def test_samples_are_the_same_whatever_their_number(case):
    flow = trained_flow(case, DIM)
    assert not case.spec.is_binary
    few = flow.sample(70, generator=torch.Generator().manual_seed(1))
    many = flow.sample(600, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(many[:70], few, rtol=1e-10, atol=1e-10)


@every_case
def test_an_empty_batch_gives_empty_results(case):
    flow = trained_flow(case, DIM)
    empty = torch.empty(0, DIM, dtype=torch.float64)
    with torch.no_grad():
        assert flow.log_prob(empty).shape == (0,)
        assert flow.forward(empty)[0].shape == (0, DIM)
    assert flow.sample(0, generator=torch.Generator()).shape == (0, DIM)


@every_case
def test_float32_is_close_to_float64(case):
    flow = trained_flow(case, DIM)
    x = example_rows(100, DIM, seed=1)
    with torch.no_grad():
        exact = flow.log_prob(x)
        rough = copy.deepcopy(flow).float().log_prob(x.float())
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-3)


@every_case
def test_compiled_flow_equals_the_reference(case):
    for dim in range(case.min_dim, DIM + 1):
        # The map of a mixture is steep between its components and in its tails: rounding grows there.
        _assert_compiled_alike(trained_flow(case, dim), 10 if "mixture" in case.name else 1)


def _assert_compiled_alike(flow: Flow, steep: int) -> None:
    compiled = compile_flow(flow)
    assert flow.preprocessing.standardise is not None
    data = example_rows(600, flow.dim, seed=1)
    model, outer = flow.preprocessing.standardise.inverse(data)
    spaces: list[tuple[Space, Tensor]] = [("data", data), ("model", model)]
    for space, x in spaces:
        with torch.no_grad():
            u, log_det = flow.inverse(x, space=space)
            log_prob = flow.log_prob(x, space=space)
        torch.testing.assert_close(log_prob + outer * (space == "model"), flow.log_prob(data))
        generator = torch.Generator().manual_seed(4)
        samples = flow.sample(300, generator=generator, space=space)
        _assert_close(compiled.log_prob(x.numpy(), space=space), log_prob)
        _assert_close(compiled.inverse(x.numpy(), space=space)[0], u, steep)
        _assert_close(compiled.inverse(x.numpy(), space=space)[1], log_det, steep)
        _assert_close(compiled.forward(u.numpy(), space=space)[0], x, steep)
        _assert_close(compiled.forward(u.numpy(), space=space)[1], -log_det, steep)
        _assert_close(compiled.sample(300, seed=4, space=space), samples, steep)


@every_case
def test_a_served_row_has_one_answer(case):
    """In any batch, and among few samples or many; to the bit where compiled loops serve the family."""
    compiled = compile_flow(trained_flow(case, DIM))
    tolerance = 0.0 if is_packed(compiled) else 1e-4
    samples = compiled.sample(530, seed=3)
    scores = compiled.log_prob(samples)
    for rows in (1, 9, 200):
        few = compiled.sample(rows, seed=3)
        np.testing.assert_allclose(few, samples[:rows], rtol=tolerance, atol=tolerance)
        alone = compiled.log_prob(samples[:rows])
        np.testing.assert_allclose(alone, scores[:rows], rtol=0, atol=tolerance)


@every_case
@pytest.mark.parametrize("bad", [1e300, 1e39, np.inf, np.nan])
def test_a_bad_value_spoils_its_own_row_alone(case, bad):
    """To the bit where compiled loops serve the family."""
    compiled = compile_flow(trained_flow(case, DIM))
    tolerance = 0.0 if is_packed(compiled) else 1e-4
    x = compiled.sample(40, seed=3)
    noise = compiled.inverse(x)[0]
    good = compiled.log_prob(x), compiled.forward(noise)[0]
    for column in range(DIM):
        spoilt, spoilt_noise = x.copy(), noise.copy()
        spoilt[7, column] = spoilt_noise[7, column] = bad
        scores = compiled.log_prob(spoilt)
        assert not scores[7] > -1e6
        for found, expected in zip((scores, compiled.forward(spoilt_noise)[0]), good, strict=True):
            others, wanted = np.delete(found, 7, axis=0), np.delete(expected, 7, axis=0)
            np.testing.assert_allclose(others, wanted, rtol=tolerance, atol=tolerance)


def _assert_close(found: np.ndarray, expected: Tensor, steep: int = 1) -> None:
    expected_values = expected.numpy()
    np.testing.assert_allclose(found, expected_values, rtol=steep * 1e-4, atol=steep * 5e-4)


@every_case
def test_parameters_are_counted_without_building(case):
    for dim in range(case.min_dim, DIM + 1):
        flow = build(case.spec, dim, seed=0)
        assert count_parameters(case.spec, dim) == sum(p.numel() for p in flow.parameters())
        held = [*flow.transform.parameters(), *flow.transform.buffers()]
        assert case.spec.cost(dim).flow_bytes >= sum(one.nbytes for one in held)


@every_case
def test_the_width_is_that_of_the_widest_hidden_layer(case):
    networks = [
        network
        for network in build(case.spec, DIM, seed=0).modules()
        if isinstance(network, nn.ModuleList)
        and all(isinstance(layer, nn.Linear | MaskedLinear) for layer in network)
    ]
    hidden = [len(next(layer.parameters())) for network in networks for layer in list(network)[:-1]]
    # Two networks that are computed as one have both of their hidden layers in it.
    both = 2 if getattr(case.spec, "separate_networks", False) else 1
    assert case.spec.cost(DIM).width * both == max(hidden, default=0)


@every_case
def test_a_dimension_without_a_flow_is_refused_with_a_reason(case):
    for dim in range(case.min_dim):
        with pytest.raises(SpecError, match="at least") as caught:
            check_dim(case.spec, dim)
        assert caught.value.code == "dimension-unsupported"
    check_dim(case.spec, case.min_dim)


@every_case
def test_the_same_seed_builds_the_same_flow_and_leaves_the_global_generator_alone(case):
    before = torch.random.get_rng_state()
    x = example_rows(10, 4).float()
    scores = [build(case.spec, 4, seed=seed).log_prob(x) for seed in (1, 1, 2)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert torch.equal(torch.random.get_rng_state(), before)
