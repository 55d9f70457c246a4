"""Measure, and print markdown tables."""

import argparse
from collections.abc import Callable
from functools import partial

from bench import scoring, serving, training, upload

MEASUREMENTS: dict[str, Callable[[], str]] = {
    "upload": upload.measure,
    "training": training.measure,
    "scoring": scoring.measure,
    "serving": serving.measure,
}
QUICK: dict[str, Callable[[], str]] = {
    "serving": partial(serving.measure, quick=True),
}
EXAMPLES = """
examples:
  python -m bench                    everything
  python -m bench serving            scoring over HTTP beside other servers, about 6 minutes
  python -m bench serving --quick    the same in about two minutes: fewer and shorter rounds
"""


def main() -> None:
    """Run the named measurements, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument(
        "--quick", action="store_true", help=f"fewer and shorter rounds, of {', '.join(QUICK)}"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"there is no measurement {name!r}, only {', '.join(MEASUREMENTS)}")
    for name in options.names or MEASUREMENTS:
        measure = QUICK.get(name, MEASUREMENTS[name]) if options.quick else MEASUREMENTS[name]
        print(measure(), flush=True)


if __name__ == "__main__":
    main()
