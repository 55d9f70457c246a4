"""A client of Redis by its URL, whether it is one server or one that Sentinels watch."""

from typing import Any

import redis
from redis.sentinel import Sentinel

from models_store.sentinels import SCHEME, Sentinels


def redis_client(url: str, **options: Any) -> redis.Redis:  # noqa: ANN401 - options of redis-py
    """Return a client; nothing is connected yet.

    Args:
        url: URL of the broker, as in the settings.
        options: Options of each connection.
    """
    if not url.startswith(SCHEME):
        return redis.Redis.from_url(url, **options)
    address = Sentinels.parse(url)
    sentinel = Sentinel(address.hosts, **options)  # type: ignore[no-untyped-call]  # redis-py is partly typed
    found: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        address.master_name, username=address.username, password=address.password, db=address.db
    )
    return found
