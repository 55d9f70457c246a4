"""A queue on a Redis behind TLS, with a password."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from kombu import pools

from app.server.broker import Broker
from densityd.service.private_redis import find_server
from models_store.settings import StoreSettings
from tests.ports import free_port
from tests.proxies import HAPROXY
from tests.servers import Guarded

PASSWORD = "s3cret"  # noqa: S105 - of a server that ends with the test
OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(HAPROXY is None or OPENSSL is None, reason="needs HAProxy and openssl"),
]

_HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend tls
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem
    default_backend redis
backend redis
    server a 127.0.0.1:{redis}
"""
_CERTIFICATE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=queue"
    " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.pem"
)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis whose certificate is that of `ca.pem`."""
    command = [str(OPENSSL), *_CERTIFICATE.split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)  # noqa: S603 - of Debian
    pem = tmp_path / "both.pem"
    pem.write_text((tmp_path / "ca.pem").read_text() + (tmp_path / "key.pem").read_text())
    port, plain = free_port(), free_port()
    options = ["--port", str(plain), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    server = Guarded(
        [find_server(), *options, "--requirepass", PASSWORD],
        end=signal.SIGTERM,
        log=tmp_path / "redis.log",
    )
    with redis.Redis(port=plain, password=PASSWORD) as client:
        server.wait_until(client.ping, errors=redis.ConnectionError)
    config = tmp_path / "haproxy.conf"
    config.write_text(_HAPROXY.format(port=port, folder=tmp_path, redis=plain))
    proxy = Guarded(
        [str(HAPROXY), "-db", "-f", config], end=signal.SIGTERM, log=tmp_path / "haproxy.log"
    )
    address = "127.0.0.1", port
    proxy.wait_until(lambda: socket.create_connection(address).close(), errors=OSError)
    yield f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
    proxy.stop()
    server.stop()


def test_messages_go_through_tls_and_only_to_a_server_whose_certificate_is_known(
    url: str, tmp_path: Path
) -> None:
    with closing(Broker(StoreSettings(broker_url=url))) as stranger:
        assert "CERTIFICATE_VERIFY_FAILED" in str(stranger.ping())
    pools.reset()  # of a process: they tell connections by where these go, not by how they are secured
    with closing(
        Broker(StoreSettings(broker_url=f"{url}?ssl_ca_certs={tmp_path}/ca.pem"))
    ) as broker:
        assert broker.ping() is None
