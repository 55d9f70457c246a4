"""Rows that got no score, of which `densityd score` tells."""

import io
from pathlib import Path

import numpy as np
import pytest

from densityd.terminal.unscored import CountedCsv, count_unscored
from tests.densityd.bodies import JOB
from tests.densityd.commands.people import ROWS
from tests.densityd.commands.running import run
from tests.densityd.scripted import Reply, ScriptedServer, a_json


@pytest.fixture
def gaps(tmp_path: Path) -> Path:
    """A table in which two rows lack a value."""
    rows = np.array(ROWS, dtype=float)
    rows[[0, 2], 1] = np.nan
    file = tmp_path / "gaps.csv"
    np.savetxt(file, rows, delimiter=",", header="height,weight,age", comments="")
    return file


@pytest.mark.parametrize("suffix", ["csv", "npy", "json", "ndjson", "arrows", "parquet"])
def test_rows_without_a_score_are_counted_in_files_of_each_format(
    gaps: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"scores.{suffix}"
    told = run("score", "people", gaps, "-o", output).stderr
    assert "2 rows have no score. A row that lacks a value of a column without gaps" in told
    assert ("`-o FILE.json` names the reason" in told) == ("json" not in suffix)


def test_rows_without_a_score_are_counted_on_standard_output(gaps: Path) -> None:
    result = run("score", "ranked", gaps, "--quantiles")
    assert result.stdout.count("nan") == 4
    assert "2 rows have no score" in result.stderr


def test_nothing_is_told_where_every_row_has_a_score(table: Path, tmp_path: Path) -> None:
    assert "no score" not in run("score", "people", table).stderr
    assert "no score" not in run("score", "people", table, "-o", tmp_path / "s.npy").stderr


def test_the_rows_without_a_score_of_a_job_are_those_of_its_metrics(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DENSITYD_URL", scripted.url)
    result = {"url": "/r", "media_type": "text/csv", "bytes": 5, "sha256": "x", "rows": 3}
    done = {**JOB, "kind": "scoring", "state": "succeeded", "result": result}
    done["metrics"] = {"rows": 3, "non_finite": 1, "mean_log_prob": 1.0}
    running = {**done, "state": "running", "result": None}
    scripted.replies = [a_json(running), a_json(running), a_json(done), Reply(body=b"bytes")]
    told = run("score", "m", "--dataset", "ds_1", "-o", tmp_path / "file.csv").stderr
    assert "1 row has no score. A row that lacks a value" in told


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_lines_are_counted_wherever_the_bytes_are_divided(step: int) -> None:
    text = b'log_prob,"nan\nnan ""x"" inf"\n1,nan\nnan,2\n-inf,3\n-1,nan\ninf,nan\nnan,1\n'
    written = io.BytesIO()
    counted = CountedCsv(written)
    for start in range(0, len(text), step):
        counted.write(text[start : start + step])
    counted.flush()
    assert written.getvalue() == text
    counted.count(b"\n")
    assert counted.unscored == 4


def test_a_file_of_one_score_a_row_is_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([1.0, np.nan, -np.inf]))
    assert count_unscored(tmp_path / "one.npy") == 2
    (tmp_path / "names.csv").write_bytes(b"log_prob")
    assert count_unscored(tmp_path / "names.csv") == 0
