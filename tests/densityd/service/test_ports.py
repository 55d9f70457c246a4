import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from densityd.errors import StartError
from densityd.service.ports import build_url, free_port, why_unready


def test_a_free_port_is_found_and_stays_free() -> None:
    port = free_port("127.0.0.1", 0)

    assert port > 0
    assert free_port("127.0.0.1", port) == port


def test_a_taken_port_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port}") as refusal:
            free_port("127.0.0.1", port)
    assert "\n" not in str(refusal.value)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        free_port("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104 - nothing listens
        ("::", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_url_is_one_that_a_browser_on_this_machine_opens(host: str, url: str) -> None:
    assert build_url(host, 8000) == url


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        checks: list[dict[str, object]] = json.loads(self.server.checks)  # type: ignore[attr-defined]
        self.send_response(200 if self.path == "/readyz" and not checks else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"checks": dict(enumerate(checks))}).encode())

    def log_message(self, *_: object) -> None:
        pass


def _told(checks: str) -> tuple[str | None, str]:
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        server.checks = checks  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        told = why_unready(url)
        thread.join()
    return told, url


def test_why_the_api_is_not_ready_is_what_it_says() -> None:
    told, url = _told("[]")
    assert told is None
    assert why_unready(url) == "It does not respond yet."
    told, _ = _told('[{"ok": true, "detail": null}, {"ok": false, "detail": "Kernels compile."}]')
    assert told == "Kernels compile."
    told, _ = _told("[1]")
    assert told == "It does not respond yet."
