"""The parser in a process of its own: the same answers, within limits, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tabular.errors import SandboxKilledError, TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.ingest.parse import parse_table, parse_table_isolated
from tabular.sandbox.child import run_child
from tests.waiting import is_alive, wait_until

Child = Callable[..., dict[str, object]]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Run a child that confines itself and then does what a test says."""

    def run(body: str, *, timeout_s: float = 120.0) -> dict[str, object]:
        (tmp_path / "errant.py").write_text(
            "from tabular.sandbox.child import confine, read_task, write_outcome\n"
            "task = read_task()\n"
            "confine(parent=task['parent'], memory_bytes=300 << 20, timeout_s=task['cpu_s'])\n"
            + body
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return run_child("errant", {"cpu_s": 1.0}, timeout_s=timeout_s)

    return run


def test_the_child_gives_the_same_summary_and_file(tmp_path):
    source = tmp_path / "upload"
    source.write_bytes("größe,b\n1.5,2\n2.5,4\n,5\n".encode())
    options = ParseOptions(missing="drop")
    here = parse_table(source, tmp_path / "here.npy", format=TableFormat.CSV, options=options)
    there = parse_table_isolated(
        source, tmp_path / "there.npy", format=TableFormat.CSV, options=options
    )
    assert there == here
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()


def test_the_child_gives_the_same_error_and_no_file(tmp_path):
    (tmp_path / "upload").write_bytes(b"a,b\n1,2\n2,inf\n")
    options = ParseOptions(missing="error")
    with pytest.raises(TableError) as caught:
        parse_table_isolated(
            tmp_path / "upload", tmp_path / "table.npy", format=TableFormat.CSV, options=options
        )
    error = caught.value
    assert (error.slug, error.column, error.row) == ("dataset-nonfinite", "b", 2)
    assert not (tmp_path / "table.npy").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_is_told_by_the_child(tmp_path):
    np.save(tmp_path / "upload.npy", np.random.default_rng(0).normal(size=(9000, 9)))
    (tmp_path / "table.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        parse_table_isolated(
            tmp_path / "upload.npy", tmp_path / "table.npy", format=TableFormat.NPY
        )


def test_a_parser_that_takes_too_long_is_killed_and_leaves_no_file(tmp_path):
    (tmp_path / "upload").write_bytes(b"a,b\n1,2\n2,3\n")
    (tmp_path / "table.npy").write_bytes(b"half")
    with pytest.raises(TableError) as caught:
        parse_table_isolated(
            tmp_path / "upload", tmp_path / "table.npy", format=TableFormat.CSV, timeout_s=0.01
        )
    assert caught.value.slug == "dataset-too-large"
    assert not (tmp_path / "table.npy").exists()


def test_a_child_that_needs_too_much_processor_time_is_ended(child):
    with pytest.raises(TableError) as caught:
        child("while True: pass\n")
    assert caught.value.slug == "dataset-too-large"
    assert "took longer" in caught.value.detail


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits this")
def test_a_child_cannot_have_more_memory_than_its_limit(child):
    outcome = child(
        "try:\n    data = bytearray(400 << 20)\n"
        "except MemoryError:\n    write_outcome({'refused': True})\n"
    )
    assert outcome == {"refused": True}


@pytest.mark.parametrize(
    ("number", "slug"),
    [
        (signal.SIGSEGV, "dataset-parse"),
        (signal.SIGABRT, "dataset-parse"),
        (signal.SIGXCPU, "dataset-too-large"),
    ],
)
def test_a_child_that_a_signal_ends_is_the_files_fault(child, number, slug):
    with pytest.raises(TableError) as caught:
        child(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    assert caught.value.slug == slug


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_child_that_others_end_is_not_the_files_fault(child, number, caplog):
    with pytest.raises(SandboxKilledError) as caught:
        child(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    assert caught.value.slug == "overloaded"
    assert f"by signal {int(number)}" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGQUIT, signal.SIGUSR1])
def test_no_signal_that_a_file_does_not_cause_is_its_fault(child, number, caplog):
    with pytest.raises(SandboxKilledError):
        child(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    assert f"from outside, by signal {int(number)}" in caplog.text


def test_the_log_says_by_which_signal_a_process_crashed(child, caplog):
    with pytest.raises(TableError):
        child("import os, sys\nprint('corrupted', file=sys.stderr, flush=True)\nos.abort()\n")
    assert f"crashed, by signal {int(signal.SIGABRT)}: corrupted" in caplog.text


@pytest.mark.parametrize("reason", ["Failed to launch worker thread: Resource", "Failed to read"])
def test_a_file_is_not_called_damaged_where_its_reader_got_no_memory_for_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    (tmp_path / "refused.py").write_text(
        "import pyarrow as pa\n"
        "from tabular.arrow.messages import decoding\n"
        "from tabular.sandbox.child import do_task\n"
        "def read(_task):\n"
        "    with decoding():\n"
        f"        raise pa.ArrowException('Unknown error: {reason}')\n"
        "do_task(read)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    task = {"memory_bytes": 300 << 20, "timeout_s": 60}
    with pytest.raises(TableError) as caught:
        run_child("refused", task, timeout_s=120)
    expected = "dataset-too-large" if "thread" in reason else "dataset-parse"
    assert caught.value.slug == expected


def test_a_file_is_not_blamed_where_its_process_may_start_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limited.py").write_text(
        "import threading\n"
        "from tabular.sandbox.child import do_task\n"
        "def refuse(_thread):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
        "do_task(lambda task: {'rows': task['rows']})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    task = {"rows": 3, "memory_bytes": 300 << 20, "timeout_s": 60}
    with pytest.raises(BlockingIOError):
        run_child("limited", task, timeout_s=120)


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", "os.abort()"),
        ("memory allocation of 262144 bytes failed", "os.abort()"),
        ("libgomp: Thread creation failed: Resource temporarily unavailable", "os._exit(1)"),
        ("OpenBLAS error: Memory allocation still failed after 10 retries", "os._exit(1)"),
        ("", "raise ImportError('lib.so: failed to map segment from shared object')"),
        ("", 'raise RuntimeError("can\'t start new thread")'),
        ("", "raise OSError(12, 'Cannot allocate memory')"),
    ],
)
def test_a_child_that_ends_for_lack_of_memory_took_too_much(child, said, end):
    with pytest.raises(TableError) as caught:
        child(f"import os, sys\nprint({said!r}, file=sys.stderr, flush=True)\n{end}\n")
    assert caught.value.slug == "dataset-too-large"
    assert "memory" in caught.value.detail


@pytest.mark.parametrize("body", ["raise ValueError('a bug')\n", "raise KeyboardInterrupt\n"])
def test_a_child_that_fails_by_itself_is_our_fault(child, body):
    with pytest.raises(RuntimeError, match="status"):
        child(body)


def test_a_child_sees_no_secret_of_the_parent(child, monkeypatch):
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "postgresql://user:s3same@host/db")
    outcome = child("import os\nwrite_outcome(dict(os.environ))\n")
    assert "s3same" not in json.dumps(outcome)


def test_a_child_gives_way_before_it_imports_anything(tmp_path, monkeypatch):
    (tmp_path / "polite.py").write_text(
        "import os\n"
        "at_first = os.getpriority(os.PRIO_PROCESS, 0)\n"
        "from tabular.sandbox.child import do_task\n"
        "do_task(lambda _: {'niceness': [at_first, os.getpriority(os.PRIO_PROCESS, 0)]})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    task = {"memory_bytes": 300 << 20, "timeout_s": 60.0}
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    outcome = run_child("polite", task, timeout_s=120)
    assert outcome["niceness"] == [min(ours + 5, 19)] * 2


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
def test_a_child_dies_with_its_parent(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, time\n"
        "from tabular.sandbox.child import confine, read_task\n"
        "confine(parent=read_task()['parent'], memory_bytes=1 << 30, timeout_s=60.0)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(60)\n"
    )
    code = "from tabular.sandbox.child import run_child;run_child('sleeper', {}, timeout_s=60.0)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(  # noqa: S603 - a command of our own
        [sys.executable, "-c", code], env=environment
    ) as parent:
        try:
            wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        finally:
            parent.kill()
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts stacks as data")
def test_csv_is_read_where_there_is_no_memory_for_a_further_thread(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,x\n2,y\n")
    (tmp_path / "late.py").write_text(
        "import re, resource\n"
        "from pathlib import Path\n"
        "from tabular.formats import ParseOptions\n"
        "from tabular.readers.csv import open_csv_cells\n"
        "from tabular.sandbox.reader_threads import start_threads\n"
        "start_threads({'format': 'csv'})\n"
        "data = re.search(r'VmData:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "limit = 1024 * int(data) + (100 << 20)  # less than the stack of a thread\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
        "table = open_csv_cells(Path('table.csv'), ParseOptions())\n"
        "print(sum(batch.num_rows for batch in table.read(frozenset([1]))))\n"
    )
    done = subprocess.run(  # noqa: S603  a program of our own
        ["/bin/sh", "-c", f"ulimit -s 262144; exec {sys.executable} late.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "2\n"
