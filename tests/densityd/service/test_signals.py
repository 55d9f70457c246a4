"""Signals that end `densityd up`."""

import signal
from collections.abc import Iterator

import pytest

from densityd.service.signals import Signals


@pytest.fixture
def hang_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Return what the process was started with for SIGHUP."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("hang_up", "endings"), [(signal.SIG_IGN, 1), (signal.SIG_DFL, 2)], indirect=["hang_up"]
)
@pytest.mark.usefixtures("hang_up")
def test_a_closed_terminal_ends_it_unless_nohup_has_it_ignored(endings: int) -> None:
    with Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        signals.wait(60)
        assert signals.asked_to_end == endings
