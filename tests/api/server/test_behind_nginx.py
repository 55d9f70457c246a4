"""Large scores, uploads, streams and slow readers through a real nginx."""

import gzip
import threading
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from flows import compile_flow
from tabular.formats import TableFormat
from tests.api.serving import COLUMNS, MEAN, STD, a_flow
from tests.api.wire import FORMATS, MEDIA_TYPE, read, write
from tests.support.proxies import NGINX, Nginx, nginx_before

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.timeout(900),
]
MIB = 1 << 20


@pytest.fixture(scope="module")
def nginx(server: str) -> Iterator[Nginx]:
    with nginx_before(int(server.rpartition(":")[2])) as nginx:
        yield nginx


@pytest.fixture(params=["buffering", "keeping"])
def url(nginx: Nginx, request: pytest.FixtureRequest) -> str:
    """The service behind each of two ways to set nginx up."""
    return f"http://127.0.0.1:{getattr(nginx, request.param)}"


def rows_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(MEAN.numpy(), STD.numpy(), size=(n, 3))


def assert_scored(
    url: str,
    kind: TableFormat,
    n: int,
    *,
    answer: TableFormat = TableFormat.NPY,
    packed: bool = False,
) -> None:
    """All rows of a body are scored, and the answer comes whole."""
    rows = rows_of(n)
    body = write(kind, COLUMNS, rows)
    headers = {"Content-Type": MEDIA_TYPE[kind], "Accept": MEDIA_TYPE[answer]}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    response = httpx.post(
        f"{url}/v1/models/people/log_prob", content=body, headers=headers, timeout=120
    )
    assert response.status_code == 200, response.text[:1000]
    _, scores = read(answer, response.content)
    expected = compile_flow(a_flow()).log_prob(rows)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_ten_thousand_rows_in_every_format(url, kind):
    assert_scored(url, kind, 10_000, answer=kind)


@pytest.mark.parametrize("kind", [TableFormat.NPY, TableFormat.CSV])
def test_large_and_packed_bodies(url, kind):
    assert_scored(url, kind, 100_000)
    assert_scored(url, kind, 30_000, packed=True)


def test_events_come_through_as_they_happen(url):
    body = {"model_name": "later", "target": {"potential": "U1"}}
    job = httpx.post(f"{url}/v1/jobs/variational", json=body, timeout=60).json()
    job_url = f"{url}/v1/jobs/{job['id']}"
    with httpx.stream("GET", f"{job_url}/events", timeout=120) as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        threading.Thread(target=lambda: httpx.post(f"{job_url}/cancel", timeout=60)).start()
        rest = [line for line in lines if line.startswith("data:")]
    assert "queued" in first
    assert "cancelled" in rest[-1]
