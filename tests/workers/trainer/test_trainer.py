"""What a trainer's process sets before its work."""

import errno
import subprocess
import sys

import pytest
import torch

from workers.protocol import SamplingTask, ScoringTask, TrainingTask, Unfit, VariationalTask
from workers.trainer import work

WORK = {
    TrainingTask: "workers.trainer.training.train",
    VariationalTask: "workers.trainer.variational.infer",
    ScoringTask: "workers.trainer.bulk.produce",
    SamplingTask: "workers.trainer.bulk.produce",
}


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take denormals for zero"
)
@pytest.mark.parametrize("kind", WORK)
def test_training_alone_takes_denormals_for_zero_from_its_start(kind, monkeypatch):
    halves = []

    def done(_task, _send, *, interrupted):
        assert interrupted is not None
        halves.append(float(torch.full((1,), torch.finfo(torch.float32).tiny) / 2))

    monkeypatch.setattr(WORK[kind], done)
    task = kind.model_construct(memory_bytes=None, device="cpu")
    try:
        work.prepare(task)
        work.do(task, lambda _: None, bool)
    finally:
        torch.set_flush_denormal(False)
    [half] = halves
    assert (half == 0) == (kind in (TrainingTask, VariationalTask))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("can't start new thread"), BlockingIOError(errno.EAGAIN, "try again")],
)
def test_a_thread_that_is_not_started_is_the_fault_of_no_job(error):
    task = TrainingTask.model_construct(memory_bytes=None)  # type: ignore[call-arg]  # all that is read
    outcome = work.outcome_of(error, task)
    assert isinstance(outcome, Unfit)
    assert outcome.code == "process_limit"


def test_a_thread_for_which_the_job_left_no_memory_is_its_own_fault():
    program = (
        "import resource, threading\n"
        "from workers.protocol import TrainingTask\n"
        "from workers.trainer import work\n"
        "used = int(open('/proc/self/status').read().partition('VmData:')[2].split()[0]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 4 * 2**20,) * 2)\n"
        "try:\n"
        "    threading.Thread(target=print).start()\n"
        "except RuntimeError as error:\n"
        "    task = TrainingTask.model_construct(memory_bytes=2**30)\n"
        "    print(work.outcome_of(error, task).code)\n"
    )
    told = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "oom"
