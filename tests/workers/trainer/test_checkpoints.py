"""Checkpoints that are sent to a store while training continues."""

import threading
from pathlib import Path

import pytest
import torch

from flows import FitState
from models_store.errors import BlobDiskError
from models_store.files.blobs import StoredBlob
from models_store.files.checkpoints import load_state
from models_store.files.local_blobs import LocalBlobs
from models_store.files.store_address import StoreAddress
from workers.protocol import CheckpointRef, Message, Note, VariationalTask
from workers.trainer.checkpoints import Checkpoints

_WAIT_S = 120.0


class SlowServer(LocalBlobs):
    """A folder in the place of a server, whose commits wait until they are let through."""

    is_remote = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open_gate = threading.Event()
        self.away = False

    def commit(self, staged: Path, key: str) -> StoredBlob:
        assert self.open_gate.wait(_WAIT_S)
        if self.away:
            raise BlobDiskError(key, "cannot be used: the store cannot be reached")
        return super().commit(staged, key)


def task(root: Path) -> VariationalTask:
    return VariationalTask(
        job_id="job_1",
        attempt=1,
        request_id=None,
        parent_pid=1,
        log_level="INFO",
        store=StoreAddress(url=str(root)),
        request={},
        checkpoints=[],
        device="cpu",
        threads=1,
        nice=0,
        memory_bytes=None,
        checkpoint_interval_s=0,
        long_epoch_s=0,
        dataset=None,
    )


def state(weight: torch.Tensor, iteration: int) -> FitState:
    return FitState(tensors={"weight": weight}, meta={"progress": {"iteration": iteration}})


@pytest.fixture
def server(tmp_path: Path) -> SlowServer:
    return SlowServer(tmp_path / "blobs")


def until_sent(checkpoints: Checkpoints) -> None:
    upload = checkpoints._upload
    assert upload is not None
    upload.exception(_WAIT_S)


def test_training_goes_on_while_a_checkpoint_is_sent(server: SlowServer, tmp_path: Path) -> None:
    sent: list[Message] = []
    checkpoints = Checkpoints(task(tmp_path), server, send=sent.append, unit="iteration")
    weight = torch.zeros(3)
    assert checkpoints.save_if_due(lambda: state(weight, 1)) is None
    for _ in range(2):  # under way: none is begun, and nothing waits
        weight.add_(1)
        assert checkpoints.save_if_due(lambda: state(weight, 2)) is None
    server.open_gate.set()
    until_sent(checkpoints)
    found = checkpoints.save_if_due(lambda: state(weight, 4))
    assert isinstance(found, CheckpointRef)
    assert found.epoch == 1
    loaded = load_state(server, found.key, found.sha256)
    assert loaded.tensors["weight"].tolist() == [0, 0, 0]  # as it was then
    last = checkpoints.save_last(state(weight, 5))
    assert last is not None
    assert last.epoch == 5
    assert load_state(server, last.key, last.sha256).tensors["weight"].tolist() == [2, 2, 2]
    assert sent == []


def test_a_store_that_is_away_costs_a_checkpoint_only(server: SlowServer, tmp_path: Path) -> None:
    sent: list[Message] = []
    checkpoints = Checkpoints(task(tmp_path), server, send=sent.append, unit="iteration")
    server.away = True
    server.open_gate.set()
    assert checkpoints.save_if_due(lambda: state(torch.zeros(1), 1)) is None
    until_sent(checkpoints)
    server.away = False
    assert checkpoints.save_if_due(lambda: state(torch.ones(1), 2)) is None
    assert [type(message) for message in sent] == [Note]
    until_sent(checkpoints)
    found = checkpoints.save_if_due(lambda: state(torch.ones(1), 3))
    assert found is not None
    assert found.epoch == 2
