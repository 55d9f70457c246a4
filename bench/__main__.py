"""Command line of the benchmarks: measure, print markdown tables, and keep them."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import (
    cluster,
    data_parallel,
    flow_speed,
    scoring,
    serving,
    training,
    training_steps,
    upload,
)
from bench.crowd import measurement as crowd

MEASUREMENTS: dict[str, Callable[[], str]] = {
    "upload": upload.measure,
    "training": training.measure,
    "steps": training_steps.measure,
    "batch-norms": training_steps.measure_batch_norms,
    "scoring": scoring.measure,
    "flows": flow_speed.measure,
    "serving": serving.measure,
    "crowd": crowd.measure,
    "replicas": cluster.replicas,
    "workers": cluster.workers,
    "first-score": cluster.first_score,
    "data-parallel": data_parallel.measure,
}
QUICK: dict[str, Callable[[], str]] = {
    "steps": partial(training_steps.measure, quick=True),
    "batch-norms": partial(training_steps.measure_batch_norms, quick=True),
    "flows": partial(flow_speed.measure, quick=True),
    "serving": partial(serving.measure, quick=True),
    "crowd": partial(crowd.measure, quick=True),
    "replicas": partial(cluster.replicas, quick=True),
    "workers": partial(cluster.workers, quick=True),
    "first-score": partial(cluster.first_score, quick=True),
}
EXAMPLES = """
examples:
  python -m bench                     everything but `anomaly`, `quality` and `tables`
  python -m bench flows               the flow library beside its peers, 10 to 20 minutes
  python -m bench flows --quick       the same in a minute or two: wide networks left out
  python -m bench steps               training steps beside the same peers, about 5 minutes
  python -m bench batch-norms         what the statistics of batch norms cost an epoch, a minute
  python -m bench serving             scoring over HTTP beside other servers, about 8 minutes
  python -m bench crowd               what 2,000 connections of one tenant leave to another, 5 minutes
  python -m bench replicas --quick    rows/s of one and of two API processes, a minute
  python -m bench workers --quick     jobs/min of one and of two workers, a minute
  python -m bench data-parallel       what two processes gain at one training, 2 minutes
  python -m bench first-score         from a replica's readiness to its first score, a minute
  python -m bench scoring --output .  what the service adds, its table kept in this folder
  python -m bench anomaly --data DIR  the defaults as a detector of anomalies; see its own --help
  python -m bench quality --data DIR  all methods and peers at equal time; resumes, see its own --help
  python -m bench tables --data DIR   samples of tables with categories and gaps beside SDV's
"""


def main() -> None:
    """Run the named measurements, or all."""
    if sys.argv[1:2] == ["tables"]:
        from bench.tables import comparison  # noqa: PLC0415  pandas and scikit-learn take seconds to import

        print(comparison.measure(sys.argv[2:]), flush=True)
        return
    if sys.argv[1:2] == ["quality"]:
        from bench.tables import quality  # noqa: PLC0415  scikit-learn takes seconds to import

        print(quality.measure(sys.argv[2:]), flush=True)
        return
    if sys.argv[1:2] == ["anomaly"]:
        from bench import anomaly  # noqa: PLC0415  scikit-learn takes seconds to import

        print(anomaly.measure(sys.argv[2:]), flush=True)
        return
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
    parser.add_argument(
        "--output", type=Path, default=Path("data/bench"), help="folder for the tables"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"there is no measurement {name!r}, only {', '.join(MEASUREMENTS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or MEASUREMENTS:
        measure = QUICK.get(name, MEASUREMENTS[name]) if options.quick else MEASUREMENTS[name]
        text = measure()
        print(text, flush=True)
        path = options.output / f"{name}-{datetime.now(UTC):%Y-%m-%dT%H%M%S}.md"
        path.write_text(text)
        print(f"kept in {path}\n")


if __name__ == "__main__":
    main()
