"""Versions with rows and pictures."""

import pytest

from tests.app.serving import registered


@pytest.fixture(scope="module")
def people(shared_client):
    state = shared_client.app.state
    registered(state.database, state.blobs)
    registered(state.database, state.blobs, name="plane", columns=["x$1", "y"])
