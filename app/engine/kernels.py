"""Whether the loops of the engine are compiled for this processor: a file beside numba's cache says so.

It is in the data directory where the cache is read-only. Were it wrong, the API and the trainers would compile
by themselves what they need.
"""

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

_ENGINE = Path(__file__).parents[2] / "flows" / "engine"  # its import takes seconds
_PROCESSOR = ("model name", "flags", "CPU part", "Features")


def are_compiled(data_dir: Path) -> bool:
    """Return whether this installation has compiled its loops on such a processor."""
    depends_on = _depends_on()
    return any(
        stamp.exists() and stamp.read_text("utf-8") == depends_on for stamp in _stamps(data_dir)
    )


def mark_compiled(data_dir: Path) -> None:
    """Note that the loops are compiled."""
    for stamp in _stamps(data_dir):
        try:
            stamp.write_text(_depends_on(), "utf-8")
        except OSError:
            continue
        return


def _stamps(data_dir: Path) -> list[Path]:
    cache = os.environ.get("NUMBA_CACHE_DIR", _ENGINE / "__pycache__")
    return [Path(folder) / "kernels-compiled-for" for folder in (cache, data_dir)]


def _depends_on() -> str:
    """Return a hash of the sources, their compiler, its cache and the processor."""
    sources = [file.read_bytes() for file in sorted(_ENGINE.rglob("*.py"))]
    first, *_ = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")
    processor = [line for line in first.splitlines() if line.startswith(_PROCESSOR)]
    cache = os.environ.get("NUMBA_CACHE_DIR", sys.prefix)
    told = [version("numba"), version("llvmlite"), cache, *processor]
    return hashlib.sha256(b"\n".join([*sources, *map(str.encode, told)])).hexdigest()
