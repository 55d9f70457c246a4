"""Every request to an object store goes wrong once: it fails, or its response is lost, cut or old."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models_store.errors import BlobError, StorageFullError
from models_store.files.blobs import Blobs, StoredBlob, model_key, part_key, table_key
from tests.bucket_servers import S3Server
from tests.faulty_bucket import Fault, Way, Wrong

pytestmark = pytest.mark.cluster
LARGE = table_key("ds_1")
KEYS = (LARGE, model_key("job_1", 1), model_key("job_2", 1), part_key("job_1", 1, number=1))
EVERY = 7  # of the requests, in the quick tests


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


class Life:
    """The life of a store as its users see it, and what it has promised them so far.

    Args:
        server: the store itself.
        way: to the store, for its user.
        folder: for copies.
        prefix: of the store's own.
    """

    def __init__(self, server: S3Server, way: Way, folder: Path, prefix: str) -> None:
        address = server.address(folder / "own", prefix=prefix)
        self.user = Blobs(address.model_copy(update={"endpoint": way.url}))
        self._reader = address.model_copy(
            update={"endpoint": way.url, "cache_dir": str(folder / "reader")}
        )
        self._server = address.model_copy(update={"cache_dir": str(folder / "witness")})
        self.kept: dict[str, StoredBlob] = {}
        self.contents: dict[str, bytes] = {}

    def steps(self) -> Iterator[Callable[[], None]]:
        for number, key in enumerate(KEYS):
            content = os.urandom(9_000_000) if key == LARGE else bytes([number]) * 5000
            yield lambda key=key, content=content: self.store(key, content)  # type: ignore[misc]
        yield lambda: self.read(LARGE)
        yield lambda: self.read(KEYS[2])
        yield self.list_job
        yield lambda: self.delete("jobs/job_1")
        yield lambda: self.delete(KEYS[2])
        yield lambda: self.store(KEYS[2], b"new")
        yield lambda: self.delete("datasets/ds_1")

    def store(self, key: str, content: bytes) -> None:
        with self.user.staged(".bin") as path:
            path.write_bytes(content)
            self.kept[key] = self.user.commit(path, key)
        self.contents[key] = content

    def read(self, key: str) -> None:
        reader = Blobs(self._reader)
        assert reader.verify(key, self.kept[key].sha256).read_bytes() == self.contents[key]

    def list_job(self) -> None:
        assert set(self.user.keys("jobs/job_1")) <= set(KEYS)

    def delete(self, prefix: str) -> None:
        # From here on nobody relies on it: no row names it any more.
        for key in [key for key in self.kept if key.startswith(prefix)]:
            del self.kept[key]
        self.user.delete(prefix)

    def check(self) -> list[str]:
        """See all that was promised in the store itself; the keys of what is there besides."""
        witness = Blobs(self._server)
        for blob in self.kept.values():
            witness.verify(blob.key, blob.sha256)
        return sorted({file.key for file in witness.files()} - set(self.kept))


def lived(server: S3Server, folder: Path, fault: Fault | None) -> tuple[Way, list[str], list[str]]:
    """The way after a life, the errors that its user saw, and what is left that nobody needs."""
    folder.mkdir()
    told = []
    way = Way(server.endpoint)
    with way.open():
        life = Life(server, way, folder, f"{folder.parent.name}/{folder.name}")
        server.wait_ready(life.user)
        way.requests.clear()
        way.fault = fault
        for step in life.steps():
            try:
                step()
            except (BlobError, StorageFullError) as error:
                told.append(f"{error}")
                way.mend()
                step()
    return way, told, life.check()


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until told"])
@pytest.mark.parametrize("wrong", list(Wrong))
@pytest.mark.timeout(600)
def test_a_request_that_goes_wrong_is_tried_again_or_told_and_nothing_stored_is_lost(
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Wrong,
    lasting: bool,
    every: int,
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    undisturbed, told, left = lived(server, tmp_path / "undisturbed", None)
    assert (told, left) == ([], [])
    assert len(undisturbed.requests) > 15
    seen = []
    for number in range(1, len(undisturbed.requests) + 1, every):
        fault = Fault(number, wrong, lasting)
        _, told, left = lived(server, tmp_path / str(number), fault)
        seen += told
        # A deletion by an old list leaves files, which `doctor` finds.
        assert left == [] or wrong is Wrong.OLD, (fault, undisturbed.requests[number - 1])
    if wrong is Wrong.REFUSED:
        assert bool(seen) == lasting
    assert not any("not-in-any-log" in text or "http" in text for text in seen)


def test_a_store_that_believes_what_it_reads_is_found_out(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

    def unread(self: Blobs, key: str, _sha256: str) -> Path:
        path = self.staging / "unread"
        self.staging.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(self._bucket.stream(key, 0, self._bucket.size(key))))
        return path

    monkeypatch.setattr(Blobs, "verify", unread)
    undisturbed, _, _ = lived(server, tmp_path / "undisturbed", None)
    reads = [n for n, request in enumerate(undisturbed.requests, 1) if request.startswith("GET")]
    with pytest.raises(AssertionError):  # noqa: PT012 - one of them
        for number in reads:
            lived(server, tmp_path / str(number), Fault(number, Wrong.ALTERED))
