"""Training steps of `flows` beside nflows, zuko and normflows, at the sizes that jobs choose too.

One thread, the same architectures without batch norm (nflows: with, its only form of a MAF here),
in rounds that take turns. A step of ours is that of a job: losses of rows bounded, the gradient
clipped, Adam with weight decay, and an average of the weights; a step of a peer is its likelihood,
autograd, clipping and Adam. The figure is the processor time of the fastest round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from bench.flow_peers import BINS, Architecture, Peer, build_peers
from bench.flow_speed import OURS, Call, Rounds, machine
from flows import FitOptions, build, spec_from_dict
from flows.training.steps import AutogradSteps, Steps, choose_steps

OPTIONS = FitOptions(
    learning_rate=1e-5,
    weight_decay=1e-6,
    max_gradient_norm=5.0,
    row_loss_bound=30.0,
    weight_average=0.99,
)
AUTOGRAD = "flows by autograd"


@dataclass(frozen=True)
class Size:
    """Size of a flow and of its batches."""

    family: str
    dim: int
    hidden: tuple[int, ...]
    batch: int
    activation: str = "relu"

    @property
    def title(self) -> str:
        """Title of a line of the table."""
        width = self.hidden[0] if len(self.hidden) == 1 else list(self.hidden)
        return f"{self.family} 5 x {width}, D = {self.dim}, batch {self.batch:,}"

    def spec(self) -> dict[str, object]:
        """Return the specification of ours."""
        spec: dict[str, object] = {"family": self.family, "layers": 5, "hidden": list(self.hidden)}
        if self.family != "nsf":
            spec["batch_norm"] = None
        if self.family != "realnvp":
            spec["activation"] = self.activation
        return spec | ({"bins": BINS} if self.family == "nsf" else {})


SIZES = [
    Size("maf", 10, (64, 64), 250, "tanh"),
    Size("maf", 21, (64, 64), 100, "tanh"),
    Size("maf", 21, (64, 64), 250, "tanh"),
    Size("maf", 21, (32, 32), 100, "tanh"),
    Size("maf", 21, (512,), 100),
    Size("maf", 21, (512,), 1024),
    Size("maf", 43, (512, 512), 100),
    Size("maf", 784, (1024,), 100),
    Size("realnvp", 21, (100, 100), 100),
    Size("realnvp", 21, (100, 100), 1024),
    Size("nsf", 10, (64, 64), 250),
    Size("nsf", 21, (512,), 100),
]


def measure(*, quick: bool = False) -> str:
    """Measure all sizes and return a table; `quick` takes seconds for each."""
    torch.set_num_threads(1)
    rounds = Rounds(slice_s=0.05, count=3) if quick else Rounds(slice_s=0.3, count=7)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}, one thread; rows/s.\n",
        f"| step | nflows | zuko | normflows | {AUTOGRAD} | {OURS} | ratio to the best peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(size, rounds) for size in SIZES]
    return "\n".join(lines) + "\n"


def _line(size: Size, rounds: Rounds) -> str:
    peers = build_peers(Architecture(size.family, size.dim, size.hidden))
    x = torch.randn(size.batch, size.dim, generator=torch.Generator().manual_seed(0))
    calls: dict[str, Call] = {name: _peer_step(peer, x) for name, peer in peers.items()}
    makers: dict[str, Callable[..., Steps]] = {
        AUTOGRAD: AutogradSteps,
        OURS: lambda flow, options: choose_steps(flow, options, batch_size=size.batch),
    }
    for name, make in makers.items():
        flow = build(spec_from_dict(size.spec()), size.dim, standardise=None, seed=0)
        calls[name] = _our_step(make(flow.train(), OPTIONS), x)
    found = rounds.rates(calls, size.batch)
    best = max(found[name] for name in peers)
    cells = " | ".join(f"{found[name]:,.0f}" for name in calls)
    return f"| {size.title} | {cells} | {found[OURS] / best:.1f} |"


def _our_step(steps: Steps, x: Tensor) -> Call:
    return lambda: steps.take(x, 100)


def _peer_step(peer: Peer, x: Tensor) -> Call:
    peer.module.train()
    parameters = list(peer.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-5, weight_decay=1e-6)

    def step() -> None:
        adam.zero_grad()
        (-peer.log_prob(x).mean()).backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        adam.step()

    return step
