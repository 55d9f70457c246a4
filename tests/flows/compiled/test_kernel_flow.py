"""Flows that are read from stored arrays: bit by bit what PyTorch lays out for the same loops."""

import numpy as np
import pytest
import torch

from flows import (
    BatchNormSpec,
    MadeSpec,
    MafSpec,
    NsfSpec,
    RealNvpSpec,
    build,
    compile_flow,
    flow_cost,
)
from flows.compiled.kernel_flow import KernelFlow
from flows.engine.serving.packing import pack_layers
from flows.engine.stored import describe_stored

SPECS = [
    MafSpec(layers=3, hidden=[16, 9]),
    MafSpec(layers=2, hidden=[16], batch_norm=None, order="random", activation="relu"),
    MafSpec(layers=2, hidden=[12], base="made_mixture", components=3, log_scale_bound=5.0),
    MafSpec(layers=2, hidden=[12], batch_norm=BatchNormSpec("running"), log_scale_bound=2.0),
    NsfSpec(layers=2, hidden=[16], affine_layers=2),
    NsfSpec(layers=3, hidden=[8, 8], bins=5, tail_bound=3.0, activation="relu"),
    MadeSpec(hidden=[16], order="random"),
    MadeSpec(hidden=[16, 8], conditional="mixture", components=4),
]
MEAN, STD = torch.tensor([3.0, -2.0, 0.5, 0.0, 9.0]), torch.tensor([2.0, 0.1, 1.0, 7.0, 3.0])


def trained(spec, dim):
    """Return a flow whose numbers are not those of its start."""
    flow = build(spec, dim, standardise=(MEAN[:dim], STD[:dim]), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for name, values in flow.transform.state_dict().items():
        if values.is_floating_point():
            noise = torch.rand(values.shape, generator=generator)
            values.add_(noise if name.endswith("var") else 0.3 * (noise - 0.5))
    flow.load_state_dict(flow.state_dict())  # masks weights
    return flow


def of_arrays(spec, flow):
    stored = {name: values.numpy() for name, values in flow.transform.state_dict().items()}
    engine = pack_layers(describe_stored(spec, flow.dim, stored))
    assert engine is not None
    moments = np.stack([MEAN[: flow.dim].double().numpy(), STD[: flow.dim].double().numpy()])
    return KernelFlow(
        engine, moments, cost=flow_cost(spec, flow.dim), build=lambda: compile_flow(flow)
    )


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.family}-{SPECS.index(spec)}")
def test_scores_noise_and_rows_are_those_of_the_whole_flow(spec, dim):
    flow = trained(spec, dim)
    whole, kernels = compile_flow(flow), of_arrays(spec, flow)
    assert kernels.size_bytes == whole.size_bytes
    assert kernels.row_bytes == whole.row_bytes
    assert kernels.operations == whole.operations
    rows = np.random.default_rng(3).normal(size=(70, dim)) * 3
    rows[0, 0], rows[1, 0], rows[2] = np.nan, np.inf, 1e30
    for space in ("data", "model"):
        for x in (rows, rows[:1], rows.astype(np.float32)):
            np.testing.assert_array_equal(
                kernels.log_prob(x, space=space), whole.log_prob(x, space=space)
            )
            np.testing.assert_array_equal(
                kernels.log_prob_parts(x, space=space), whole.log_prob_parts(x, space=space)
            )
        for mine, theirs in zip(
            (*kernels.inverse(rows[3:], space=space), *kernels.forward(rows[3:], space=space)),
            (*whole.inverse(rows[3:], space=space), *whole.forward(rows[3:], space=space)),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_samples_are_those_of_the_whole_flow_and_scores_stay_as_they_are():
    spec = SPECS[0]
    flow = trained(spec, 3)
    kernels, rows = of_arrays(spec, flow), np.ones((4, 3))
    before = kernels.log_prob(rows)
    np.testing.assert_array_equal(kernels.sample(5, seed=7), compile_flow(flow).sample(5, seed=7))
    np.testing.assert_array_equal(kernels.log_prob(rows), before)
    assert kernels.companion is None
    assert kernels.is_whole


@pytest.mark.parametrize(
    "spec", [RealNvpSpec(), MafSpec(tails=True), NsfSpec(coupling=True), MadeSpec(masks=3)]
)
def test_what_is_not_known_without_pytorch_is_told(spec):
    stored = {name: v.numpy() for name, v in build(spec, 3, seed=0).transform.state_dict().items()}
    assert describe_stored(spec, 3, stored) is None


def test_numbers_of_another_flow_are_refused():
    spec = MafSpec(layers=2, hidden=[8], batch_norm=None)
    stored = {name: v.numpy() for name, v in build(spec, 3, seed=0).transform.state_dict().items()}
    with pytest.raises(ValueError, match="not those of the flow"):
        describe_stored(spec, 4, stored)
    with pytest.raises(LookupError):
        describe_stored(MafSpec(layers=3, hidden=[8], batch_norm=None), 3, stored)
