"""Whether the loops of the engine have been compiled for this processor: a file in the data directory.

Were it wrong, the API and the trainers would compile by themselves what they need.
"""

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from models_store.files import private_files

_ENGINE = Path(private_files.__file__).parents[2] / "flows" / "engine"  # its import takes seconds
_PROCESSOR = ("model name", "flags", "CPU part", "Features")


def are_compiled(data_dir: Path) -> bool:
    """Return whether this installation has compiled its loops on such a processor."""
    stamp = _stamp(data_dir)
    return stamp.exists() and stamp.read_text("utf-8") == _depends_on()


def mark_compiled(data_dir: Path) -> None:
    """Note that the loops are compiled."""
    _stamp(data_dir).write_text(_depends_on(), "utf-8")


def _stamp(data_dir: Path) -> Path:
    return data_dir / "kernels-compiled-for"


def _depends_on() -> str:
    """Return a hash of the sources, their compiler, its cache and the processor."""
    sources = [file.read_bytes() for file in sorted(_ENGINE.rglob("*.py"))]
    first, *_ = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")
    processor = [line for line in first.splitlines() if line.startswith(_PROCESSOR)]
    cache = os.environ.get("NUMBA_CACHE_DIR", sys.prefix)
    told = [version("numba"), version("llvmlite"), cache, *processor]
    return hashlib.sha256(b"\n".join([*sources, *map(str.encode, told)])).hexdigest()
