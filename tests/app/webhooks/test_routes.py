"""Routes of webhooks."""

import pytest

from tests.app.conftest import assert_refused

BODY = {"url": "https://example.org/hook"}


@pytest.mark.long
def test_a_webhook_is_made_shown_changed_and_deleted(client):
    made = client.post("/v1/webhooks", json=BODY)
    assert made.status_code == 201
    url, secret = made.headers["Location"], made.json()["secret"]
    assert secret.startswith("whsec_")
    shown = client.get(url).json()
    assert shown == {name: value for name, value in made.json().items() if name != "secret"}
    assert client.get("/v1/webhooks").json()["items"] == [shown]
    assert client.post(f"{url}/rotate").json()["secret"] != secret
    delivery = client.post(f"{url}/test")
    assert delivery.status_code == 202
    assert client.get(f"{url}/deliveries").json()["items"] == [delivery.json()]
    assert client.delete(url).status_code == 204
    assert_refused(client.get(url), 404, "not-found")


def test_wrong_webhooks_are_refused(client):
    for body in (
        {"url": "http://example.org/"},
        {"url": "https://127.0.0.1/"},
        {"url": ""},
        {**BODY, "events": []},
        {**BODY, "events": ["job.started"]},
        {**BODY, "description": "\0"},
    ):
        assert_refused(client.post("/v1/webhooks", json=body), 422, "validation")
    for _ in range(20):
        assert client.post("/v1/webhooks", json=BODY).status_code == 201
    assert_refused(client.post("/v1/webhooks", json=BODY), 409, "limit-webhooks")
