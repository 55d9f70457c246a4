"""Many schedules: run seeds, and make the plan of one that fails as small as it goes."""

import gc
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.util import Finalize

from tests.simulation.plan import Plan, draw
from tests.simulation.world import LOGGERS, Grounds, Outcome, World

_PART = 20
_grounds: Grounds | None = None


def run_plan(plan: Plan, grounds: Grounds) -> Outcome:
    """Run one plan."""
    return World(plan, grounds).run()


def run_seed(seed: int, grounds: Grounds) -> Outcome:
    """Run the plan of a seed."""
    return run_plan(draw(seed), grounds)


def find_failure(seeds: Iterable[int], grounds: Grounds) -> Outcome | None:
    """The outcome of the first seed that breaks a promise, None if none does."""
    outcomes = (run_seed(seed, grounds) for seed in seeds)
    return next((outcome for outcome in outcomes if outcome.violation), None)


def find_failure_together(seeds: Sequence[int], processes: int) -> Outcome | None:
    """The same in several processes, each with grounds of its own; the least seed comes first.

    They are forks of this one, which has imported all that takes seconds, and runs nothing else.
    """
    parts = [seeds[at : at + _PART] for at in range(0, len(seeds), _PART)]
    gc.freeze()  # what is there stays: nobody looks through it again, nor copies its pages
    with ProcessPoolExecutor(processes, get_context("fork"), initializer=_prepare) as pool:
        for failed in pool.map(_failing_seed, parts):
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                return run_seed(failed, Grounds())
    return None


def _prepare() -> None:
    global _grounds  # noqa: PLW0603 - one for all parts of a process
    _grounds = Grounds()
    Finalize(_grounds, Grounds.close, (_grounds,), exitpriority=0)  # a fork ends without `atexit`
    for name in LOGGERS:  # once, not in each schedule
        logging.getLogger(name).setLevel(logging.INFO)


def _failing_seed(seeds: Sequence[int]) -> int | None:
    assert _grounds is not None
    failure = find_failure(seeds, _grounds)
    return None if failure is None else failure.plan.seed


def shrunk(failure: Outcome, grounds: Grounds) -> str:
    """What a person reads of a failure: the seed, and the smallest plan that still fails."""
    smallest = failure
    while True:
        smaller = (run_plan(plan, grounds) for plan in smallest.plan.smaller())
        found = next((outcome for outcome in smaller if _alike(outcome, failure)), None)
        if found is None:
            break
        smallest = found
    return "\n".join(
        [
            f"Seed {failure.plan.seed} breaks a promise: {failure.violation}",
            f"(python -m tests.simulation --seed {failure.plan.seed} tells all of it)",
            "The least that still does:",
            str(smallest.plan),
            *smallest.trace,
            f"broken: {smallest.violation}",
        ]
    )


def _alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes broke the same promise."""
    return _promise(one) is not None and _promise(one) == _promise(other)


def _promise(outcome: Outcome) -> str | None:
    return None if outcome.violation is None else outcome.violation.partition(" | ")[0]
