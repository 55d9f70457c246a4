"""A real nginx in front of a service, for the tests; where the system has one."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import Guarded, free_port

# As Debian's package has it, but for the bound on bodies and for what root alone may do.
_CONFIG = """
{user}
daemon off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    client_max_body_size 4g;
    upstream service {{ server 127.0.0.1:{service}; keepalive 8; }}
    # With the usual settings: a body is collected before it is passed on, by HTTP/1.0. Below a path
    # that is taken off there, and left on by the other one.
    server {{
        listen 127.0.0.1:{buffering};
        location / {{ proxy_pass http://127.0.0.1:{service}; }}
        location /densityd/ {{ proxy_pass http://127.0.0.1:{service}/; }}
    }}
    # On connections that are kept, as the shipped configuration has it, with a path that is left on.
    server {{
        listen 127.0.0.1:{keeping};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
NGINX = shutil.which("nginx", path=_PATH)
HAPROXY = shutil.which("haproxy", path=_PATH)


class Nginx:
    """An nginx in front of a service on loopback.

    Args:
        service: port of the service.

    Attributes:
        buffering: port with nginx's usual settings.
        keeping: port that keeps connections to the service open.
    """

    def __init__(self, service: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nginx-"))
        self.buffering, self.keeping = free_port(), free_port()
        config = self._folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                user="user root;" if os.geteuid() == 0 else "",
                folder=self._folder,
                service=service,
                buffering=self.buffering,
                keeping=self.keeping,
            )
        )
        assert NGINX is not None, "nginx is not installed"
        command = [NGINX, "-p", str(self._folder), "-c", str(config)]
        self._process = Guarded(command, end=signal.SIGTERM, log=self._folder / "log")
        self._process.wait_until(self._connect, errors=OSError)

    def close(self) -> None:
        """End it for good."""
        self._process.stop()
        shutil.rmtree(self._folder)

    def _connect(self) -> None:
        for port in (self.buffering, self.keeping):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


@contextlib.contextmanager
def nginx_before(service: int) -> Iterator[Nginx]:
    """Run an nginx in front of a service on a port of loopback."""
    nginx = Nginx(service)
    try:
        yield nginx
    finally:
        nginx.close()
