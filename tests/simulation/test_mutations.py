"""Each promise is watched: a decision that keeps it, taken back, makes some schedule fail."""

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.plan import draw
from tests.simulation.schedules import run_plan
from tests.simulation.world import Grounds

_SEEDS = range(400)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_decision_that_is_taken_back_is_noticed(
    grounds: Grounds, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    for change in mutation.changes:
        change.make(monkeypatch)
    plans = (mutation.where(draw(seed)) for seed in _SEEDS)
    found = (run_plan(plan, grounds).violation for plan in plans)
    assert any(violation and mutation.breaks in violation for violation in found)
