"""The examples send the key that they are given, and say what is missing where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ["quickstart.sh", "penguins.sh", "quickstart.py", "variational.py"]


def run(example: str, url: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: text for name, text in os.environ.items() if name != "DENSITYD_API_KEY"}
    program = "sh" if example.endswith(".sh") else sys.executable
    return subprocess.run(  # noqa: S603 - our own command
        [program, str(ROOT / "examples" / example), url],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_names_the_key_that_is_missing(guarded_server, example):
    done = run(example, guarded_server[0])
    assert done.returncode == 1
    assert "DENSITYD_API_KEY" in done.stdout + done.stderr
    assert "densityd keys create --scope write" in done.stdout + done.stderr


def test_an_example_says_that_no_service_answers() -> None:
    done = run("quickstart.sh", "http://127.0.0.1:9")
    assert (done.returncode, "make up" in done.stderr) == (1, True)
