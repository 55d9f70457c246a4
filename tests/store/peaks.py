"""Measures what flows take, in a process whose memory is given back at once.

Run as a program it reads one JSON object a line and answers each with the measured bytes.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Blocks from this size on are mapped, and unmapped when they are freed.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


class Measurer:
    """The child process."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.peaks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
        )

    def measure(self, task: dict[str, Any]) -> dict[str, int]:
        """Bytes by what takes them: the build, a step of training, the load, a score, a sample."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(task).encode() + b"\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, "the process ended"
        found: dict[str, int] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends it."""
        self._child.kill()
        self._child.communicate()


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _peak_of(do: Callable[[], Any]) -> tuple[int, Any]:
    """The most that a call takes over what there was before it, and its result."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = do()
    return max(0, _status("VmHWM") - before), result


def _measured(task: dict[str, Any]) -> dict[str, int]:
    import numpy as np  # noqa: PLC0415  in the child alone
    import torch  # noqa: PLC0415

    from flows import FitOptions, build, compile_flow, fit, spec_from_dict  # noqa: PLC0415

    torch.set_num_threads(1)
    spec, dim, context_dim = spec_from_dict(task["spec"]), task["dim"], task["context_dim"]
    rows = task["rows"]
    table = np.random.default_rng(0).standard_normal((rows, dim + context_dim))
    if task["spec"].get("conditional") == "bernoulli":
        table[:, :dim] = table[:, :dim] > 0
    data = torch.from_numpy(table)

    def made() -> Any:
        return build(spec, dim, context_dim=context_dim, seed=0)

    def trained(flow: Any) -> None:
        # One step, and the validation after it.
        options = FitOptions(batch_size=rows, max_epochs=1, weight_average=0.9)
        for _ in fit(flow, data, data[:2], options=options):
            pass

    found: dict[str, int] = {}
    found["build"], flow = _peak_of(made)
    if "train" in task["what"]:
        found["train"], _ = _peak_of(lambda: trained(flow))
    flow.eval()
    found["load"], compiled = _peak_of(lambda: compile_flow(flow))
    found["score"], _ = _peak_of(lambda: compiled.log_prob(table))
    if compiled.has_noise:
        found["inverse"], _ = _peak_of(lambda: compiled.inverse(table))
    context = table[:, dim:] if context_dim else None
    if "sample" in task["what"]:
        found["sample"], _ = _peak_of(lambda: compiled.sample(rows, seed=0, context=context))
    return found


def main() -> None:
    """Answers line by line."""
    import flows  # noqa: PLC0415, F401  so that no measurement counts it

    gc.freeze()  # each collection would look through all that was imported
    # Autograd, which trains networks with gelu, and splines import more of PyTorch.
    for family, context_dim in (("maf", 0), ("maf", 1), ("nsf", 0)):
        spec = {"family": family, "hidden": [4], "activation": "gelu"}
        task = {"spec": spec, "dim": 2, "context_dim": context_dim}
        _measured({**task, "rows": 4, "what": ["train", "sample"]})
    # Compiled loops, and parts of PyTorch, are loaded when the first flow needs them.
    for family in ("made", "maf", "nsf", "realnvp", "nice", "haf", "naf"):
        task = {"spec": {"family": family}, "dim": 5, "context_dim": 0}
        _measured({**task, "rows": 300, "what": ["train", "sample"]})
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_measured(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
