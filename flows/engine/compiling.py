"""``python -m flows.engine.compiling``: compile all loops for this processor, and keep them in numba's cache."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed

from flows.engine.maps import registry
from flows.engine.serving import packing
from flows.engine.training import step

_PARTS: dict[str, Callable[[], object]] = {
    "densities and samples": packing.load_kernels,
    "training": step.load_kernels,
    "maps of single values": registry.compile_all,
}


def main() -> None:
    """Compile the parts two at a time, and print a line as each is ready."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_compile, part): part for part in _PARTS}
        for number, done in enumerate(as_completed(running), 1):
            done.result()
            print(f"{number} of {len(_PARTS)}: {running[done]}", flush=True)  # noqa: T201 - its output


def _compile(part: str) -> None:
    _PARTS[part]()


if __name__ == "__main__":
    main()
