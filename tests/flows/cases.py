"""Every family of flows, with small specs that the conformance tests run through."""

import functools
import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from flows import (
    BatchNormSpec,
    CompiledFlow,
    EpochReport,
    FitOptions,
    FitState,
    Flow,
    FlowSpec,
    GaussianMixtureSpec,
    GaussianSpec,
    HafSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    NafSpec,
    NiceSpec,
    NsfSpec,
    PlanarSpec,
    RadialSpec,
    RealNvpSpec,
    SylvesterSpec,
    VariationalReport,
    build,
    fit,
)
from flows.bijections.base import Bijection
from flows.compiled.torch_flow import TorchFlow
from flows.engine.serving.packing import PackedFlow

AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Case:
    """One spec.

    Attributes:
        name: shown by pytest.
        spec: small.
        min_dim: the fewest features that it has a flow of.
    """

    name: str
    spec: FlowSpec
    min_dim: int = 1


RUNNING = BatchNormSpec(statistics="running", momentum=0.5)

CASES = [
    Case("gaussian", GaussianSpec()),
    Case("gaussian-diagonal", GaussianSpec(covariance="diagonal")),
    Case("gaussian-mixture", GaussianMixtureSpec(components=2, regularisation=0.5)),
    Case("made", MadeSpec(hidden=[16], activation="relu")),
    Case("made-random", MadeSpec(hidden=[12, 9], order="random", activation="gelu")),
    Case("made-separate", MadeSpec(hidden=[8, 8], separate_networks=True)),
    Case("made-direct", MadeSpec(hidden=[12], direct=True, activation="relu")),
    Case("made-direct-separate", MadeSpec(hidden=[8, 8], direct=True, separate_networks=True)),
    Case(
        "made-mixture",
        MadeSpec(conditional="mixture", components=3, hidden=[12], order="random"),
    ),
    Case("maf", MafSpec(layers=3, hidden=[16])),
    Case(
        "maf-random",
        MafSpec(layers=2, hidden=[12, 12], batch_norm=RUNNING, order="random", activation="relu"),
    ),
    Case("maf-plain", MafSpec(layers=2, hidden=[12], batch_norm=None, activation="elu")),
    Case("maf-mixture", MafSpec(layers=2, hidden=[12], base="made_mixture", components=2)),
    Case(
        "maf-mixture-bounded",
        MafSpec(
            layers=2,
            hidden=[12],
            base="made_mixture",
            components=2,
            activation="relu",
            log_scale_bound=1.5,
        ),
    ),
    Case("iaf", IafSpec(layers=2, hidden=[12])),
    Case("nice", NiceSpec(layers=3, hidden=[12]), min_dim=2),
    Case("haf", HafSpec(layers=4, hidden=[10]), min_dim=2),
    Case("haf-bounded", HafSpec(layers=3, hidden=[10], log_scale_bound=1.5), min_dim=2),
    Case("realnvp", RealNvpSpec(layers=3, hidden=[16]), min_dim=2),
    Case("realnvp-plain", RealNvpSpec(layers=2, hidden=[9, 9], batch_norm=None), min_dim=2),
    Case("planar", PlanarSpec(layers=4)),
    Case("planar-sampling", PlanarSpec(layers=3, closed="sampling")),
    Case("radial", RadialSpec(layers=4)),
    Case("radial-sampling", RadialSpec(layers=3, closed="sampling")),
    Case("sylvester", SylvesterSpec(layers=3)),
    Case("sylvester-sampling", SylvesterSpec(layers=2, units=2, closed="sampling"), min_dim=2),
    Case("nsf", NsfSpec(layers=2, hidden=[12], bins=4)),
    Case("nsf-tails", NsfSpec(layers=2, hidden=[12], bins=4, tails=True)),
    Case("nsf-coupling", NsfSpec(layers=2, hidden=[12], bins=5, coupling=True), min_dim=2),
    Case("nsf-affine", NsfSpec(layers=1, hidden=[12], bins=4, affine_layers=2, activation="relu")),
    Case("nsf-linear", NsfSpec(layers=2, hidden=[12], bins=4, linear=True)),
    Case("naf-dsf", NafSpec(layers=2, hidden=[10], units=4)),
    Case("naf-ddsf", NafSpec(layers=1, hidden=[10], transformer="ddsf", units=3)),
    Case("naf-sampling", NafSpec(layers=1, hidden=[8], units=2, closed="sampling")),
]


def example_rows(rows: int, dim: int, *, seed: int = 0) -> Tensor:
    """Skewed, dependent rows in float64, with means and scales far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    bent = noise.clone()
    for i in range(1, dim):
        bent[:, i] += 0.5 * bent[:, i - 1].square() - 0.5
    return bent * torch.linspace(0.5, 3, dim, dtype=torch.float64) + 10


@functools.cache
def _trained_weights(name: str, dim: int) -> dict[str, Tensor]:
    flow, rows = fresh_flow(find(name), dim), example_rows(200, dim)
    trained(flow, rows[:150], rows[150:], learning_rate=0.02, batch_size=50, max_epochs=4, seed=3)
    return flow.state_dict()


def find(name: str) -> Case:
    """The case of a name."""
    return next(case for case in CASES if case.name == name)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, the same for each seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def stirred(
    flow: AnyModule, alpha: float, *, seed: int = 0, biases_alone: bool = False
) -> AnyModule:
    """The same flow, whose parameters are moved away from what they are initialised to."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            if parameter.dim() == 1 or not biases_alone:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=alpha)
    return flow


def enlarged(flow: Flow, factor: float) -> Flow:
    """The same flow in evaluation mode, with weights many times those of a new one."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "weight" in name:
                parameter.mul_(factor)
    return flow.eval()


def jacobian(layer: Flow | Bijection, row: Tensor) -> Tensor:
    """The derivatives of the noise of a row by its values."""
    found = torch.autograd.functional.jacobian(lambda x: layer.inverse(x[None])[0][0], row)
    assert isinstance(found, Tensor)
    return found


def trained(flow: Flow, rows: Tensor, held_out: Tensor, **options: Any) -> EpochReport:
    """The last report of a training of the flow."""
    *_, last = fit(flow, rows, held_out, options=FitOptions(**options))
    return last


def fresh_flow(case: Case, dim: int, *, seed: int = 5) -> Flow:
    """An untrained flow in float64 with a standardisation."""
    rows = example_rows(200, dim)
    standardise = rows.mean(dim=0), rows.std(dim=0)
    return build(case.spec, dim, standardise=standardise, seed=seed).double().eval()


def trained_flow(case: Case, dim: int) -> Flow:
    """The same after a few epochs of real training, in evaluation mode."""
    flow = fresh_flow(case, dim)
    flow.load_state_dict(_trained_weights(case.name, dim))
    return flow


def grid(flow: Flow, *, points: int, reach: float) -> tuple[Tensor, float]:
    """Rows on a regular grid around the data of a flow of 1 or 2 features, and their volume."""
    assert flow.preprocessing.standardise is not None
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    cells = torch.cartesian_prod(*[axis] * flow.dim).reshape(-1, flow.dim)
    std = flow.preprocessing.standardise.std
    volume = float(std.prod()) * (2 * reach / (points - 1)) ** flow.dim
    assert math.isfinite(volume)
    return flow.preprocessing.standardise.forward(cells)[0], volume


def is_packed(compiled: CompiledFlow) -> bool:
    """Whether compiled loops serve a flow."""
    return isinstance(compiled, TorchFlow) and isinstance(compiled.engine, PackedFlow)


def through_bytes(state: FitState) -> FitState:
    """What a checkpoint does with a state."""
    meta = json.loads(json.dumps(state.meta, allow_nan=False))
    return FitState(load(save(state.tensors)), meta)


def assert_same(flow: Flow, other: Flow) -> None:
    weights, others = flow.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def numbers(*reports: EpochReport | VariationalReport) -> list[dict[str, object]]:
    """All of the reports that does not depend on the clock."""
    clock = {"seconds", "rows_per_second", "samples_per_second", "expected_gain", "_state"}
    return [{k: v for k, v in vars(report).items() if k not in clock} for report in reports]
