"""``python -m tests.simulation``: run schedules, or one again with all that happens in it."""

import argparse
import os
import sys
import time
from contextlib import closing

from tests.simulation.schedules import find_failure_together, run_seed, shrunk
from tests.simulation.world import Grounds


def main() -> int:
    """The exit status: 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="run this one and tell all of it")
    parser.add_argument("--schedules", type=int, default=1000, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="of them at once"
    )
    given = parser.parse_args()
    if given.seed is not None:
        with closing(Grounds()) as grounds:
            outcome = run_seed(given.seed, grounds)
        print(outcome.plan, *outcome.trace, sep="\n")
        print(f"broken: {outcome.violation}" if outcome.violation else "all is well")
        return int(outcome.violation is not None)
    began = time.perf_counter()
    seeds = range(given.first, given.first + given.schedules)
    failure = find_failure_together(seeds, given.processes)
    done = given.schedules if failure is None else failure.plan.seed - given.first + 1
    rate = done / (time.perf_counter() - began) * 60
    print(f"{done} schedules, {rate:,.0f} a minute")
    if failure is not None:
        with closing(Grounds()) as grounds:
            print(shrunk(failure, grounds))
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main())
