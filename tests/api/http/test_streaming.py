"""A real server: samples in bounded memory, back pressure, and callers who leave."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.settings import ApiSettings
from tabular.formats import TableFormat
from tests.api.conftest import add_model, listening
from tests.api.serving import COLUMNS, MEAN, STD
from tests.api.wire import MEDIA_TYPE, write
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc"),
    pytest.mark.slow,  # a server of its own
]

MIB = 1 << 20
NPY = MEDIA_TYPE[TableFormat.NPY]
# Text, numbers as they are, and a file whose end has to come first; the others vary these.
SOME_FORMATS = (TableFormat.CSV, TableFormat.NPY, TableFormat.PARQUET)


class Server:
    """A server process with the model `people`."""

    def __init__(self, pid: int, url: str, staging: Path) -> None:
        self._proc, self.url, self.staging = Path(f"/proc/{pid}"), url, staging

    def connect(self) -> HTTPConnection:
        return HTTPConnection(self.url.removeprefix("http://"), timeout=120)

    def sample(self, connection: HTTPConnection, n: int, kind: TableFormat) -> HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": MEDIA_TYPE[kind]}
        body = json.dumps({"n": n, "seed": 1})
        connection.request("POST", "/v1/models/people/sample", body=body, headers=headers)
        return connection.getresponse()

    @property
    def memory(self) -> int:
        """Bytes that belong to the process alone, not to files that it maps."""
        status = (self._proc / "status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    @property
    def seconds(self) -> float:
        """Processor time used so far."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def idle(self) -> bool:
        """Whether no request but the one that asks is served, and nothing of any is left."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        lines = [line for line in text.splitlines() if "in_flight" in line and line[0] != "#"]
        left = self.staging.exists() and any(self.staging.iterdir())
        return all(float(line.split()[-1]) <= 1 for line in lines) and not left

    def wait_until_idle(self) -> None:
        wait_until(self.idle, "a request is still served")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("streaming")
    shutil.copy(migrated_database, folder)
    add_model(folder)
    with listening(folder) as (url, process):
        server = Server(process.pid, url, ApiSettings(data_dir=folder).blob_root / "staging")
        connection = server.connect()
        server.sample(connection, 20_000, TableFormat.PARQUET).read()  # everything is loaded
        connection.close()
        yield server
    assert process.returncode == 0


@pytest.mark.parametrize("kind", SOME_FORMATS)
def test_many_samples_take_little_memory(server, kind):
    connection = server.connect()
    before = server.memory
    response = server.sample(connection, 300_000, kind)
    assert response.status == 200
    most = 0
    while response.read(MIB):
        most = max(most, server.memory)
    connection.close()
    assert most - before < 40 * MIB


def test_a_caller_who_does_not_read_stops_the_work_and_one_who_leaves_ends_it(server):
    connection = server.connect()
    response = server.sample(connection, 50_000_000, TableFormat.CSV)
    assert response.read(65_536)
    before = -1.0
    deadline = time.monotonic() + 120
    while server.seconds - before > 0.05:  # the buffers on the way fill up
        assert time.monotonic() < deadline, "nobody reads, and the server continues"
        before = server.seconds
        time.sleep(0.5)
    assert response.read(65_536)  # and continues when the caller does
    connection.sock.close()
    response.close()
    server.wait_until_idle()


def test_what_is_wrong_at_the_end_of_a_large_body_is_still_said(server):
    values = np.random.default_rng(0).normal(size=(200_000, 3)) * STD.numpy() + MEAN.numpy()
    body = write(TableFormat.NPY, COLUMNS, values)
    connection = server.connect()
    connection.request(
        "POST",
        "/v1/models/people/log_prob",
        body=iter([body[:-8]]),
        headers={"Content-Type": NPY},
        encode_chunked=True,
    )
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["type"]) == (422, "/problems/array-parse")
    connection.close()
