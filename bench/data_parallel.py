"""Rate of one training whose batches two processes share, beside that of one process alone."""

import os
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from densityd.service.ports import free_port
from flows import DataParallel, FitOptions, Flow, FlowSpec, MafSpec, NsfSpec, build, serve_gradients
from flows.training.data_parallel import is_worthwhile
from flows.training.steps import choose_steps

_CASES: tuple[tuple[str, FlowSpec, int, int], ...] = (
    ("MAF 5 x [64, 64]", MafSpec(layers=5, hidden=[64, 64]), 20, 1000),
    ("MAF 5 x [64, 64]", MafSpec(layers=5, hidden=[64, 64]), 20, 4000),
    ("NSF 5 x [64, 64]", NsfSpec(layers=5, hidden=[64, 64]), 20, 250),
    ("NSF 5 x [64, 64]", NsfSpec(layers=5, hidden=[64, 64]), 20, 1000),
    ("MAF 5 x [512, 512]", MafSpec(layers=5, hidden=[512, 512]), 43, 250),
    ("MAF 5 x [512, 512]", MafSpec(layers=5, hidden=[512, 512]), 43, 1000),
)
_ROUNDS, _ROUND_S = 5, 1.0


def measure() -> str:
    """Take steps alone and shared, in turn; return the table."""
    lines = [
        "| flow, batch | rows/s, one process | two processes | ratio | shared by a worker |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, spec, dim, batch in _CASES:
        results = mp.get_context("spawn").SimpleQueue()
        port = free_port("127.0.0.1", 0)
        mp.spawn(_take_part, args=(port, spec, dim, batch, results), nprocs=2)
        alone, shared = results.get()
        taken = is_worthwhile(build(spec, dim, seed=0), batch_size=batch, processes=2)
        lines.append(
            f"| {name}, {batch} | {alone:,.0f} | {shared:,.0f} | {shared / alone:.2f}"
            f" | {'yes' if taken else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _take_part(rank: int, port: int, spec: FlowSpec, dim: int, batch: int, results: Any) -> None:  # noqa: ANN401 - a queue, and what to train
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    flow, options = build(spec, dim, seed=0).train(), FitOptions(batch_size=batch)
    if rank == 0:
        results.put(_rates(flow, options, torch.randn(batch, dim)))
    else:
        serve_gradients(flow, options, batch_size=batch)
    dist.destroy_process_group()


def _rates(flow: Flow, options: FitOptions, rows: torch.Tensor) -> tuple[float, float]:
    """Return the rows per second of the best round alone and of the best one shared."""
    steps = choose_steps(flow, options, batch_size=len(rows))
    steps.learning_rate = 1e-5
    parallel, best, number = DataParallel(flow.device), [0.0, 0.0], 0
    for turn in range(2 * _ROUNDS):
        steps.shared = parallel.compute if turn % 2 else None
        began, count = time.monotonic(), 0
        while (seconds := time.monotonic() - began) < _ROUND_S:
            number, count = number + 1, count + 1
            steps.take(rows, number)
        best[turn % 2] = max(best[turn % 2], count * len(rows) / seconds)
    parallel.end()
    return best[0], best[1]
