"""MADEs: Gaussian, of 0 and 1, and averages over several masks."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import Flow, FlowError, MadeSpec, build, compile_flow, count_parameters
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.mask_ensemble import MaskEnsemble, choose_mask
from flows.bijections.autoregressive.masked import MaskedLinear, made_masks, run_masked
from flows.bijections.transformers import GaussianMixture
from flows.families.made import Made
from tests.flows.cases import CASES, draw, example_rows, jacobian, stirred, trained, trained_flow

OPTIMISERS = ["adam", "adamw", "adagrad", "sgd"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def conditioner_jacobians(layer: Autoregressive, row: Tensor) -> list[Tensor]:
    """The Jacobian of each parameter of all features, from the weights as they are, unmasked."""
    weights, biases, _ = layer.network()

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        every = run_masked(x[None], weights, biases, activation=layer.conditioner.activation)
        return every[0].chunk(layer.transformer.outputs)

    jacobians = torch.autograd.functional.jacobian(outputs, row)
    return list(jacobians) if isinstance(jacobians, tuple) else [jacobians]


def assert_strictly_triangular(layer: Autoregressive) -> None:
    for found in conditioner_jacobians(layer, draw(layer.dim, seed=1)):
        assert torch.equal(found, found.tril(-1))
        assert layer.dim == 1 or bool((found != 0).any())


@every_case
def test_jacobians_of_conditioners_are_strictly_triangular(case):
    for layer in trained_flow(case, 5).modules():
        if isinstance(layer, Autoregressive):
            assert_strictly_triangular(layer)


@pytest.mark.parametrize("conditional", ["gaussian", "bernoulli", "mixture"])
@pytest.mark.parametrize("fields", [{}, {"direct": True, "mask_weights": True}], ids=["", "direct"])
def test_jacobians_of_every_mask_are_strictly_triangular_in_its_own_order(conditional, fields):
    spec = MadeSpec(conditional=conditional, components=2, hidden=[20, 15], masks=3, **fields)
    ensemble = build(spec, 5, seed=2).double().transform
    assert isinstance(ensemble, MaskEnsemble)
    row = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for mask in range(3):
        order = ensemble.orders[mask]

        def outputs(x: Tensor, *, mask: int = mask) -> Tensor:
            return ensemble.parameters_of(x[None], None, mask)[:, 0]

        jacobians = torch.autograd.functional.jacobian(outputs, row)
        assert isinstance(jacobians, Tensor)
        for found in jacobians:
            ordered = found[order][:, order]
            assert torch.equal(ordered, ordered.tril(-1))
            assert bool((ordered != 0).any())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_no_optimiser_or_weight_decay_leaves_the_masks(optimiser):
    rows = example_rows(200, 5)
    flow = build(MadeSpec(hidden=[16, 16]), 5, standardise=(rows.mean(0), rows.std(0)), seed=0)
    before = copy.deepcopy(flow.state_dict())
    trained(
        flow, rows[:150], rows[150:], optimiser=optimiser, learning_rate=0.01, weight_decay=0.1,
        batch_size=20, max_epochs=3,
    )  # fmt: skip
    for name, layer in flow.named_modules():
        if isinstance(layer, MaskedLinear):
            assert bool((layer.weight[layer.mask == 0] == 0).all())
            assert not torch.equal(layer.weight, before[f"{name}.weight"])


def made_of(flow: Flow) -> Made:
    (made,) = flow.transform.parts()
    assert isinstance(made, Made)
    return made


def test_masks_outlast_other_optimisers_loaded_weights_and_copies_of_another_precision():
    flow = build(MadeSpec(hidden=[16]), 4, seed=0).train()
    optimiser = torch.optim.RMSprop(flow.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        (-flow.log_prob(torch.randn(20, 4)).mean()).backward()
        optimiser.step()
    exact = copy.deepcopy(flow).double()
    assert_strictly_triangular(made_of(exact))
    assert all(mask.dtype == torch.float64 for mask in made_of(exact).network()[2])
    exact.load_state_dict({k: torch.randn_like(v) for k, v in exact.state_dict().items()})
    assert_strictly_triangular(made_of(exact))


def test_a_random_order_conditions_each_feature_on_those_before_it_in_that_order():
    flow = build(MadeSpec(hidden=[32], order="random"), 5, seed=3).double()
    order = flow.transform.parts()[0].get_buffer("order")
    found = jacobian(flow, draw(5))[:, order]
    assert torch.equal(found, found.tril())
    assert order.tolist() != list(range(5))


def flow_of(name, dim):
    return stirred(build(SPECS[name], dim, seed=1), 0.3).double().eval()


SPECS = {
    "bernoulli": MadeSpec(conditional="bernoulli", hidden=[16]),
    "bernoulli-random": MadeSpec(conditional="bernoulli", hidden=[12, 9], order="random"),
    "bernoulli-masks": MadeSpec(conditional="bernoulli", hidden=[12], masks=3, activation="relu"),
    "bernoulli-direct": MadeSpec(conditional="bernoulli", hidden=[9], order="random", direct=True),
    "bernoulli-masks-direct": MadeSpec(
        conditional="bernoulli", hidden=[12, 9], masks=3, direct=True, mask_weights=True
    ),
    "gaussian-masks": MadeSpec(hidden=[12, 8], masks=3),
    "gaussian-masks-direct": MadeSpec(hidden=[12], masks=2, direct=True, mask_weights=True),
    "mixture-masks": MadeSpec(conditional="mixture", components=2, hidden=[12], masks=2),
}
BINARY = [name for name in SPECS if name.startswith("bernoulli")]
every_spec = pytest.mark.parametrize("name", SPECS)


def rows_of(name, rows, dim):
    if name in BINARY:
        generator = torch.Generator().manual_seed(2)
        return torch.randint(0, 2, (rows, dim), generator=generator).double()
    return (example_rows(rows, dim) - 10) / 2


def every_vector(dim):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=dim)), dtype=torch.float64)


@pytest.mark.parametrize("name", BINARY)
def test_probabilities_of_all_binary_vectors_sum_to_1(name):
    assert [one for one, spec in SPECS.items() if spec.is_binary] == BINARY
    for dim in (1, 2, 5, 10):
        with torch.no_grad():
            total = float(flow_of(name, dim).log_prob(every_vector(dim)).exp().sum())
        assert total == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", ["gaussian-masks", "gaussian-masks-direct", "mixture-masks"])
@pytest.mark.parametrize("dim", [1, 2])
def test_an_average_over_masks_integrates_to_1(name, dim):
    axis = torch.linspace(-40, 40, 8001 if dim == 1 else 801, dtype=torch.float64)
    cells = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    with torch.no_grad():
        total = float(flow_of(name, dim).log_prob(cells).exp().sum())
    assert total * float(axis[1] - axis[0]) ** dim == pytest.approx(1, abs=2e-3)


@every_spec
def test_compiled_flow_equals_the_reference(name):
    flow, x = flow_of(name, 4), rows_of(name, 300, 4)
    compiled = compile_flow(flow)
    with torch.no_grad():
        expected = flow.log_prob(x)
    np.testing.assert_allclose(compiled.log_prob(x.numpy()), expected, rtol=1e-4, atol=1e-4)
    same = flow.sample(200, generator=torch.Generator().manual_seed(3))
    found = compiled.sample(200, seed=3)
    close = np.isclose(found, same, rtol=1e-3, atol=1e-3).all(axis=1)
    assert close.mean() > 0.99  # a number at a threshold may fall on either side


@pytest.mark.parametrize("name", BINARY)
def test_binary_samples_follow_the_probabilities(name):
    dim, n = 3, 20_000
    flow = flow_of(name, dim)
    samples = compile_flow(flow).sample(n, seed=0)
    assert set(np.unique(samples)) <= {0.0, 1.0}
    code = (samples @ [4, 2, 1]).astype(int)
    with torch.no_grad():
        expected = flow.log_prob(every_vector(dim)).exp().numpy() * n
    chi_square = ((np.bincount(code, minlength=8) - expected) ** 2 / expected).sum()
    assert chi_square < 7 + 5 * 14**0.5


def test_gaussian_samples_over_masks_follow_the_density():
    flow = flow_of("gaussian-masks", 1)
    samples = torch.from_numpy(compile_flow(flow).sample(20_000, seed=0))[:, 0]
    edges = torch.linspace(-6, 6, 41, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    with torch.no_grad():
        expected = flow.log_prob(middle[:, None]).exp() * 0.3 * len(samples)
    counts = torch.histogram(samples, edges).hist
    filled = expected > 20
    assert bool(((counts - expected)[filled].abs() < 5 * expected[filled].sqrt() + 20).all())


@every_spec
def test_there_is_no_noise_and_that_is_said(name):
    flow, x = flow_of(name, 3), rows_of(name, 4, 3)
    assert not flow.has_noise
    with pytest.raises(FlowError, match="no noise"):
        flow.inverse(x)
    with pytest.raises(FlowError, match="no noise"):
        compile_flow(flow).inverse(x.numpy())


@every_spec
def test_parameters_are_counted_and_gradients_reach_them(name):
    for dim in (1, 4):
        flow = build(SPECS[name], dim, seed=0).double().eval()
        assert count_parameters(SPECS[name], dim) == sum(p.numel() for p in flow.parameters())
        flow.log_prob(rows_of(name, 30, dim)).sum().backward()
        for key, parameter in flow.named_parameters():
            assert parameter.grad is not None, key
            assert dim == 1 or bool((parameter.grad != 0).any()), key


def test_training_takes_the_masks_in_turns():
    flow = flow_of("gaussian-masks", 3).train()
    ensemble = flow.transform
    assert isinstance(ensemble, MaskEnsemble)
    x = rows_of("gaussian-masks", 10, 3)
    scores = [flow.log_prob(x) for _ in range(6)]
    for first, again in zip(scores[:3], scores[3:], strict=True):
        assert torch.equal(first, again)
    flow.eval()
    mean = torch.logsumexp(torch.stack(scores[:3]), dim=0) - torch.tensor(3.0).log()
    torch.testing.assert_close(flow.log_prob(x), mean)


def test_units_know_their_mask_by_a_bias_of_its_own():
    flow = flow_of("bernoulli-masks-direct", 4)
    ensemble = flow.transform
    assert isinstance(ensemble, MaskEnsemble)
    assert ensemble.mask_weights is not None
    x = rows_of("bernoulli-masks-direct", 5, 4)
    masks = made_masks(ensemble.degrees(1), 1, direct=True)
    pairs = zip(ensemble.weights, ensemble.mask_weights, ensemble.biases, masks, strict=True)
    first, second, last = [
        (weight * mask, (known * mask).sum(dim=1) / mask.shape[1] ** 0.5 + bias)
        for weight, known, bias, mask in pairs
    ]
    h = torch.tanh(x @ first[0].t() + first[1])
    h = torch.tanh(h @ second[0].t() + second[1])
    out = torch.cat([h, x], dim=1) @ last[0].t() + last[1]
    torch.testing.assert_close(ensemble.parameters_of(x, None, 1)[0], out)


def test_a_value_that_is_neither_0_nor_1_has_no_probability():
    flow = flow_of("bernoulli", 3)
    x = torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 1.0]], dtype=torch.float64)
    scores = flow.log_prob(x)
    assert scores[0] == -torch.inf
    assert bool(scores[1].isfinite())
    assert compile_flow(flow).log_prob(x.numpy())[0] == -np.inf


def test_bernoulli_made_learns_a_dependence():
    first = torch.randint(0, 2, (1000, 1), generator=torch.Generator().manual_seed(0)).float()
    rows = torch.cat([first, 1 - first], dim=1)
    flow = build(MadeSpec(conditional="bernoulli", hidden=[8]), 2, seed=0)
    last = trained(flow, rows[:800], rows[800:], learning_rate=0.05, max_epochs=30)
    assert last.best_validation_log_likelihood == pytest.approx(-np.log(2), abs=0.02)


def test_what_is_left_of_the_noise_is_gaussian_and_independent_of_the_mask():
    u = draw(50_000, 2).float()
    chosen, left = choose_mask(u, 5)
    assert torch.bincount(chosen).min() > 9_500
    for mask in range(5):
        part = left[chosen == mask, 0]
        assert abs(float(part.mean())) < 0.05
        assert float(part.std()) == pytest.approx(1, abs=0.03)
    assert torch.equal(left[:, 1], u[:, 1])


def test_a_mixture_keeps_its_noise_far_outside_the_data():
    parameters = torch.tensor([0.3, -0.2, -1.0, 2.0, 0.1, -0.5], dtype=torch.float64)
    x = torch.tensor([-200.0, -30.0, 0.0, 25.0, 300.0], dtype=torch.float64)
    wide = parameters[:, None].repeat(1, 5).requires_grad_()
    u, log_det = GaussianMixture(2).inverse(x, wide)
    assert bool((u.diff() > 0).all())
    expected = GaussianMixture(2).log_density(x, wide)
    torch.testing.assert_close(log_det - 0.5 * u**2 - 0.918938533204673, expected)
    back, _ = GaussianMixture(2).forward(u.detach(), wide.detach())
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    (grad,) = torch.autograd.grad(u.sum(), wide)
    assert bool(grad.isfinite().all())


def test_untrained_mask_weights_change_nothing_and_need_several_masks():
    plain, x = MadeSpec(hidden=[9], masks=2), rows_of("gaussian-masks", 5, 4)
    specs = plain, dataclasses.replace(plain, mask_weights=True)
    assert torch.equal(*(build(spec, 4, seed=0).double().eval().log_prob(x) for spec in specs))
    with pytest.raises(ValueError, match="mask_weights needs masks above 1"):
        MadeSpec(mask_weights=True)


@pytest.mark.parametrize("conditional", ["bernoulli", "mixture"])
def test_networks_are_separate_for_one_gaussian_alone(conditional):
    with pytest.raises(ValueError, match="separate_networks needs conditional gaussian"):
        MadeSpec(separate_networks=True, conditional=conditional)
