import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers.place import Place, Running

_NOTE = """
import atexit, json, os, sys

def note():
    with open({path!r}, "w") as file:
        json.dump({{"environment": dict(os.environ), "modules": list(sys.modules)}}, file)

if "workers.trainer" in sys.orig_argv:
    atexit.register(note)
"""


@pytest.mark.long
def test_a_trainer_gets_its_threads_no_secret_and_no_compiler(
    tmp_path: Path, supervise: Callable[..., Running], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python runs a module of this name at its start.
    noted = tmp_path / "noted.json"
    (tmp_path / "sitecustomize.py").write_text(_NOTE.format(path=str(noted)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *_path()]))
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "postgresql://user:s3same@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3same")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    place.submit(place.add_dataset(), max_epochs=1)

    supervise(trainer_threads=2).join()

    told = json.loads(noted.read_text())
    environment = told["environment"]
    assert "s3same" not in str(environment)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == "7"
    # Its import takes a second of processor time.
    assert "torch" in told["modules"]
    assert "torch._dynamo" not in told["modules"]


def _path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH", "")] if path]
