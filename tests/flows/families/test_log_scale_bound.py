"""Bounded log scales: nothing overflows where networks with ReLU units extrapolate."""

import dataclasses

import pytest
import torch

from flows import (
    Flow,
    FlowSpec,
    HafSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    RealNvpSpec,
    build,
    compile_flow,
)
from flows.bijections.transformers import bounded

BOUND = 3.0
SPECS: list[FlowSpec] = [
    MadeSpec(hidden=[16], activation="relu", log_scale_bound=BOUND),
    MafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    IafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    HafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    RealNvpSpec(layers=3, hidden=[16], log_scale_bound=BOUND),
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.family)


def _wild(spec: FlowSpec, *, context_dim: int = 0) -> Flow:
    """A flow whose weights are many times those of a new one."""
    flow = build(spec, 4, context_dim=context_dim, seed=1).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "weight" in name:
                parameter.mul_(80 if spec.family == "realnvp" else 20)
    return flow


def test_the_bound_is_never_reached_and_the_slope_at_0_is_1():
    raw = torch.tensor([-1e30, -4.0, 0.0, 4.0, 1e30], dtype=torch.float64, requires_grad=True)
    found = bounded(raw, 2.0)
    expected = torch.tensor([-2.0, -4 / 3, 0.0, 4 / 3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert raw.grad is not None
    assert raw.grad[2] == 1


@every_spec
def test_scales_overflow_only_without_the_bound(spec):
    rows = 30 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    for bound in (BOUND, None):
        flow = _wild(dataclasses.replace(spec, log_scale_bound=bound))
        with torch.no_grad():
            found = [flow.log_prob(rows), flow.forward(rows)[0]]
        compiled = compile_flow(flow)
        found += [torch.tensor(compiled.log_prob(rows.numpy()))]
        found += [torch.tensor(compiled.forward(rows.numpy())[0])]
        finite = [bool(values.isfinite().all()) for values in found]
        assert all(finite) if bound else not any(finite[:2])


def test_a_context_far_off_makes_no_scale_overflow():
    flow = _wild(IafSpec(layers=1, hidden=[8], log_scale_bound=BOUND), context_dim=2)
    samples = flow.sample(
        50, generator=torch.Generator().manual_seed(0), context=torch.tensor([[1e4, -1e4]])
    )
    assert bool(samples.isfinite().all())


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_is_a_number_above_0(wrong):
    with pytest.raises(ValueError, match="log_scale_bound must be a number above 0"):
        MafSpec(log_scale_bound=wrong)
    with pytest.raises(ValueError, match="needs a conditional with scales"):
        MadeSpec(conditional="bernoulli", log_scale_bound=1.0)
