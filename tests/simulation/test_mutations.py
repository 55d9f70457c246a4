"""Each promise is watched: a decision that keeps it, taken back, makes some schedule fail."""

from collections.abc import Iterator

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation, forget_statements
from tests.simulation.plan import draw
from tests.simulation.schedules import run_plan
from tests.simulation.world import Grounds

# All of them, but early one in which a success follows a cancel, which few have.
_SEEDS = [*range(10), 158, *range(10, 158), *range(159, 400)]


@pytest.fixture
def changed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mutation]:
    """A mutation while it holds."""
    for change in mutation.changes:
        change.make(monkeypatch)
    forget_statements()
    yield mutation
    monkeypatch.undo()
    forget_statements()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_decision_that_is_taken_back_is_noticed(grounds: Grounds, changed: Mutation) -> None:
    plans = (changed.where(draw(seed)) for seed in _SEEDS)
    found = (run_plan(plan, grounds).violation for plan in plans)
    assert any(violation and changed.breaks in violation for violation in found)
