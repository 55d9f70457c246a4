"""Scoring, sampling and training steps of `flows` beside nflows and zuko.

One thread, the same architectures, in rounds that take turns. The figure is the thread's processor
time in its fastest round: other load on the machine only adds to it. A training step of ours is that
of a job: losses of rows bounded, the gradient clipped, Adam with weight decay, and an average of the
weights; a step of a peer is its likelihood, autograd, clipping and Adam.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.flow_peers import BINS, Architecture, Peer, build_peers
from flows import FitOptions, Flow, build, compile_flow, spec_from_dict
from flows.errors import SpecError
from flows.training.steps import choose_steps

OURS = "flows"
SCORE_ROWS, SAMPLE_ROWS, TRAIN_ROWS = (1, 100, 10_000), (1, 100, 1000), (100, 1024)
# Peers are not given more rows than they can handle in this time; the table then shows "~" and
# their rate with 100 rows, about their best batch size.
LONGEST_S = 20.0
OPTIONS = FitOptions(
    learning_rate=1e-5,
    weight_decay=1e-6,
    max_gradient_norm=5.0,
    row_loss_bound=30.0,
    weight_average=0.99,
)
Call = Callable[[], object]


@dataclass(frozen=True)
class Setup:
    """Architecture of the peers and the specification of ours."""

    title: str
    peers: Architecture
    spec: dict[str, Any]
    quick: bool = False

    def flop_a_row(self) -> float:
        """Floating-point operations per row of one pass, less those that masks and halves save."""
        a, layers = self.peers, self.peers.layers
        if a.family == "realnvp":
            widths = [a.dim / 2, *a.hidden, a.dim / 2]
            return 4 * layers * sum(below * above for below, above in pairwise(widths))
        outputs = 2 if a.family == "maf" else 3 * BINS - 1
        widths = [a.dim, *a.hidden, outputs * a.dim]
        return layers * sum(below * above for below, above in pairwise(widths))


def _setup(family: str, dim: int, hidden: tuple[int, ...], **more: Any) -> Setup:  # noqa: ANN401  fields of a spec
    spec = {"family": family, "layers": 5, "hidden": list(hidden), **more}
    shape = hidden[0] if len(hidden) == 1 else list(hidden)
    title = f"{family} 5 x {shape}, D = {dim}"
    return Setup(title, Architecture(family, dim, hidden), spec, quick=dim < 100)


SETUPS = [
    _setup("maf", 21, (512,), activation="relu"),
    _setup("maf", 43, (512, 512), activation="relu"),
    _setup("maf", 784, (1024,), activation="relu"),
    _setup("realnvp", 21, (100, 100)),
    _setup("nsf", 21, (512,), bins=BINS, activation="relu"),
    # The sizes that jobs choose by themselves, and the family for tables of numbers.
    _setup("maf", 10, (64, 64), activation="relu"),
    _setup("maf", 21, (32, 32), activation="relu"),
    _setup("nsf", 10, (64, 64), bins=BINS, activation="relu"),
    _setup("nsf", 21, (32, 32), bins=BINS, activation="relu"),
]


def measure(arguments: Sequence[str]) -> str:
    """Measure all architectures and return a document."""
    parser = argparse.ArgumentParser("python -m bench flows", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds a flow, wide ones left out")
    quick = parser.parse_args(arguments).quick
    torch.set_num_threads(1)
    rate = gemm_rate()
    parts = [
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}, one thread;"
            f" dense float32 products of 512 x 512: {rate / 1e9:.0f} GFLOP/s.\n"
        )
    ]
    for setup in SETUPS:
        if quick and not setup.quick:
            continue
        try:
            flow = build(spec_from_dict(setup.spec), setup.peers.dim, standardise=None, seed=0)
        except (SpecError, ValueError) as error:
            parts.append(f"{setup.title} is left out: `flows` has no such family ({error}).\n")
            continue
        rounds = Rounds(slice_s=0.02, count=3) if quick else Rounds(slice_s=0.2, count=5)
        parts.append(table(setup, flow, rounds, rate))
    return "\n".join(parts)


def table(setup: Setup, flow: Flow, rounds: "Rounds", rate: float) -> str:
    """Return the rows per second of one architecture as a table."""
    lines = [f"| {setup.title}; rows | nflows | zuko | {OURS} | ratio to the best | of GEMM |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    peers = build_peers(setup.peers)
    for peer in peers.values():
        peer.module.eval()
    flow.eval()
    compiled = compile_flow(flow)
    cost = setup.flop_a_row()

    def add(
        what: str, rows: int, found: dict[str, float], *, passes: int = 1, about: Sequence[str] = ()
    ) -> None:
        best = max(value for name, value in found.items() if name != OURS)
        share = found[OURS] * cost * passes / rate
        cells = [
            ("~" if name in about else "") + f"{found[name]:,.{0 if found[name] >= 100 else 1}f}"
            for name in (*peers, OURS)
        ]
        lines.append(
            f"| {what} {rows:,} | {' | '.join(cells)} | {found[OURS] / best:,.1f}"
            f" | {100 * share:.0f} % |"
        )

    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for n in SCORE_ROWS:
            x = torch.randn(n, setup.peers.dim, generator=generator)
            calls = {name: _scoring(peer, x) for name, peer in peers.items()}
            ours = x.numpy()
            add("log_prob", n, rounds.rates(calls | {OURS: lambda x=ours: compiled.log_prob(x)}, n))
        rates: dict[str, float] = {}
        for n in SAMPLE_ROWS:
            about = [name for name in peers if n > 100 and n / rates[name] > LONGEST_S]
            calls = {name: _sampling(p, n) for name, p in peers.items() if name not in about}
            rates |= rounds.rates(calls | {OURS: lambda n=n: compiled.sample(n, seed=1)}, n)
            add("sampling", n, rates, about=about)
    for n in TRAIN_ROWS:
        x = torch.randn(n, setup.peers.dim, generator=generator)
        calls = {name: _peer_step(peer, x) for name, peer in peers.items()}
        found = rounds.rates(calls | {OURS: _our_step(flow, x)}, n)
        add("training step of", n, found, passes=3)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Rounds:
    """Length and number of the turns.

    Attributes:
        slice_s: Seconds of a turn, which repeats its call.
        count: Number of rounds; a call of more than a second is made only once.
    """

    slice_s: float
    count: int

    def rates(self, calls: dict[str, Call], rows: int) -> dict[str, float]:
        """Return the rows per second of each call in its fastest turn."""
        best = {name: _seconds(call, 1) for name, call in calls.items()}
        for _ in range(self.count):
            for name, call in calls.items():
                if best[name] < 1:
                    times = max(1, round(self.slice_s / best[name]))
                    best[name] = min(best[name], _seconds(call, times))
        return {name: rows / seconds for name, seconds in best.items()}


def gemm_rate() -> float:
    """Return the floating-point operations per second of a dense product in one thread."""
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    return 2 * 512**3 / min(_seconds(lambda: a @ b, 5) for _ in range(20))


def machine() -> str:
    """Return the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return f"{name}, {os.cpu_count()} cores"


def _seconds(call: Call, times: int) -> float:
    started = time.thread_time()
    for _ in range(times):
        call()
    return (time.thread_time() - started) / times


def _scoring(peer: Peer, x: Tensor) -> Call:
    return lambda: peer.log_prob(x)


def _sampling(peer: Peer, n: int) -> Call:
    return lambda: peer.sample(n)


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


def _our_step(flow: Flow, x: Tensor) -> Call:
    steps = choose_steps(flow.train(), OPTIONS, batch_size=len(x))
    return lambda: steps.take(x, 100)
