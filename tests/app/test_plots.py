"""Pictures of versions: drawn once, by a process of their own, from what there is."""

import re

import pytest

from app import plots
from tests.app.conftest import assert_refused
from tests.app.serving import registered

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def people(shared_client):
    state = shared_client.app.state
    registered(state.database, state.blobs)
    registered(state.database, state.blobs, name="plane", columns=["x$1", "y"])
    wide = [f"p{i}" for i in range(16)]
    registered(state.database, state.blobs, name="pictures", columns=wide)


def picture(client, kind, model="people", **query):
    return client.get(f"/v1/models/{model}/versions/1/plots/{kind}", params=query)


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("model", "kind"), [("people", "marginals"), ("plane", "density"), ("pictures", "images")]
)
def test_a_picture_is_drawn_of_what_there_is(shared_client, model, kind):
    answer = picture(shared_client, kind, model)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(PNG)


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_once(shared_client, monkeypatch):
    first = picture(shared_client, "pairs", format="svg")
    assert first.headers["content-type"] == "image/svg+xml"
    assert re.search(rb"<svg\b", first.content)

    monkeypatch.setattr(plots, "_TIMEOUT_S", 0.0)  # no other is drawn in no time
    assert picture(shared_client, "pairs", format="svg").content == first.content
    assert_refused(picture(shared_client, "pairs"), 503, "overloaded")


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("learning-curve", "people"),
        ("noise", "people"),
        ("density", "people"),
        ("images", "people"),
    ],
)
def test_what_cannot_be_shown_is_told(shared_client, kind, model):
    assert_refused(picture(shared_client, kind, model), 422, "plot-unavailable")


@pytest.mark.usefixtures("people")
def test_unknown_kinds_formats_and_versions_are_refused(shared_client):
    assert picture(shared_client, "pie").status_code == 422
    assert_refused(picture(shared_client, "pairs", format="gif"), 422, "validation")
    assert_refused(picture(shared_client, "pairs", "nobody"), 404, "not-found")
