"""The service of this checkout beside those of other revisions: the same load, one awake at a time.

Each revision is cloned into a temporary folder with an environment of its own, which a later run finds again.
The load comes from this process, on the last processor; the servers have the others.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import startup
from bench.servers import ROOT, service_with_model
from bench.service import DENSITYD
from bench.serving import compare, machine, mixed, only_on, priority

_JSON = (1, 32), (1, 1), (100, 32)
_NPY = ((10_000, 1),)


def measure(arguments: Sequence[str]) -> str:
    """Return tables of this checkout and the revisions."""
    parser = argparse.ArgumentParser("python -m bench sidebyside", description=__doc__)
    parser.add_argument("revisions", nargs="+", metavar="REVISION", help="for example v0.1.0")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each service (5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn (1.5)")
    options = parser.parse_args(arguments)
    commands = {name: installed(name) for name in options.revisions} | {"this": DENSITYD}
    sections = [machine(), "\n".join([*startup.HEAD, *_starts(commands)])]
    processors = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.enter_context(priority())
        stack.enter_context(only_on(processors - {max(processors)} or processors))
        services = [
            stack.enter_context(service_with_model(name, command))
            for name, command in commands.items()
        ]
        stack.enter_context(only_on({max(processors)}))
        in_json, in_npy = [found[1] for found in services], [found[2] for found in services]
        for servers, shapes in ((in_json, _JSON), (in_npy, _NPY)):
            for shape in shapes:
                sections.append(compare(servers, shape, options.rounds, options.seconds))
                print(sections[-1], file=sys.stderr, flush=True)
        sections.append(mixed(in_json, options.rounds, options.seconds))
    return "\n\n".join(sections) + "\n"


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
