"""Every target on its seeds, and on some damage: `make fuzz` looks for minutes."""

import pytest
from hypothesis import given, settings, strategies as st

from tests.fuzz.targets import TARGETS

# Damaged tables and rows have tests of their own beside the code that reads them.
_QUICK = [name for name in TARGETS if not name.startswith(("rows", "table"))]


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_pass_its_check(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].check(seed)
    TARGETS[name].check(b"")


@pytest.mark.parametrize("name", _QUICK)
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_damaged_and_spliced_seeds_pass_the_check(name, data):
    target = TARGETS[name]
    damaged = bytearray(data.draw(st.sampled_from(target.seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = data.draw(st.integers(start, min(len(damaged), start + 6)))
        words = st.sampled_from(target.words) | st.binary(max_size=4)
        damaged[start:stop] = data.draw(words)
    target.check(bytes(damaged))
