import copy

import pytest
import torch
from torch import Tensor

from flows import FitOptions, Flow, MadeSpec, build, fit
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.mask_ensemble import MaskEnsemble
from flows.bijections.autoregressive.masked import MaskedLinear, run_masked
from flows.families.made import Made
from tests.flows.cases import CASES, example_rows, trained_flow

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
    row = torch.randn(layer.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for jacobian in conditioner_jacobians(layer, row):
        assert torch.equal(jacobian, jacobian.tril(-1))
        assert layer.dim == 1 or bool((jacobian != 0).any())


def autoregressive_layers(flow: Flow) -> list[Autoregressive]:
    return [module for module in flow.modules() if isinstance(module, Autoregressive)]


@every_case
def test_jacobians_of_conditioners_are_strictly_triangular(case):
    for layer in autoregressive_layers(trained_flow(case, 5)):
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
        for jacobian in jacobians:
            ordered = jacobian[order][:, order]
            assert torch.equal(ordered, ordered.tril(-1))
            assert bool((ordered != 0).any())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_no_optimiser_or_weight_decay_leaves_the_masks(optimiser):
    rows = example_rows(200, 5)
    flow = build(MadeSpec(hidden=[16, 16]), 5, standardise=(rows.mean(0), rows.std(0)), seed=0)
    options = FitOptions(
        optimiser=optimiser, learning_rate=0.01, weight_decay=0.1, batch_size=20, max_epochs=3
    )
    before = copy.deepcopy(flow.state_dict())
    for _ in fit(flow, rows[:150], rows[150:], options=options):
        pass
    for name, layer in flow.named_modules():
        if isinstance(layer, MaskedLinear):
            assert bool((layer.weight[layer.mask == 0] == 0).all())
            assert not torch.equal(layer.weight, before[f"{name}.weight"])


def test_an_optimiser_of_the_callers_own_stays_inside_the_masks():
    flow = build(MadeSpec(hidden=[16]), 4, seed=0).train()
    optimiser = torch.optim.RMSprop(flow.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        (-flow.log_prob(torch.randn(20, 4)).mean()).backward()
        optimiser.step()
    flow.double()
    (made,) = flow.transform.parts()
    assert isinstance(made, Made)
    assert_strictly_triangular(made)


def test_loading_weights_masks_them():
    flow = build(MadeSpec(hidden=[16]), 4, seed=0).double()
    flow.load_state_dict({k: torch.randn_like(v) for k, v in flow.state_dict().items()})
    (made,) = flow.transform.parts()
    assert isinstance(made, Made)
    assert_strictly_triangular(made)


def test_weights_that_were_changed_by_hand_cannot_leak():
    flow = build(MadeSpec(hidden=[16]), 4, seed=0).double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_()
    x = torch.randn(1, 4, dtype=torch.float64)
    with torch.no_grad():
        inverse = flow.inverse(x)[1]
    flow.train()
    jacobian = torch.autograd.functional.jacobian(lambda r: flow.inverse(r[None])[0][0], x[0])
    assert isinstance(jacobian, Tensor)
    assert torch.equal(jacobian, jacobian.tril())
    torch.testing.assert_close(jacobian.slogdet().logabsdet, inverse[0])


def test_masks_follow_a_copy_to_another_precision():
    flow = copy.deepcopy(build(MadeSpec(hidden=[16]), 4, seed=0)).double()
    (made,) = flow.transform.parts()
    assert isinstance(made, Made)
    assert all(mask.dtype == torch.float64 for mask in made.network()[2])
    assert_strictly_triangular(made)


def test_going_to_evaluation_between_loss_and_gradient_is_allowed():
    flow = build(MadeSpec(hidden=[16]), 4, seed=0)
    loss = flow.log_prob(torch.randn(8, 4)).sum()
    flow.eval()
    loss.backward()


def test_a_random_order_conditions_each_feature_on_those_before_it_in_that_order():
    flow = build(MadeSpec(hidden=[32], order="random"), 5, seed=3).double()
    order = flow.transform.parts()[0].get_buffer("order")
    x = torch.randn(5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda r: flow.inverse(r[None])[0][0], x)
    assert isinstance(jacobian, Tensor)
    assert torch.equal(jacobian[:, order], jacobian[:, order].tril())
    assert order.tolist() != list(range(5))
