"""The broker: a Redis in which Celery has a queue for each kind of worker.

Messages only wake workers: the rows of jobs are the truth, and a worker looks for one every 1.5 s, whatever
becomes of a message.
"""

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

TASK = "densityd.work"
"""Name of the one task: run jobs until none waits."""

CPU_QUEUE, GPU_QUEUE = "cpu", "gpu"

_SCHEMES = ("redis://", "rediss://", "unix://", "sentinel://")
_SENTINELS = "sentinel://[[user]:password@]HOST:PORT,HOST:PORT/0?master_name=NAME"


def checked_broker_url(url: str) -> str:
    """Return the URL of a broker.

    Raises:
        ValueError: It has another form; the message has no part of it.
    """
    if not url.startswith(_SCHEMES):
        raise ValueError(f"the broker's URL begins with {', '.join(_SCHEMES)}")
    if url.startswith("sentinel://") and "master_name" not in parse_qs(urlsplit(url).query):
        raise ValueError(f"a URL of Sentinels has the form {_SENTINELS}")
    return url


def celery_options(url: str, *, timeout_s: float) -> dict[str, Any]:
    """Return the configuration that those who send messages and those who take them share.

    Args:
        url: URL of the broker, as in the settings.
        timeout_s: Seconds for which a connection, or an answer, is waited for.
    """
    transport: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        # Messages are not kept until they are acknowledged: there is nothing to restore.
        "ack_emulation": False,
    }
    options: dict[str, Any] = {
        "broker_url": url.replace("unix://", "redis+socket://", 1),
        "broker_connection_timeout": timeout_s,
        "broker_transport_options": transport,
        # The unnamed exchange routes by the queue's name, so no binding is lost with the broker's memory.
        "task_queues": {CPU_QUEUE: {}, GPU_QUEUE: {}},
        "task_default_queue": CPU_QUEUE,
        "task_default_exchange": "",
        "task_ignore_result": True,
    }
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        user, at, hosts = parts.netloc.rpartition("@")
        each = (f"sentinel://{user}{at}{host}{parts.path}" for host in hosts.split(","))
        options["broker_url"] = ";".join(each)
        transport["master_name"] = parse_qs(parts.query)["master_name"][0]
    if parts.scheme == "rediss":
        given = {name: text for name, text in parse_qsl(parts.query) if name.startswith("ssl_")}
        # Celery leaves those of the URL out, and would take any certificate.
        options["broker_use_ssl"] = {"ssl_cert_reqs": "required", **given}
    return options
