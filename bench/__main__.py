"""Command line of the benchmarks: measure, print markdown tables, and keep them."""

import argparse
import importlib
from datetime import UTC, datetime
from pathlib import Path

PROGRAMS = {
    "flows": "scoring, sampling and training steps beside zuko and nflows",
    "serving": "scoring over HTTP beside other servers, or other revisions of the service",
    "startup": "processor time to readiness, and memory of an idle service",
    "quality": "samples and densities of a folder of CSV files beside SDV",
}
EXAMPLES = """
examples:
  python -m bench flows --quick            in a minute or two: wide networks left out
  python -m bench serving                  about eight minutes
  python -m bench serving --floor          two minutes: the price of a request alone
  python -m bench serving --beside v0.1.0  five minutes, and two for the environment
  python -m bench startup                  a minute
  python -m bench quality --data FOLDER    minutes a table; continues where it was stopped
  python -m bench flows --help             the options of one program
"""


def main() -> None:
    """Run one program with its own options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="\n".join(["programs:", *(f"  {n:12}{what}" for n, what in PROGRAMS.items())])
        + f"\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", choices=PROGRAMS, metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the program; see its --help")
    given = parser.parse_args()
    text = importlib.import_module(f"bench.{given.program}").measure(given.options)
    print(text, flush=True)
    folder = Path("data/bench")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{given.program}-{datetime.now(UTC):%Y-%m-%dT%H%M%S}.md"
    path.write_text(text)
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
