"""Gain of two processes that share the batches of one training, at the most.

Each would compute the gradient of half a batch, and add both by `all_reduce`. Times are processor times of one
thread, so that other programs do not count; waiting for the other process would come on top.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from densityd.service.ports import free_port
from flows import FitOptions, FlowSpec, MafSpec, NsfSpec, build, count_parameters
from flows.training.steps import choose_steps

_CASES: tuple[tuple[str, FlowSpec, int, int], ...] = (
    ("NSF 5 x [64, 64]", NsfSpec(layers=5, hidden=[64, 64]), 20, 250),
    ("MAF 5 x [64, 64]", MafSpec(layers=5, hidden=[64, 64]), 20, 250),
    ("MAF 5 x [512, 512]", MafSpec(layers=5, hidden=[512, 512]), 43, 1000),
)
_STEPS, _SUMS = 25, 15


def measure() -> str:
    """Measure steps of whole and half batches and sums of gradients; return the table."""
    torch.set_num_threads(1)
    lines = [
        "| flow, batch | step, ms | of half the batch | sum of gradients | gain at most |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, spec, dim, batch in _CASES:
        whole, half = (_step_ms(spec, dim, rows) for rows in (batch, batch // 2))
        both = _sum_ms(count_parameters(spec, dim))
        gain = whole / (half + both)
        lines.append(f"| {name}, {batch} | {whole:.2f} | {half:.2f} | {both:.2f} | {gain:.2f} |")
    return "\n".join(lines) + "\n"


def _step_ms(spec: FlowSpec, dim: int, rows: int) -> float:
    flow = build(spec, dim, seed=0).train()
    steps = choose_steps(flow, FitOptions(batch_size=rows, max_epochs=1, seed=1), batch_size=rows)
    steps.learning_rate = 1e-4
    table = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    return min(_cpu_ms(steps.take, table, number + 1) for number in range(_STEPS))


def _sum_ms(parameters: int) -> float:
    """Return the time that a process needs to add its gradient to that of another."""
    results = mp.get_context("spawn").SimpleQueue()
    port = free_port("127.0.0.1", 0)
    mp.spawn(_add, args=(port, parameters, results), nprocs=2)
    return float(results.get())


def _add(rank: int, port: int, parameters: int, results: Any) -> None:  # noqa: ANN401 - a queue
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    gradient = torch.randn(parameters)
    times = []
    for _ in range(_SUMS):
        dist.barrier()
        times.append(_cpu_ms(dist.all_reduce, gradient))
    dist.destroy_process_group()
    if rank == 0:
        results.put(sorted(times)[_SUMS // 4])


def _cpu_ms(call: Callable[..., object], *arguments: object) -> float:
    began = time.process_time()
    call(*arguments)
    return (time.process_time() - began) * 1e3
