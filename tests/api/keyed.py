"""A service that has keys, for the tests of who gets in."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import State
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.keys import Keys, NewKey, Scope
from models_store.records import Version
from tests.api.serving import registered


@contextmanager
def keyed(settings: ApiSettings, *, first: bool = True) -> Iterator[tuple[TestClient, Keys]]:
    """The application, and the keys of its database; a first one exists, so all need one."""
    database = Database(settings.resolved_database_url)
    keys = Keys(database)
    if first:
        keys.create("nobody", Scope.READ)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client, keys
    database.dispose()


def bearer(key: NewKey | str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.token}"}


def stocked(client: TestClient, project: str = "p") -> Version:
    """The model `people` in a project of a client's application."""
    state: State = client.app.state  # type: ignore[attr-defined]  # a FastAPI
    return registered(state.database, state.blobs, project=project)
