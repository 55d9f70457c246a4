"""Start and memory of an idle `densityd up`: processor time until it is ready, and memory then.

Memory is the proportional set size of all its processes: what several share counts once.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bench.servers import DENSITYD, Service, cpu_s, ended_children_s, family, running_service

_SETTLED_S = 20


def measure(arguments: Sequence[str]) -> str:
    """Start the service some times and return a table."""
    parser = argparse.ArgumentParser("python -m bench startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of starts (3)")
    options = parser.parse_args(arguments)
    return "\n".join([*HEAD, *(line(str(n + 1)) for n in range(options.rounds))]) + "\n"


HEAD = (
    f"| start | seconds to ready | processor seconds | PSS after {_SETTLED_S} s, MiB | processes | API, MB |",
    "| --- | --- | --- | --- | --- | --- |",
)


def line(name: str, densityd: Path = DENSITYD) -> str:
    """Start the service of an environment once, and return a line below `HEAD`."""
    began = time.perf_counter()
    with running_service(densityd) as service:
        seconds, spent = time.perf_counter() - began, start_cpu_s(service)
        time.sleep(_SETTLED_S)
        pids = list(family(service.pid))
        return (
            f"| {name} | {seconds:.1f} | {spent:.1f} | {pss_mib(service):,.0f} | {len(pids)} |"
            f" {api_mb(service):,.0f} |"
        )


def start_cpu_s(service: Service) -> float:
    """Return the processor time of all processes of a service so far, those that have ended included."""
    return sum(map(cpu_s, family(service.pid))) + ended_children_s(service.pid)


def pss_mib(service: Service) -> float:
    """Return the proportional set size of all processes of a service, in MiB."""
    return sum(_rolled_kib(pid, "Pss") for pid in family(service.pid)) / 1024


def api_mb(service: Service) -> float:
    """Return the resident memory of the API process, in megabytes."""
    return _rolled_kib(service.api_pid, "Rss") * 1024 / 1e6


def _rolled_kib(pid: int, name: str) -> int:
    rolled = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rolled.partition(f"\n{name}:")[2].split()[0])
