"""The same weights in another library, nflows, give the same numbers.

Networks, masks, splines, loops over the features, the order of layers and the sums are the peer's
own. Its affine maps have other activations than ours, `softplus(s) + 0.001` and
`sigmoid(s + 2) + 0.001` in the place of exp, and go from data to noise as `u = scale x + shift`;
`_Affine` and `_AffineCoupling` turn our parameters into the peer's there. Its degrees of hidden
units are dealt out in turns, so that masks are copied too, and all hidden layers of one of its
MADEs have the same width.

What it does not have, and so is not compared here: the networks of `haf`, separate networks and
mixtures in a MADE, contexts without a nonlinearity of their own, NAF.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow as PeerFlow
from nflows.nn.nets import MLP
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform, InverseTransform, Transform
from nflows.transforms.coupling import (
    AffineCouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from nflows.transforms.normalization import BatchNorm as PeerBatchNorm
from nflows.transforms.permutations import Permutation as PeerPermutation
from torch import Tensor, nn

from flows import Flow, FlowSpec, IafSpec, MadeSpec, MafSpec, NsfSpec, RealNvpSpec, build
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Inverted, Permutation, Reverse
from flows.bijections.coupling.affine import Coupling
from flows.bijections.coupling.transformer import TransformerCoupling
from flows.families.made import Made
from flows.families.nsf import SLOPE_OFFSET, RationalQuadratic

DIM, WIDTH = 5, 16
LEAST_SCALE = 1e-3
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class _Affine(MaskedAffineAutoregressiveTransform):  # type: ignore[misc]  # it has no types
    def _unconstrained_scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = parameters.view(len(parameters), -1, 2).unbind(dim=2)
        scale = torch.exp(-log_scale)
        return _softplus_inverse(scale - LEAST_SCALE), -shift * scale


class _AffineCoupling(AffineCouplingTransform):  # type: ignore[misc]  # it has no types
    def _scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = parameters.chunk(2, dim=1)
        scale = torch.exp(-log_scale)
        return scale, -shift * scale


class _Networks(nn.Module):
    """Several networks side by side; it takes a context, which an `MLP` does not."""

    def __init__(self, networks: list[nn.Module], hidden_features: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.hidden_features = hidden_features

    def forward(self, rows: Tensor, context: None) -> Tensor:
        return torch.cat([network(rows) for network in self.networks], dim=1)


def _softplus_inverse(y: Tensor) -> Tensor:
    return torch.log(torch.expm1(y))


def _made(part: Made) -> Transform:
    peer = _Affine(
        part.dim,
        WIDTH,
        num_blocks=len(part.conditioner.hidden) - 1,
        use_residual_blocks=False,
        activation=ACTIVATIONS[part.conditioner.activation],
    )
    _copy_network(part, peer.autoregressive_net, outputs=2)
    return peer


def _spline_made(part: Autoregressive) -> Transform:
    spline = part.transformer
    assert isinstance(spline, RationalQuadratic)
    peer = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        part.dim,
        WIDTH,
        num_bins=(spline.outputs + 1) // 3,
        tails="linear",
        tail_bound=3.0,
        num_blocks=len(part.conditioner.hidden) - 1,
        use_residual_blocks=False,
        activation=ACTIVATIONS[part.conditioner.activation],
    )
    made = peer.autoregressive_net
    assert not hasattr(made, "hidden_features")  # it would divide the logits
    _copy_network(part, made, outputs=spline.outputs)
    made.final_layer.bias.data.view(part.dim, -1)[:, 2 * peer.num_bins :] += SLOPE_OFFSET
    return peer


def _copy_network(part: Autoregressive, made: nn.Module, *, outputs: int) -> None:
    """Weights and masks; the peer has the parameters of a feature side by side."""
    assert isinstance(made.blocks, nn.ModuleList)
    blocks = [block.linear for block in made.blocks]
    for peer, *ours in zip(
        [made.initial_layer, *blocks, made.final_layer], *part.network(), strict=True
    ):
        order = torch.arange(len(ours[0]))
        if peer is made.final_layer:
            order = order.view(outputs, part.dim).t().flatten()
        for name, values in zip(("weight", "bias", "mask"), ours, strict=True):
            getattr(peer, name).data = values.detach()[order].clone()


def _moved(part: Coupling | TransformerCoupling) -> Tensor:
    mask = torch.zeros(part.dim)
    mask[part.shape.halves()[1]] = 1
    return mask


def _mlp(layers: nn.ModuleList, activation: object) -> MLP:
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    widths = [layer.out_features for layer in linears]
    peer = MLP([linears[0].in_features], [widths[-1]], widths[:-1], activation).double()
    peers = [layer for layer in peer.modules() if isinstance(layer, nn.Linear)]
    for ours, theirs in zip(linears, peers, strict=True):
        theirs.load_state_dict(ours.state_dict())
    return peer


def _coupling(part: Coupling) -> Transform:
    networks = [_mlp(part.scale_layers, torch.tanh), _mlp(part.shift_layers, torch.relu)]
    return _AffineCoupling(_moved(part), lambda *_: _Networks(networks, WIDTH))


def _spline_coupling(part: TransformerCoupling) -> Transform:
    spline = part.transformer
    assert isinstance(spline, RationalQuadratic)
    bins, moved = (spline.outputs + 1) // 3, part.shape.widths()[1]
    network = _mlp(part.layers, torch.tanh)
    order = torch.arange(spline.outputs * moved).view(spline.outputs, moved).t().flatten()
    *_, last = network.children()
    for values in (last.weight.data, last.bias.data):
        values.copy_(values[order])
        # The peer divides the logits of its coupling layers.
        values.view(moved, spline.outputs, -1)[:, : 2 * bins] *= math.sqrt(WIDTH)
    last.bias.data.view(moved, spline.outputs)[:, 2 * bins :] += SLOPE_OFFSET
    return PiecewiseRationalQuadraticCouplingTransform(
        _moved(part),
        lambda *_: _Networks([network], WIDTH),
        num_bins=bins,
        tails="linear",
        tail_bound=3.0,
    )


def _batch_norm(part: BatchNorm) -> Transform:
    peer = PeerBatchNorm(part.dim, eps=1e-5)
    gain = torch.exp(part.log_gain.detach())
    peer.unconstrained_weight.data = _softplus_inverse(gain - peer.eps)
    peer.bias.data = part.offset.detach().clone()
    peer.running_mean, peer.running_var = part.mean.clone(), part.var.clone()
    return peer


def _reverse(part: Reverse) -> Transform:
    return PeerPermutation(torch.arange(part.dim - 1, -1, -1))


def _permutation(part: Permutation) -> Transform:
    return PeerPermutation(part.order)


def _inverted(part: Inverted) -> Transform:
    return InverseTransform(_peer(part.layer))


PEERS: dict[type[Bijection], Callable[..., Transform]] = {
    Made: _made,
    Autoregressive: _spline_made,
    Coupling: _coupling,
    TransformerCoupling: _spline_coupling,
    BatchNorm: _batch_norm,
    Reverse: _reverse,
    Permutation: _permutation,
    Inverted: _inverted,
}


def _peer(part: Bijection) -> Transform:
    """One of our layers as the peer's."""
    return PEERS[type(part)](part)


SPECS: dict[str, FlowSpec] = {
    "made": MadeSpec(hidden=[WIDTH, WIDTH]),
    "made-random": MadeSpec(hidden=[WIDTH], order="random", activation="relu"),
    "maf": MafSpec(layers=3, hidden=[WIDTH, WIDTH]),
    "maf-random": MafSpec(layers=3, hidden=[WIDTH], order="random", activation="relu"),
    "iaf": IafSpec(layers=2, hidden=[WIDTH]),
    "realnvp": RealNvpSpec(layers=4, hidden=[WIDTH, WIDTH]),
    "nsf": NsfSpec(layers=3, hidden=[WIDTH, WIDTH], bins=6, tail_bound=3.0, activation="relu"),
    "nsf-coupling": NsfSpec(layers=4, hidden=[WIDTH], bins=6, tail_bound=3.0, coupling=True),
}


def _ours(spec: FlowSpec) -> Flow:
    """A flow whose numbers are all far from those that it starts with."""
    flow = build(spec, DIM, seed=4).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in flow.parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.add_(noise, alpha=0.1)
        for part in flow.transform.parts():
            if isinstance(part, BatchNorm):
                part.mean.copy_(torch.randn(DIM, generator=generator))
                part.var.copy_(torch.rand(DIM, generator=generator) + 0.5)
    return flow.train().eval()  # which masks the weights


@pytest.fixture(params=list(SPECS))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Flow, PeerFlow]]:
    flow = _ours(SPECS[request.param])
    peer = PeerFlow(_composite(flow), StandardNormal([DIM])).double().eval()
    with torch.no_grad():
        yield flow, peer


def _composite(flow: Flow) -> Transform:
    return CompositeTransform([_peer(part) for part in flow.transform.parts()]).double().eval()


def _rows() -> Tensor:
    """Rows of which some are in the tails of the splines."""
    generator = torch.Generator().manual_seed(3)
    return 1.5 * torch.randn(200, DIM, generator=generator, dtype=torch.float64)


def test_log_densities_agree(pair):
    flow, peer = pair
    ours, theirs = flow.log_prob(_rows()), peer.log_prob(_rows())
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert float(ours.std()) > 0.1


def test_both_directions_agree(pair):
    flow = pair[0]
    peer = _composite(flow)
    for ours, theirs in (
        (flow.inverse(_rows()), peer(_rows())),
        (flow.forward(_rows()), peer.inverse(_rows())),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_float32_agrees(pair):
    flow, peer = pair
    rows = _rows().float()
    ours, theirs = flow.float().log_prob(rows), peer.float().log_prob(rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    exact = peer.double().log_prob(rows.double())
    assert float((ours - exact).abs().median()) < 1e-5 * float(exact.abs().median())


def test_the_rows_reach_the_tails_of_the_splines():
    beyond = (_rows().abs() > 3).double().mean()
    assert 0.01 < float(beyond) < 0.5
    assert F.softplus(torch.tensor(SLOPE_OFFSET)) == pytest.approx(1 - LEAST_SCALE)
