"""Address of a Redis that Sentinels watch, in one URL."""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

SCHEME = "sentinel://"
_PORT = 26379
_FORM = "sentinel://[[user]:password@]HOST:PORT,HOST:PORT/0?master_name=NAME"


@dataclass(frozen=True)
class Sentinels:
    """Sentinels, and the Redis whose primary they know.

    Args:
        hosts: Host and port of each Sentinel.
        master_name: Name of the Redis.
        username: User of the Redis; None: the default one.
        password: Password of the Redis; the Sentinels themselves have none.
        db: Number of the database.
    """

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    username: str | None
    password: str | None
    db: int

    @classmethod
    def parse(cls, url: str) -> "Sentinels":
        """Return the address that a URL names.

        Raises:
            ValueError: The URL has another form; the message has no part of it.
        """
        try:
            parts = urlsplit(url)
            user, _, hosts = parts.netloc.rpartition("@")
            name, _, password = user.partition(":")
            [master_name] = parse_qs(parts.query, strict_parsing=True)["master_name"]
            return cls(
                hosts=tuple(_host_of(one) for one in hosts.split(",")),
                master_name=master_name,
                username=unquote(name) or None,
                password=unquote(password) or None,
                db=int(parts.path.strip("/") or 0),
            )
        except (KeyError, ValueError):
            raise ValueError(f"a URL of Sentinels has the form {_FORM}") from None


def celery_url(url: str) -> str:
    """Return the same address as Celery spells it: a URL for each Sentinel."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return ";".join(f"{SCHEME}{user}{at}{host}{parts.path}" for host in hosts.split(","))


def _host_of(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError
    return parts.hostname, parts.port or _PORT
