"""No schedule breaks a promise, and a seed replays. `make simulate` runs seeds that nobody has seen."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.plan import Plan, draw
from tests.simulation.schedules import run_seed, shrunk
from tests.simulation.world import Grounds

_BATCH = 50
_BATCHES = 5
_SHORT = 1


def check(seeds: range, grounds: Grounds) -> None:
    for seed in seeds:
        outcome = run_seed(seed, grounds)
        assert outcome.violation is None, shrunk(outcome, grounds)


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(batch, marks=() if batch < _SHORT else pytest.mark.long)
        for batch in range(_BATCHES)
    ],
)
def test_no_schedule_breaks_a_promise(grounds: Grounds, batch: int) -> None:
    check(range(batch * _BATCH, (batch + 1) * _BATCH), grounds)


@pytest.mark.long
def test_a_seed_gives_the_same_schedule_in_every_process(grounds: Grounds) -> None:
    # One whose log does not tell the path and the identity of the store.
    seed = next(seed for seed in range(100) if len(draw(seed).faults) > 3 and healthy(draw(seed)))
    program = (
        "from tests.simulation.test_simulation import digest\n"
        "from tests.simulation.world import Grounds\n"
        f"print(digest({seed}, Grounds()))"
    )
    other = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert digest(seed, grounds) == digest(seed, grounds) == other.stdout.strip()


def healthy(plan: Plan) -> bool:
    return all(worker.sickness is None for worker in plan.workers)


def digest(seed: int, grounds: Grounds) -> str:
    """A hash of all that happens in a schedule."""
    return hashlib.sha256("\n".join(run_seed(seed, grounds).trace).encode()).hexdigest()
