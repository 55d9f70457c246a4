"""A short form of `python -m tests.chaos`; `.ci/run` runs the long one."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_service_that_is_killed_at_random_keeps_every_promise(database: str) -> None:
    options = ["--database", database, "--jobs", "12", "--kills", "8"]
    run = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.chaos", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    sys.stdout.write(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
