"""A real server: bounded memory, an early start, back pressure, and callers who leave."""

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from numpy.typing import NDArray

from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from tabular.formats import TableFormat
from tests.app.conftest import wait_for_port
from tests.app.serving import COLUMNS, MEAN, STD, registered
from tests.app.wire import FORMATS, MEDIA_TYPE, write
from tests.ports import free_port
from tests.tables.files import arrow, npy

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc"),
    pytest.mark.long,  # a server of its own
]

MIB = 1 << 20
NPY = MEDIA_TYPE[TableFormat.NPY]
WIDE = [f"x{i + 1}" for i in range(21)]
# Text, numbers as they are, and a file whose end has to come first; the others vary these.
_OFTEN = (TableFormat.CSV, TableFormat.NPY, TableFormat.PARQUET)
SOME_FORMATS = [
    kind if kind in _OFTEN else pytest.param(kind, marks=pytest.mark.long) for kind in FORMATS
]


class Server:
    """A server process with the model `people`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, staging: Path) -> None:
        self._proc = Path(f"/proc/{process.pid}")
        self.port = port
        self.staging = staging

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=120)

    def begin(
        self,
        connection: HTTPConnection,
        size: int,
        kind: TableFormat = TableFormat.NPY,
        answer: TableFormat = TableFormat.NPY,
        *,
        early: bool = False,
    ) -> None:
        """Send the headers of a question about rows."""
        connection.putrequest("POST", "/v1/models/people/log_prob")
        connection.putheader("Content-Type", MEDIA_TYPE[kind])
        connection.putheader("Accept", MEDIA_TYPE[answer])
        connection.putheader("Content-Length", str(size))
        if early:
            connection.putheader("Prefer", "early-answer")
        connection.endheaders()

    def sample(
        self, connection: HTTPConnection, n: int, kind: TableFormat, model: str = "people"
    ) -> HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": MEDIA_TYPE[kind]}
        body = json.dumps({"n": n, "seed": 1})
        connection.request("POST", f"/v1/models/{model}/sample", body=body, headers=headers)
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
        lines = [
            line for line in self.metrics().splitlines() if "in_flight" in line and line[0] != "#"
        ]
        return all(float(line.split()[-1]) <= 1 for line in lines) and not self.left()

    def left(self) -> list[Path]:
        return list(self.staging.iterdir()) if self.staging.exists() else []

    def rows_computed(self) -> int:
        """Rows that the engine has computed so far."""
        name = "densityd_engine_batch_rows_sum "
        return int(float(self.metrics().partition("\n" + name)[2].split("\n")[0]))

    def metrics(self) -> str:
        connection = self.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def counted(self) -> Counter[str]:
        """The counters of requests."""
        prefix = "densityd_http_"
        lines = [line for line in self.metrics().splitlines() if line.startswith(prefix)]
        found = [line.removeprefix(prefix).split(" ") for line in lines]
        return Counter({name: int(float(value)) for name, value in found if "_total{" in name})

    def last_line(self) -> str:
        """The newest line of the log about a score."""
        lines = (self.staging.parent.parent / "log").read_text().splitlines()
        return [line for line in lines if "log_prob" in line][-1]

    def wait_until_idle(self) -> None:
        deadline = time.monotonic() + 120
        while not self.idle():
            assert time.monotonic() < deadline, "a request is still served"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("streaming")
    shutil.copy(migrated_database, folder)
    settings = ApiSettings(data_dir=folder)
    database = Database(settings.resolved_database_url)
    registered(database, Blobs.in_folder(settings.blob_root))
    registered(database, Blobs.in_folder(settings.blob_root), name="wide", columns=WIDE)
    database.dispose()
    port = free_port()
    environment = {
        **os.environ,
        "DENSITYD_DATA_DIR": str(folder),
        "DENSITYD_PORT": str(port),
        "DENSITYD_BODY_TIMEOUT_S": "4",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "app"], env=environment, stderr=log)
    try:
        wait_for_port(port, process)
        server = Server(process, port, settings.blob_root / "staging")
        connection = server.connect()
        server.sample(connection, 20_000, TableFormat.PARQUET).read()  # everything is loaded
        connection.close()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


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


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", FORMATS)
def test_ten_million_samples_take_no_more_memory_than_a_few(server, kind):
    connection = server.connect()
    before = server.memory
    response = server.sample(connection, 10_000_000, kind)
    most = 0
    while response.read(4 * MIB):
        most = max(most, server.memory)
    connection.close()
    assert most - before < 60 * MIB


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


def body_of(kind: TableFormat, rows: int) -> bytes:
    values = np.random.default_rng(0).normal(size=(rows, 3)) * STD.numpy() + MEAN.numpy()
    if kind is TableFormat.ARROW:  # one batch, which its writer may make as large as it likes
        return arrow(pa.table({name: values[:, i] for i, name in enumerate(COLUMNS)}))
    return write(kind, COLUMNS, values)


@pytest.mark.parametrize("kind", [TableFormat.NPY, TableFormat.ARROW])
def test_a_body_larger_than_the_memory_it_may_take_is_scored(server, kind):
    rows = 1_000_000
    body = body_of(kind, rows)
    assert len(body) > 22 * MIB
    connection = server.connect()
    before = most = server.memory
    server.begin(connection, len(body), kind)
    for start in range(0, len(body), 4 * MIB):
        connection.send(body[start : start + 4 * MIB])
        most = max(most, server.memory)
    response = connection.getresponse()
    assert response.status == 200
    assert int(response.headers["content-length"]) == 128 + 8 * rows
    while response.read(MIB):
        most = max(most, server.memory)
    connection.close()
    assert most - before < 20 * MIB
    server.wait_until_idle()


@pytest.mark.parametrize("kind", SOME_FORMATS)
def test_a_caller_who_leaves_in_the_middle_of_a_body_leaves_nothing(server, kind):
    body = body_of(kind, 20_000)
    connection = server.connect()
    connection.putrequest("POST", "/v1/models/people/inverse")
    connection.putheader("Content-Type", MEDIA_TYPE[kind])
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[: len(body) // 2])
    connection.sock.close()
    server.wait_until_idle()


def test_the_answer_begins_while_the_body_comes_if_that_is_asked_for(server):
    body = body_of(TableFormat.NPY, 250_000)
    connection = server.connect()
    server.begin(connection, len(body), early=True)
    half = len(body) // 2
    connection.send(body[:half])
    response = connection.getresponse()
    assert response.headers["preference-applied"] == "early-answer"
    scores = response.read(128 + 8 * 65_536)
    connection.send(body[half:])
    scores += response.read()
    connection.close()
    assert np.allclose(np.load(io.BytesIO(scores)), whole_answer(server, body))


def arrow_body(*batch_rows: int) -> bytes:
    values = body_values(sum(batch_rows))
    sink = pa.BufferOutputStream()
    table = pa.table({name: values[:, i] for i, name in enumerate(COLUMNS)})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        start = 0
        for rows in batch_rows:
            writer.write_table(table.slice(start, rows))
            start += rows
    data: bytes = sink.getvalue().to_pybytes()
    return data


def body_values(rows: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(MEAN.numpy(), STD.numpy(), size=(rows, 3))


def scores_in_arrow(body: bytes) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = pa.ipc.open_stream(body).read_all()["log_prob"].to_numpy()
    return scores


@pytest.mark.parametrize(
    "batch_rows",
    [
        pytest.param([65_536] * 16, marks=pytest.mark.long),
        [400_000, 100] + [1_000] * 100,
        pytest.param([50_000] * 10 + [900_000] + [7] * 9_000, marks=pytest.mark.long),
    ],
    ids=["many", "growing less", "a large one between small ones"],
)
def test_an_arrow_answer_is_the_same_however_its_body_is_cut(server, batch_rows):
    body = arrow_body(*batch_rows)
    connection = server.connect()
    server.begin(connection, len(body), TableFormat.ARROW, TableFormat.ARROW)
    connection.send(body)
    scores = scores_in_arrow(connection.getresponse().read())
    connection.close()
    expected = whole_answer(server, npy(body_values(sum(batch_rows))))
    assert np.allclose(scores, expected)


@pytest.mark.parametrize("kind", [TableFormat.NPY, TableFormat.ARROW])
def test_no_answer_begins_before_the_end_of_the_body(server, kind):
    rows = 16 * 65_536
    body = npy(body_values(rows)) if kind is TableFormat.NPY else arrow_body(*[65_536] * 16)
    before = server.rows_computed()
    connection = server.connect()
    server.begin(connection, len(body), kind)
    connection.send(body[:-8])
    deadline = time.monotonic() + 120
    # npy is computed as it comes, Arrow after its end.
    while kind is TableFormat.NPY and server.rows_computed() - before < rows // 2:
        assert time.monotonic() < deadline, "nothing is computed"
        time.sleep(0.05)
    assert select.select([connection.sock], [], [], 0)[0] == []
    connection.send(body[-8:])
    response = connection.getresponse()
    assert response.status == 200
    assert "preference-applied" not in response.headers
    response.read()
    connection.close()


def test_an_arrow_body_that_is_cut_off_is_refused(server):
    body = arrow_body(*[65_536] * 16)
    connection = server.connect()
    server.begin(connection, len(body) - 8, TableFormat.ARROW, TableFormat.ARROW)
    connection.send(body[:-8])
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["type"]) == (422, "/problems/array-parse")
    connection.close()
    server.wait_until_idle()


@pytest.mark.parametrize("by", ["caller", pytest.param("service", marks=pytest.mark.long)])
def test_an_answer_that_broke_is_counted_as_broken(server, by):
    """A caller who leaves in the middle of an answer, and one whose body ends in its middle."""
    before = server.counted()
    body = body_of(TableFormat.NPY, 1_000_000)
    connection = server.connect()
    server.begin(connection, len(body), early=True)
    connection.send(body[: len(body) // 2])
    response = connection.getresponse()
    assert response.read(4096)
    if by == "caller":
        connection.sock.close()
        response.close()
    else:  # it stops sending, and does not hang up
        connection.sock.settimeout(60)
        with pytest.raises(IncompleteRead):
            response.read()
        connection.close()
    server.wait_until_idle()
    status, route = ("499" if by == "caller" else "408"), "/v1/models/{ref}/log_prob"
    new = server.counted() - before
    assert new[f'broken_answers_total{{by="{by}",route="{route}"}}'] == 1
    assert new[f'requests_total{{method="POST",route="{route}",status="{status}"}}'] == 1
    assert f"/v1/models/people/log_prob broke off its response: {status} in" in server.last_line()


def whole_answer(server: Server, body: bytes) -> NDArray[np.float64]:
    """As a caller gets it who reads nothing before all is sent."""
    connection = server.connect()
    server.begin(connection, len(body))
    connection.send(body)
    answer: NDArray[np.float64] = np.load(io.BytesIO(connection.getresponse().read()))
    connection.close()
    return answer


def test_a_caller_who_leaves_in_the_middle_of_body_and_answer_leaves_nothing(server):
    body = body_of(TableFormat.NPY, 250_000)
    connection = server.connect()
    server.begin(connection, len(body), early=True)
    connection.send(body[: len(body) // 2])
    response = connection.getresponse()
    assert response.read(4096)
    connection.sock.close()
    response.close()
    server.wait_until_idle()


@pytest.mark.parametrize("first_bytes", [1_000, 100_000], ids=["little", "much"])
def test_a_length_that_the_header_contradicts_is_refused_before_the_body_has_come(
    server, first_bytes
):
    body = body_of(TableFormat.NPY, 100_000)
    connection = server.connect()
    server.begin(connection, len(body) - 8)
    connection.send(body[:first_bytes])
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["type"]) == (422, "/problems/array-parse")
    connection.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_wide_rows_as_json_take_little_memory(server):
    connection = server.connect()
    server.sample(connection, 10, TableFormat.JSON, model="wide").read()
    before = most = server.memory
    response = server.sample(connection, 100_000, TableFormat.JSON, model="wide")
    while response.read(MIB):
        most = max(most, server.memory)
    connection.close()
    assert most - before < 30 * MIB


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "megabytes"),
    [(TableFormat.NPY, 200), (TableFormat.NPY, 1000), (TableFormat.ARROW, 1000)],
    ids=str,
)
def test_large_bodies_take_no_more_memory_than_small_ones(server, kind, megabytes, tmp_path):
    file = tmp_path / "body"
    rows = large_body(file, kind, megabytes)
    connection = server.connect()
    before = server.memory
    server.begin(connection, file.stat().st_size, kind, early=True)
    most = 0
    with file.open("rb") as body:
        sender = threading.Thread(target=connection.send, args=[body])
        sender.start()
        response = connection.getresponse()
        first = response.read(4096)
        assert sender.is_alive() or kind is TableFormat.ARROW  # most of the body is not sent yet
        size = len(first)
        while piece := response.read(MIB):
            size += len(piece)
            most = max(most, server.memory)
        sender.join()
    connection.close()
    assert size == 128 + 8 * rows
    assert most - before < 60 * MIB


def large_body(file: Path, kind: TableFormat, megabytes: int) -> int:
    """Write a body of so many million bytes, and say how many rows it has."""
    some = np.random.default_rng(0).normal(size=(100_000, 3)) * STD.numpy() + MEAN.numpy()
    times: int = megabytes * 10**6 // some.nbytes
    if kind is TableFormat.NPY:
        array = np.lib.format.open_memmap(
            file, mode="w+", dtype=some.dtype, shape=(times * len(some), 3)
        )
        for index in range(times):
            array[index * len(some) : (index + 1) * len(some)] = some
        array.flush()
    else:
        batch = pa.record_batch({name: some[:, i] for i, name in enumerate(COLUMNS)})
        with pa.ipc.new_stream(str(file), batch.schema) as writer:
            for _ in range(times):
                writer.write_batch(batch)
    return times * len(some)


def test_what_is_wrong_at_the_end_of_a_large_body_is_still_said(server):
    body = body_of(TableFormat.NPY, 200_000)
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
