"""The blocks of the README, run as they are printed, and the numbers that it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_URL = "http://127.0.0.1:8000"
_NEAR_NATS = 1.5  # processors add up in different orders, and a training amplifies it


def test_the_blocks_of_the_readme_run_as_printed(up, tmp_path):
    blocks = _BLOCK.findall((_ROOT / "README.md").read_text())
    assert "densityd up" in blocks[0][1]  # the service, which runs already
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    printed = ""
    compared = 0
    for kind, block in blocks[1:]:
        if kind == "text":
            near = pytest.approx(_numbers(block), abs=_NEAR_NATS, rel=0.1)
            assert _numbers(printed)[:5] == near, printed
            compared += 1
            continue
        program = [sys.executable, "-"] if kind == "python" else ["/bin/bash", "-eu"]
        done = subprocess.run(  # noqa: S603 - what we print
            program,
            input=block.replace(_URL, up.url),
            env={**os.environ, "DENSITYD_URL": up.url, "PATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        assert '"status":4' not in done.stdout.replace(" ", ""), done.stdout
        printed = done.stdout.partition("log_prob\n")[2] or done.stdout
    assert compared == 1


def _numbers(text: str) -> list[float]:
    return [float(line) for line in text.split() if re.fullmatch(r"-?\d+\.\d+", line)]
