"""``python -m densityd.service.kernels DATA_DIR``: compile the loops of the engine for this processor, once.

A file beside numba's cache, or in the data directory where that is read-only, says that it is done.
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


def main() -> None:
    """Compile, print a line as each part is ready, and note that the loops are compiled."""
    from flows.engine import compiling  # noqa: PLC0415 - `densityd up` needs only what is below

    compiling.main()
    mark_compiled(Path(sys.argv[1]))


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


if __name__ == "__main__":
    main()
