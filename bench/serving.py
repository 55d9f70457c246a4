"""Scoring over HTTP: the service beside FastAPI as in its tutorial, and MLServer.

All serve the same trained MAF 5 x 512 on 21 columns: the peers compute it by PyTorch, as its author
would serve it, and two of them once more by the compiled flow, which shows the overhead of the
server alone. The load comes from this process, which has the last processor; each server, however
many processes it has, may use the others, of which there is one on a machine of two. The load goes
round the servers in turns, each alone while the others are stopped, and between them the compiled
flow is called directly on a processor of the servers.

With `--floor` it is the processor time of a request beside that of a bare uvicorn application which reads the same
body and answers as many bytes, the rate of large requests beside that of the flow in process, and the memory and
start of the service. With `--beside REVISION` the others are the service of other revisions, each cloned into a temporary folder with an
environment of its own, which a later run finds again.
"""

import argparse
import asyncio
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import uvloop

from bench import startup
from bench.load import Load, ask, loads
from bench.servers import (
    DENSITYD,
    DIM,
    FLOOR,
    PEERS,
    ROOT,
    Missing,
    Server,
    peer,
    service_with_model,
    stored_flow,
)
from flows import CompiledFlow, compile_flow

_SHAPES = ((1, 1), (1, 32), (100, 1), (100, 32), (10_000, 1), (10_000, 32))
_JSON, _NPY = ((1, 32), (1, 1), (100, 32)), ((10_000, 1),)  # of revisions beside each other
_SMALL, _LARGE = 31, 10_000
_SMALL_SHAPES = ((1, 32), (1, 1), (100, 32))
_NICENESS = -10  # of the load and the servers alike, where it is allowed: others use the machine


@dataclass
class _Figures:
    """Results of the rounds of one server under one load."""

    rates: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    cpu_s_a_row: list[float] = field(default_factory=list)

    def add(self, load: Load, *, rows: int, cpu_s: float) -> None:
        self.rates.append(load.rate)
        self.latencies_s += load.latencies_s
        self.cpu_s_a_row.append(cpu_s / (rows * len(load.latencies_s)))

    def ms(self, percentile: float) -> float:
        return float(np.percentile(self.latencies_s, percentile)) * 1e3


def measure(arguments: Sequence[str]) -> str:
    """Measure all servers and return the tables."""
    parser = argparse.ArgumentParser("python -m bench serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--beside", nargs="+", metavar="REVISION", default=(), help="for example v0.1.0"
    )
    parser.add_argument("--floor", action="store_true", help="the price of a request alone")
    parser.add_argument("--rounds", type=int, help="turns of each server (2 if quick, else 3)")
    options = parser.parse_args(arguments)
    seconds, rounds = (0.7, options.rounds or 2) if options.quick else (1.5, options.rounds or 3)
    torch.set_num_threads(1)
    processors = os.sched_getaffinity(0)
    theirs = processors - {max(processors)} or processors
    with ExitStack() as stack:
        stack.enter_context(priority())
        stack.enter_context(only_on(theirs))
        if options.beside:
            return _beside(options.beside, rounds, seconds, max(processors), stack)
        if options.floor:
            return _floor(rounds, seconds, max(processors), stack)
        service, *ours = stack.enter_context(service_with_model())
        started = [stack.enter_context(peer(name, service)) for name in PEERS]
        servers = [*ours, *(server for server in started if isinstance(server, Server))]
        missing = [server for server in started if isinstance(server, Missing)]
        compiled = compile_flow(stored_flow(service))
        stack.enter_context(only_on({max(processors)}))
        _check_answers(servers[0:1] + servers[2:], compiled)
        shapes = [shape for shape in _SHAPES if not (options.quick and shape == (10_000, 32))]
        sections = [machine()]
        for shape in shapes:

            def in_process(rows: int = shape[0]) -> float:
                with only_on(theirs), asleep(servers):
                    return _in_process_rate(compiled, rows)

            sections.append(compare(servers, shape, rounds, seconds, in_process))
            print(sections[-1], file=sys.stderr, flush=True)  # the rest takes minutes, and may fail
        sections.append(mixed(servers[0:1] + servers[2:], rounds, seconds))
        sections += [f"{server.name} is missing: {server.reason}" for server in missing]
    return "\n\n".join(sections) + "\n"


def _beside(
    revisions: Sequence[str], rounds: int, seconds: float, own: int, stack: ExitStack
) -> str:
    """Measure the service of this checkout and of other revisions; return the tables."""
    commands = {name: installed(name) for name in revisions} | {"this": DENSITYD}
    sections = [machine(), "\n".join([*startup.HEAD, *_starts(commands)])]
    services = [
        stack.enter_context(service_with_model(name, command)) for name, command in commands.items()
    ]
    stack.enter_context(only_on({own}))
    in_json, in_npy = [found[1] for found in services], [found[2] for found in services]
    for servers, shapes in ((in_json, _JSON), (in_npy, _NPY)):
        for shape in shapes:
            sections.append(compare(servers, shape, rounds, seconds))
            print(sections[-1], file=sys.stderr, flush=True)
    sections.append(mixed(in_json, rounds, seconds))
    return "\n\n".join(sections) + "\n"


def _floor(rounds: int, seconds: float, own: int, stack: ExitStack) -> str:
    """Measure what a request costs beside the least that a server can do; return the tables."""
    starts = "\n".join([*startup.HEAD, startup.line("first"), startup.line("second")])
    service, in_json, in_npy = stack.enter_context(service_with_model())
    theirs = os.sched_getaffinity(0)
    floor = stack.enter_context(peer(FLOOR, service))
    if not isinstance(floor, Server):
        return f"{floor.name} is missing: {floor.reason}\n"
    compiled = compile_flow(stored_flow(service))
    stack.enter_context(only_on({own}))
    lines = [
        "| rows a request | connections | bare, CPU us | densityd, CPU us | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shape in _SMALL_SHAPES:
        figures: dict[str, _Figures] = defaultdict(_Figures)
        for _ in range(rounds):
            _round([floor, in_json], figures, *shape, seconds=seconds)
        bare, ours = (
            1e6 * shape[0] * statistics.median(figures[server.name].cpu_s_a_row)
            for server in (floor, in_json)
        )
        lines.append(f"| {shape[0]} | {shape[1]} | {bare:.1f} | {ours:.1f} | {ours / bare:.1f} |")

    def in_process() -> float:
        with only_on(theirs), asleep([floor, in_json]):
            return _in_process_rate(compiled, _LARGE)

    large = compare([in_npy, in_json], (_LARGE, 1), rounds, seconds, in_process)
    memory = (
        f"Resident memory of the API process with its model: {_rss_mib(service.api_pid):,.0f} MiB."
    )
    return "\n\n".join([machine(), "\n".join(lines), large, starts, memory]) + "\n"


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def installed(revision: str) -> Path:
    """Return the command `densityd` of a clone of a revision, which is made if there is none."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", f"{revision}^{{commit}}"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    clone = Path(tempfile.gettempdir()) / f"densityd-bench-{commit}"
    if not (clone / ".venv" / ".run-stamp").exists():
        print(f"installing {revision} into {clone}", file=sys.stderr)
        for command in (
            ["git", "clone", "--quiet", str(ROOT), str(clone)],
            ["git", "-C", str(clone), "checkout", "--quiet", commit],
            ["make", "--directory", str(clone), ".venv/.run-stamp"],
        ):
            subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603
    return clone / ".venv" / "bin" / "densityd"


def _starts(commands: dict[str, Path]) -> list[str]:
    # The first start compiles kernels, and is not counted.
    return [
        line
        for name, command in commands.items()
        for line in (startup.line(f"{name}, first", command), startup.line(name, command))
    ]


def compare(
    servers: list[Server],
    shape: tuple[int, int],
    rounds: int,
    seconds: float,
    in_process: Callable[[], float] | None = None,
) -> str:
    """Load each server in turn, all others stopped, and return a table.

    Args:
        shape: Rows of a request, and number of connections.
        in_process: Function that returns the rows a second of the flow in this process.
    """
    figures: dict[str, _Figures] = defaultdict(_Figures)
    direct = []
    for _ in range(rounds):
        _round(servers, figures, *shape, seconds=seconds)
        if in_process is not None:
            direct.append(in_process())
    return _table(shape, figures, statistics.median(direct) if direct else None)


def _round(
    servers: list[Server],
    figures: dict[str, _Figures],
    rows: int,
    connections: int,
    *,
    seconds: float,
) -> None:
    """Load each server in turn."""
    for server in servers:
        group = [server.request(_text(rows), rows)] * connections
        before = server.cpu_s()
        with asleep(servers, but=server):
            (load,) = uvloop.run(loads(server.port, [group], seconds=seconds))
        # The warm-up's requests cost the same; they come at the same rate.
        share = load.seconds / (load.seconds + load.warm_up_s)
        cpu_s = (server.cpu_s() - before) * share
        figures[server.name].add(load, rows=rows, cpu_s=cpu_s)


@contextmanager
def asleep(servers: list[Server], *, but: Server | None = None) -> Iterator[None]:
    """Stop all servers but the one that is measured."""
    awake = None if but is None else but.pid
    with ExitStack() as stack:
        for pid, server in {server.pid: server for server in servers}.items():
            if pid != awake:
                stack.enter_context(server.asleep())
        yield


def mixed(servers: list[Server], rounds: int, seconds: float) -> str:
    """Measure callers of one row beside one of very many rows."""
    small: dict[str, _Figures] = defaultdict(_Figures)
    large: dict[str, _Figures] = defaultdict(_Figures)
    for _ in range(rounds):
        for server in servers:
            one = [server.request(_text(1), 1)] * _SMALL
            many = [server.request(_text(_LARGE), _LARGE)]
            with asleep(servers, but=server):
                loaded = uvloop.run(loads(server.port, [one, many], seconds=2 * seconds))
            for figures, load in zip((small, large), loaded, strict=True):
                figures[server.name].add(load, rows=1, cpu_s=0)
    lines = [
        f"{_SMALL} callers of one row beside one of {_LARGE:,} rows:\n",
        "| | req/s of the small | p50 ms | p99 ms | rows/s of the large |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {statistics.median(small[name].rates):,.0f} | {small[name].ms(50):.1f}"
        f" | {small[name].ms(99):.1f} | {statistics.median(large[name].rates) * _LARGE:,.0f} |"
        for name in small
    ]
    return "\n".join(lines)


def _table(shape: tuple[int, int], figures: dict[str, _Figures], direct: float | None) -> str:
    """Return the figures; shares are of what the flow does in this process, or of the first server."""
    rows, connections = shape
    first = statistics.median(next(iter(figures.values())).rates) * rows
    whole, what = (first, "the first server") if direct is None else (direct, "in process")
    lines = [
        f"{rows:,} rows a request, {connections} connections ({what}: {whole:,.0f} rows/s):\n",
        f"| | req/s | rows/s | p50 ms | p99 ms | CPU us a row | share of {what} |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in figures.items():
        rate = statistics.median(found.rates)
        cpu_us = statistics.median(found.cpu_s_a_row) * 1e6
        lines.append(
            f"| {name} | {rate:,.1f} | {rate * rows:,.0f} | {found.ms(50):.2f} | {found.ms(99):.2f}"
            f" | {cpu_us:,.1f} | {rate * rows / whole:.2f} |"
        )
    return "\n".join(lines)


def _check_answers(servers: list[Server], compiled: CompiledFlow) -> None:
    """Check that all servers compute the same.

    Raises:
        AssertionError: One of them does not.
    """
    expected = compiled.log_prob(np.array(json.loads(_text(100))))
    for server in servers:
        answer = asyncio.run(ask(server.port, server.request(_text(100), 100)))
        document = json.loads(answer.body)
        scores = document["outputs"][0]["data"] if "outputs" in document else document["log_prob"]
        np.testing.assert_allclose(scores, expected, atol=1e-3, err_msg=server.name)


def _in_process_rate(compiled: CompiledFlow, rows: int) -> float:
    table = np.array(json.loads(_text(rows)))
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        compiled.log_prob(table)
        calls += 1
    return calls * rows / (time.perf_counter() - began)


@functools.cache
def _text(rows: int) -> str:
    """Return rows of normal numbers as JSON, four decimals each."""
    return json.dumps(np.random.default_rng(rows).normal(size=(rows, DIM)).round(4).tolist())


@contextmanager
def priority() -> Iterator[None]:
    """Raise the priority of this process and of the servers that it starts."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)


@contextmanager
def only_on(processors: set[int]) -> Iterator[None]:
    """Keep this process, and those that it starts, on some processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def machine() -> str:
    """Return the day, the machine and its load."""
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {platform.machine()}, torch"
        f" {torch.__version__}, Python {platform.python_version()}, load average {load:.1f}."
    )
