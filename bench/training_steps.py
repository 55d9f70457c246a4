"""Training steps of `flows` beside nflows, zuko and normflows, at the sizes that jobs choose too.

One thread, the same architectures without batch norm (nflows: with, its only form of a MAF here),
in rounds that take turns. A step of ours is that of a job: losses of rows bounded, the gradient
clipped, Adam with weight decay, and an average of the weights; a step of a peer is its likelihood,
autograd, clipping and Adam. The figure is the processor time of the fastest round.

Beside it, the share of an epoch that the statistics of batch norms take.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from bench.flow_peers import BINS, Architecture, Peer, build_peers
from bench.flow_speed import OURS, Call, Rounds, machine
from flows import FitOptions, build, fit, spec_from_dict
from flows.training.steps import AutogradSteps, CompiledSteps, Steps, choose_steps

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

NORMED_SIZES = [
    Size("maf", 8, (32, 32), 100, "tanh"),
    Size("maf", 21, (64, 64), 100, "tanh"),
    Size("maf", 21, (64, 64), 250, "tanh"),
    Size("iaf", 21, (64, 64), 100, "tanh"),
    Size("maf", 21, (512,), 100),
    Size("realnvp", 21, (100, 100), 100),
]
TABLE_ROWS = (2_000, 4_000, 16_000, 100_000)


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


def measure_batch_norms(*, quick: bool = False) -> str:
    """Return a table of the shares of an epoch; `quick` leaves the largest tables out."""
    torch.set_num_threads(1)
    tables = TABLE_ROWS[:3] if quick else TABLE_ROWS
    lines = [
        f"| share of an epoch; rows | {' | '.join(f'{rows:,}' for rows in tables)} |",
        f"| --- |{' --- |' * len(tables)}",
    ]
    for size in NORMED_SIZES:
        shares = " | ".join(f"{_share(size, rows):.1%}" for rows in tables)
        lines.append(f"| {size.title} | {shares} |")
    return "\n".join(lines) + "\n"


def _share(size: Size, rows: int) -> float:
    """Return the share of the fastest computation of statistics in the fastest epoch."""
    spec = spec_from_dict(size.spec() | {"batch_norm": {}})
    x = torch.randn(rows + rows // 8, size.dim, generator=torch.Generator().manual_seed(0))
    flow = build(spec, size.dim, standardise=None, seed=0)
    options = replace(OPTIONS, batch_size=size.batch, max_epochs=8)
    epochs: list[tuple[float, float]] = []
    with _timed() as spent:
        began = time.thread_time()
        for _ in fit(flow, x[:rows], x[rows:], options=options):
            statistics = sum(spent)
            epochs.append((statistics, time.thread_time() - began - statistics))
            spent.clear()
            began = time.thread_time()
    # The first one has loaded the loops, the last one has taken the statistics of all rows.
    statistics, rest = (min(times) for times in zip(*epochs[1:-1], strict=True))
    return statistics / (statistics + rest)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yield a list that gets the seconds of each computation of statistics."""
    spent: list[float] = []
    inner: Callable[..., None] = CompiledSteps.set_statistics

    @wraps(inner)
    def timed(*args: object, **kwargs: object) -> None:
        began = time.thread_time()
        inner(*args, **kwargs)
        spent.append(time.thread_time() - began)

    steps: Any = CompiledSteps
    steps.set_statistics = timed
    try:
        yield spent
    finally:
        steps.set_statistics = inner
