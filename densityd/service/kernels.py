"""``python -m densityd.service.kernels DATA_DIR``: compile the loops of the engine for this processor, once."""

import sys
from pathlib import Path

from app.engine.kernels import mark_compiled
from flows.engine import compiling


def main() -> None:
    """Compile, print a line as each part is ready, and note that the loops are compiled."""
    compiling.main()
    mark_compiled(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
