"""Helpers of a training: processes on further devices, which compute the gradients of shares of each batch."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict

from flows import DataParallel, Flow, Table, serve_gradients
from flows.training.data_parallel import is_worthwhile
from models_store.errors import StoreError
from models_store.files.blobs import model_key
from models_store.files.checkpoints import load_model, save_model
from models_store.files.local_blobs import LocalBlobs
from models_store.requests.training import AcceptedTraining
from tabular.sandbox.parent_death import die_with
from workers.errors import UnfitError
from workers.meetings import meeting

log = logging.getLogger(__name__)

OUT_OF_MEMORY = 77
"""Exit status of a helper that had too little memory."""

_READY = b"ready\n"
_FLOW = model_key("helpers", 1)
# Between two steps rank 0 evaluates, for as long as it takes: a helper waits, and dies with it.
_WAIT = timedelta(days=365)
_END_S = 5.0


class _Work(BaseModel):
    """Work of a helper, which reads it from its standard input.

    Attributes:
        parent_pid: Process id of the trainer.
        folder: Folder where the processes meet, and which has the flow.
        rank: Rank of the helper among the processes.
        size: Number of the processes.
        device: Device of the helper.
        threads: Number of its threads on the CPU.
        sha256: Hash of the file of the flow.
        request: Request of the training, with the choices that its rows decide.
        batch_size: Rows of the largest batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent_pid: int
    folder: Path
    rank: int
    size: int
    device: str
    threads: int
    sha256: str
    request: AcceptedTraining
    batch_size: int


@contextmanager
def helped_by(
    devices: Sequence[str], flow: Flow, request: AcceptedTraining, train: Table
) -> Iterator[DataParallel | None]:
    """Return a context with a helper on each device; it yields None if they would not help.

    If a helper ends before the training does, this process ends in the same way.

    Args:
        devices: Device of each helper.
        flow: Flow to train, on the device of this process.
        request: Request of the training, with the choices that its rows decide.
        train: Training rows.

    Raises:
        MemoryError: A helper had too little memory.
        UnfitError: Helpers cannot be started.
    """
    if not devices:
        yield None
        return
    size, most = 1 + len(devices), request.optimisation.largest_batch(len(train))
    if not is_worthwhile(flow, batch_size=most, processes=size):
        yield None
        return
    helpers = list[subprocess.Popen[bytes]]()
    with meeting() as folder:
        try:
            try:
                _start(helpers, devices, flow, request, folder=folder, batch_size=most)
            except (OSError, StoreError) as error:
                detail = f"The helpers of a training cannot be started: {error}"
                raise UnfitError("device_unavailable", detail) from error
            with _ending(helpers, DataParallel(flow.device)) as parallel:
                yield parallel
        except RuntimeError:  # of a broken connection, for one
            shutil.rmtree(folder)
            _end_like(helpers)
            raise
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()
            if dist.is_initialized():
                dist.destroy_process_group()


@contextmanager
def _ending(
    helpers: "list[subprocess.Popen[bytes]]", parallel: DataParallel
) -> Iterator[DataParallel]:
    """Return a context after which helpers end, unless it failed, perhaps while they wait for this process."""
    try:
        yield parallel
    except (RuntimeError, MemoryError):
        raise
    except BaseException:
        parallel.end()
        raise
    parallel.end()
    for helper in helpers:
        with suppress(subprocess.TimeoutExpired):
            helper.wait(_END_S)


def serve() -> None:
    """Be a helper: compute gradients until the trainer that started this process needs no more."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the trainer decides
        signal.signal(number, signal.SIG_IGN)
    work = _Work.model_validate_json(sys.stdin.buffer.read())
    die_with(work.parent_pid)
    torch.set_num_threads(work.threads)
    torch.set_flush_denormal(True)
    device = torch.device(work.device)
    flow = load_model(LocalBlobs(work.folder), _FLOW, work.sha256).to(device)
    os.write(1, _READY)
    os.dup2(2, 1)
    _join(work.folder, work.rank, work.size, device)
    serve_gradients(flow, work.request.optimisation, batch_size=work.batch_size)
    dist.destroy_process_group()


def _save(flow: Flow, request: AcceptedTraining, folder: Path) -> str:
    """Save the flow for the helpers; return the hash of its file."""
    stored = save_model(
        LocalBlobs(folder),
        _FLOW,
        flow,
        spec=request.flow,
        columns=request.columns,
        context_columns=request.context_columns,
        types=request.types,
        preprocessing=request.preprocessing.model_dump(),
    )
    return stored.sha256


def _join(folder: Path, rank: int, size: int, device: torch.device) -> None:
    """Make this process a rank of the default group of `torch.distributed`."""
    if sys.platform == "linux":  # no other machine takes part
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=size,
        timeout=_WAIT,
    )


def _start(
    helpers: "list[subprocess.Popen[bytes]]",
    devices: Sequence[str],
    flow: Flow,
    request: AcceptedTraining,
    *,
    folder: Path,
    batch_size: int,
) -> None:
    """Start a helper on each device, and make this process rank 0 of their group."""
    sha256, size = _save(flow, request, folder), 1 + len(devices)
    for rank, device in enumerate(devices, start=1):
        work = _Work(
            parent_pid=os.getpid(),
            folder=folder,
            rank=rank,
            size=size,
            device=device,
            threads=torch.get_num_threads(),
            sha256=sha256,
            request=request,
            batch_size=batch_size,
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.trainer", "helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        helpers.append(process)
        assert process.stdin is not None  # noqa: S101  it is a pipe
        with suppress(BrokenPipeError), process.stdin as stream:  # its end is noticed later
            stream.write(work.model_dump_json().encode())
    _await(helpers)
    LocalBlobs(folder).delete(_FLOW)
    _join(folder, 0, size, flow.device)
    log.info("%d processes compute the gradients of each batch", size)


def _await(helpers: "list[subprocess.Popen[bytes]]") -> None:
    for helper in helpers:
        assert helper.stdout is not None  # noqa: S101  it is a pipe
        with helper.stdout as stream:
            if stream.readline() != _READY:
                raise RuntimeError("a helper ended before it was ready")


def _end_like(helpers: "list[subprocess.Popen[bytes]]") -> None:
    """End this process as the first helper that has ended did, so that the end is judged as its own."""
    for helper in helpers:
        with suppress(subprocess.TimeoutExpired):
            status = helper.wait(1)
            log.error("a helper of the training ended with status %d, so the trainer ends", status)
            if status == OUT_OF_MEMORY:
                raise MemoryError
            if status < 0:
                os.kill(os.getpid(), -status)
            os._exit(max(1, status))
