"""Peers of the flow measurements: nflows and zuko with the same architectures.

Each is used as its own documentation shows. nflows bounds its scales by a sigmoid where `flows` and zuko take
an exponential; their Real NVP conditions shift and scale by one network, ours by two. Batch norm is in
nflows only: zuko has none.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import zuko
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow as NflowsFlow
from nflows.nn.nets import MLP
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.coupling import AffineCouplingTransform
from nflows.transforms.normalization import BatchNorm
from nflows.transforms.permutations import ReversePermutation
from torch import Tensor, nn

# Number of bins and range of the splines.
BINS, REACH = 8, 5.0


@dataclass(frozen=True)
class Architecture:
    """Architecture that all peers are built to.

    Attributes:
        family: Family of the flow: `maf`, `realnvp` or `nsf`.
        hidden: Widths of a network's hidden layers, all equal.
    """

    family: str
    dim: int
    hidden: tuple[int, ...]
    layers: int = 5


@dataclass(frozen=True)
class Peer:
    """Flow of a peer behind the calls that are timed."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters for an optimiser."""
        return self.module.parameters()


def build_peers(architecture: Architecture, *, seed: int = 0) -> dict[str, Peer]:
    """Return all peers, freshly initialised, in training mode."""
    peers = {}
    for name, make in (("nflows", _nflows), ("zuko", _zuko)):
        torch.manual_seed(seed)
        peers[name] = make(architecture)
    return peers


def _nflows(a: Architecture) -> Peer:
    transforms: list[Transform] = []
    for layer in range(a.layers):
        transforms += [_NFLOWS_LAYER[a.family](a, layer)]
        if a.family == "maf":
            transforms += [BatchNorm(a.dim)]
        if a.family != "realnvp":
            transforms += [ReversePermutation(a.dim)]
    flow = NflowsFlow(CompositeTransform(transforms), StandardNormal([a.dim]))
    return Peer(flow, flow.log_prob, flow.sample)


def _nflows_maf(a: Architecture, _layer: int) -> Transform:
    return MaskedAffineAutoregressiveTransform(a.dim, a.hidden[0], **_made(a))


def _nflows_nsf(a: Architecture, _layer: int) -> Transform:
    return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        a.dim, a.hidden[0], num_bins=BINS, tails="linear", tail_bound=REACH, **_made(a)
    )


def _nflows_realnvp(a: Architecture, layer: int) -> Transform:
    mask = torch.arange(a.dim) % 2 if layer % 2 == 0 else 1 - torch.arange(a.dim) % 2
    return AffineCouplingTransform(mask, lambda below, above: _Network(below, above, a.hidden))


class _Network(MLP):
    """Network of nflows without a context, which its couplings pass."""

    def __init__(self, below: int, above: int, hidden: tuple[int, ...]) -> None:
        super().__init__([below], [above], list(hidden))

    def forward(self, inputs: Tensor, context: None = None) -> Tensor:  # noqa: ARG002  its caller's
        return super().forward(inputs)


_NFLOWS_LAYER = {"maf": _nflows_maf, "nsf": _nflows_nsf, "realnvp": _nflows_realnvp}


def _made(a: Architecture) -> dict[str, object]:
    """Return the network of nflows: `num_blocks` hidden layers after the first."""
    return {
        "num_blocks": len(a.hidden) - 1,
        "use_residual_blocks": False,
        "activation": torch.relu,
    }


def _zuko(a: Architecture) -> Peer:
    sizes = {"features": a.dim, "transforms": a.layers, "hidden_features": a.hidden}
    if a.family == "maf":
        flow = zuko.flows.MAF(**sizes)
    elif a.family == "nsf":
        flow = zuko.flows.NSF(**sizes, bins=BINS)
    else:
        flow = zuko.flows.RealNVP(**sizes)
    return Peer(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))
