"""Metrics of several API processes, which outlive each of them."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from app.metrics import SHARED_METRICS, make_shared_metrics
from tests.disks import Disks

PROCESS = """
import shutil, sys
from pathlib import Path
from app.metrics import Metrics, make_shared_metrics, share_metrics
Path(sys.argv[2]).mkdir(exist_ok=True)
make_shared_metrics(Path(sys.argv[2]), int(sys.argv[1]))
share_metrics(int(sys.argv[1]))
metrics = Metrics()
metrics.observe(method="GET", route="/livez", status=200, seconds=0.1)
metrics.in_flight.inc()
print(metrics.render().decode())
"""
COUNT = 'densityd_http_requests_total{method="GET",route="/livez",status="200"}'


def told(folder, number, program=PROCESS):
    """Metrics of all processes, after one has begun, counted a request and died."""
    text = subprocess.run(  # noqa: S603  our own text
        [sys.executable, "-c", program, str(number), str(folder)],
        env={**os.environ, SHARED_METRICS: str(folder), "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(sample.rsplit(" ", 1) for sample in samples)


def test_a_process_that_is_replaced_again_and_again_leaves_no_more_files(tmp_path):
    assert told(tmp_path, 0)[COUNT] == "1.0"
    assert told(tmp_path, 1)[COUNT] == "2.0"
    files = {file: file.stat().st_size for file in tmp_path.iterdir()}
    for count in (3, 4):
        seen = told(tmp_path, 0)
        assert float(seen[COUNT]) == count
        assert (
            seen["densityd_http_requests_in_flight"] == "2.0"
        )  # of the last one, and of the other
    assert {file: file.stat().st_size for file in tmp_path.iterdir()} == files


def test_without_room_for_metrics_there_is_an_error_and_no_part_of_a_file(tmp_path):
    folder = tmp_path / "small"
    with closing(Disks({folder: "4m"})) as disks:
        inside = disks.inside(folder)
        disks.fill(folder)
        with pytest.raises(OSError, match="No space left"):
            make_shared_metrics(inside, 0)
        assert not list(inside.glob("*.db"))


def test_a_process_without_the_folder_of_all_tells_its_own_metrics(tmp_path):
    gone = PROCESS.replace("print(", "shutil.rmtree(sys.argv[2])\nprint(")
    assert told(tmp_path / "metrics", 0, gone)[COUNT] == "1.0"
