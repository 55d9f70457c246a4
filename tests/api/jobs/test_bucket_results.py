"""Results that lie in a bucket: ranges are passed on, or the caller is sent there."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.files.blobs import Blobs, result_key
from models_store.job_states import JobKind, JobResult
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.api.conftest import assert_refused
from tests.api.serving import registered
from tests.store.makers import LEASE_S, submitted
from tests.support.bucket_servers import S3Server

CONTENT = os.urandom(3 * 2**20 + 17)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def settings(
    server: S3Server, tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> ApiSettings:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shutil.copy(sqlite_template, tmp_path)
    address = server.address(tmp_path / "cache", prefix=tmp_path.name)
    server.wait_ready(Blobs(address))
    return ApiSettings(data_dir=tmp_path, store_url=address.url, store_endpoint=server.endpoint)


def a_result(settings: ApiSettings) -> tuple[str, str]:
    """The URL of a result, and its key."""
    database = Database(settings.resolved_database_url)
    blobs = Blobs(settings.store_address)
    registered(database, blobs)
    job = submitted(Jobs(database), kind=JobKind.SAMPLING, model_name="people", model_version=1)
    work = JobWork(database)
    assert work.claim("tester", lease_s=LEASE_S) is not None
    with blobs.staged() as path:
        path.write_bytes(CONTENT)
        made = blobs.commit(path, result_key(job.id, 1, suffix="npy"))
    result = JobResult(
        key=made.key, sha256=made.sha256, bytes=made.bytes, rows=1, media_type="application/x-npy"
    )
    work.finish(job.id, 1, metrics={}, result=result)
    database.dispose()
    return f"/v1/jobs/{job.id}/result", made.key


def test_bytes_are_passed_on_from_the_bucket(settings):
    url, key = a_result(settings)
    with TestClient(create_app(settings)) as client:
        whole = client.get(url)
        assert (whole.status_code, whole.content) == (200, CONTENT)
        assert whole.headers["ETag"] == ETAG
        assert whole.headers["Content-Length"] == str(len(CONTENT))
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert whole.headers["Content-Disposition"].endswith('.npy"')
        size = len(CONTENT)
        for asked, start, stop in (
            ("bytes=5-2097160", 5, 2097161),
            ("bytes=-7", size - 7, size),
            (f"bytes={size - 1}-{size + 5}", size - 1, size),
            ("bytes=1048576-", 1048576, size),
        ):
            part = client.get(url, headers={"Range": asked, "If-Range": ETAG})
            assert (part.status_code, part.content) == (206, CONTENT[start:stop]), asked
            assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        for headers in ({"If-Range": '"other"', "Range": "bytes=1-2"}, {"Range": "bytes=1-2,4-5"}):
            assert client.get(url, headers=headers).content == CONTENT
        for asked, status in (
            (f"bytes={size}-", 416),
            ("bytes=-0", 416),
            ("bytes=3-2", 400),
            ("bytes=-", 400),
            ("rows=1-2", 400),
        ):
            assert client.get(url, headers={"Range": asked}).status_code == status, asked
        assert (
            client.get(url, headers={"Range": f"bytes={size}-"}).headers["Content-Range"]
            == f"bytes */{size}"
        )
        head = client.head(url)
        assert (head.headers["Content-Length"], head.content) == (str(size), b"")
        assert not list((settings.data_dir / "store-cache" / "files").rglob("*.npy"))
        Blobs(settings.store_address).delete(key)
        assert client.get(url).status_code == 503


def test_a_result_that_is_deleted_before_it_is_read_is_gone(settings, monkeypatch):
    url, key = a_result(settings)
    real = Blobs.stream
    with TestClient(create_app(settings)) as client:

        def delete(blobs: Blobs, *given: Any) -> Iterator[bytes]:
            state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
            state.jobs.delete_result("default", url.split("/")[3])
            blobs.delete(key)
            return real(blobs, *given)

        monkeypatch.setattr(Blobs, "stream", delete)
        assert_refused(client.get(url), 410, "result-deleted")
