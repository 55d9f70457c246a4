"""Measure, print markdown tables, and keep them."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from bench import flow_speed, scoring, training, upload

MEASUREMENTS = {
    "upload": upload.measure,
    "training": training.measure,
    "scoring": scoring.measure,
    "flows": flow_speed.measure,
}
EXAMPLES = """
examples:
  python -m bench                    everything
  python -m bench flows              the flow library beside its peers, 10 to 20 minutes
  python -m bench flows --quick      the same in a minute or two: wide networks left out
  python -m bench scoring --output . what the service adds, its table kept in this folder
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
    parser.add_argument("--quick", action="store_true", help="of flows: fewer and shorter rounds")
    parser.add_argument(
        "--output", type=Path, default=Path("data/bench"), help="folder for the tables"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"there is no measurement {name!r}, only {', '.join(MEASUREMENTS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or MEASUREMENTS:
        quick = options.quick and name == "flows"
        text = flow_speed.measure(quick=True) if quick else MEASUREMENTS[name]()
        print(text, flush=True)
        path = options.output / f"{name}-{datetime.now(UTC):%Y-%m-%dT%H%M%S}.md"
        path.write_text(text)
        print(f"kept in {path}\n")


if __name__ == "__main__":
    main()
