"""Who signs in elsewhere: tokens of an issuer of our own on loopback, and headers of a proxy."""

import json
import re
import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.keys import Scope
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.serving import bearer, keyed
from tests.support.issuers import AUDIENCE, OwnIssuer
from tests.support.waiting import Clock


@pytest.fixture
def issuer() -> Iterator[OwnIssuer]:
    with OwnIssuer() as issuer:
        yield issuer


@pytest.fixture
def signing_in(settings: ApiSettings, issuer: OwnIssuer) -> ApiSettings:
    """Settings of a service with the issuer."""
    return settings.model_copy(update={"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE})


@pytest.fixture
def client(signing_in: ApiSettings) -> Iterator[TestClient]:
    """A service with the issuer, and a key in the project `p`."""
    with keyed(signing_in) as (client, _):
        yield client


def test_a_token_opens_the_project_of_its_group_with_its_scope(client, issuer):
    headers = bearer(issuer.token())
    me = client.get("/v1/me", headers=headers).json()
    assert (me["project"], me["scope"], me["person"], me["key"]) == (
        *("fraud", "write", "oidc:ada", None),
    )
    foreign = {"Sec-Fetch-Site": "cross-site"}  # whose page has no token of its own
    made = client.post("/v1/datasets", content=TABLE, headers=CSV | headers | foreign)
    assert made.status_code == 201
    assert_refused(client.get("/v1/keys", headers=headers), 403, "forbidden")
    admin = bearer(
        issuer.token(groups="densityd:fraud:read densityd:fraud:admin densityd:fraud:write")
    )
    [change] = client.get("/v1/audit", headers=admin).json()["items"]
    assert change["key_id"] == "oidc:ada"
    assert_refused(client.get("/metrics", headers=admin), 403, "forbidden")


def test_somebody_in_several_projects_names_one(client, issuer):
    headers = bearer(issuer.token(groups=["densityd:a:read", "densityd:b:write"]))
    assert client.get("/v1/me", headers=headers).json()["project"] == "a"
    named = client.get("/v1/me", headers={**headers, "X-Project": "b"}).json()
    assert (named["project"], named["scope"]) == ("b", "write")
    refused = client.get("/v1/me", headers={**headers, "X-Project": "fraud"})
    assert_refused(refused, 403, "forbidden")
    for groups in (["staff", 3], None):
        nobody = client.get("/v1/me", headers=bearer(issuer.token(groups=groups)))
        assert_refused(nobody, 403, "forbidden")


REFUSED: dict[str, dict[str, Any]] = {
    "of another issuer": {"iss": "https://elsewhere.example"},
    "for another audience": {"aud": "another"},
    "for no audience": {"aud": None},
    "over": {"exp": time.time() - 60},
    "without an end": {"exp": None},
    "of nobody": {"sub": None},
    "of a name with a space": {"sub": "two words"},
    "not valid yet": {"nbf": time.time() + 600},
    "of an unknown key": {"kid": "unknown"},
    "signed by another": {"key": ec.generate_private_key(ec.SECP256R1())},
}


def test_what_is_not_for_this_service_or_not_signed_opens_nothing(client, issuer):
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "a", "exp": time.time() + 600}
    for token in (
        *(issuer.token(**claims) for claims in REFUSED.values()),
        jwt.encode(claims, "", algorithm="none", headers={"kid": "first"}),
        jwt.encode(claims, "s" * 32, algorithm="HS256", headers={"kid": "first"}),
        "a.b.c",
        "nonsense",
    ):
        assert_refused(client.get("/v1/me", headers=bearer(token)), 401, "unauthorized")


def test_keys_work_while_the_issuer_is_away_and_its_known_keys_do_too(signing_in, issuer):
    with keyed(signing_in) as (client, keys):
        issuer.is_away = True
        key = keys.create("p", Scope.READ)
        assert client.get("/v1/me", headers=bearer(key)).status_code == 200
        assert_refused(client.get("/v1/me", headers=bearer(issuer.token())), 503, "issuer-away")
        looks = issuer.looks
        client.get("/v1/me", headers=bearer(issuer.token(sub="other")))
        assert issuer.looks == looks, "it is not asked by each request"
    issuer.is_away = False
    with keyed(signing_in) as (client, _):
        assert client.get("/v1/me", headers=bearer(issuer.token())).status_code == 200
        issuer.is_away = True
        assert client.get("/v1/me", headers=bearer(issuer.token(sub="bob"))).status_code == 200


def test_keys_are_read_each_hour_and_when_a_token_names_another(client, issuer, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("app.auth.identity.time", clock)

    def status(token: str) -> int:
        return int(client.get("/v1/me", headers=bearer(token)).status_code)

    assert status(issuer.token()) == 200
    looks = issuer.looks
    clock.now += 60
    assert status(issuer.token(exp=time.time() - 3)) == 200  # clocks differ by some seconds
    assert issuer.looks == looks
    issuer.rotate("second")
    assert status(issuer.token()) == 200
    issuer.rotate("third")
    assert status(issuer.token()) == 401
    clock.now += 11
    assert status(issuer.token()) == 200
    old = issuer.token(sub="eve")
    issuer.rotate("fourth")
    clock.now += 3601
    assert status(old) == 401


def test_the_page_knows_how_to_sign_in_at_an_issuer_that_says_so(client, issuer, settings):
    page = client.get("/")
    [told] = re.findall(r'name="sign-in" content="([^"]*)"', page.text)
    assert json.loads(unescape(told)) == {
        "client_id": AUDIENCE,
        "authorization_endpoint": f"{issuer.url}/authorize",
        "token_endpoint": f"{issuer.url}/token",
        "scope": "openid groups",
    }
    policy = page.headers["content-security-policy"]
    assert f"connect-src 'self' {issuer.url.removesuffix('/realms/own')};" in f"{policy};"
    with (
        OwnIssuer() as silent,
        keyed(
            settings.model_copy(update={"oidc_issuer": silent.url, "oidc_audience": AUDIENCE})
        ) as (other, _),
    ):
        silent.endpoints = {"authorization_endpoint": f"{silent.url}/authorize"}
        assert "sign-in" not in other.get("/").text
        assert other.get("/v1/me", headers=bearer(silent.token())).is_success


def test_keys_of_a_page_that_names_another_issuer_are_not_used(signing_in, issuer):
    other = f"{issuer.url}/"  # whose page is that of the issuer
    with keyed(signing_in.model_copy(update={"oidc_issuer": other})) as (client, _):
        me = client.get("/v1/me", headers=bearer(issuer.token(iss=other)))
        assert_refused(me, 503, "issuer-away")


def test_a_service_with_an_issuer_serves_nobody_else_on_loopback(signing_in, issuer):
    with keyed(signing_in, first=False) as (client, _):
        assert_refused(client.get("/v1/me"), 401, "unauthorized")
        assert client.get("/v1/me", headers=bearer(issuer.token())).status_code == 200


PERSON = {"X-Forwarded-User": "grace", "X-Forwarded-Groups": "staff, densityd:fraud:write"}


@pytest.fixture
def proxied(settings: ApiSettings) -> ApiSettings:
    return settings.model_copy(update={"trusted_proxies": "127.0.0.0/8, 10.1.0.0/16"})


def test_a_trusted_proxy_says_who_is_signed_in(proxied):
    app = create_app(proxied)
    with TestClient(app, client=("10.1.2.3", 5)) as client:
        me = client.get("/v1/me", headers=PERSON).json()
        assert (me["project"], me["scope"], me["person"]) == ("fraud", "write", "proxy:grace")
        assert_refused(client.get("/v1/me"), 401, "unauthorized")
        two = {"X-Forwarded-Groups": "densityd:a:read,densityd:b:read", "X-Project": "b"}
        assert client.get("/v1/me", headers=PERSON | two).json()["project"] == "b"
        for groups in ("", "staff"):
            named = {**PERSON, "X-Forwarded-Groups": groups}
            assert_refused(client.get("/v1/me", headers=named), 403, "forbidden")
        twice = [*PERSON.items(), ("X-Forwarded-User", "eve")]
        assert_refused(client.get("/v1/me", headers=twice), 401, "unauthorized")
        # Whoever sends a key is its bearer.
        both = {**PERSON, "Authorization": "Bearer key_x"}
        assert_refused(client.get("/v1/me", headers=both), 401, "unauthorized")


def test_anybody_else_who_sends_the_headers_is_not_believed(proxied, settings):
    app = create_app(proxied)
    for address in ("10.2.0.1", "unix"):
        with TestClient(app, client=(address, 5)) as client:
            assert_refused(client.get("/v1/me", headers=PERSON), 401, "unauthorized")
    with keyed(settings) as (client, _):
        assert_refused(client.get("/v1/me", headers=PERSON), 401, "unauthorized")


def test_a_page_of_another_site_changes_nothing_with_the_cookie_of_the_proxy(proxied):
    with TestClient(create_app(proxied), client=("10.1.2.3", 5)) as client:
        for headers, status in (
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Sec-Fetch-Site": "none"}, 201),
            ({"Sec-Fetch-Site": "same-origin", "Origin": "https://density.example"}, 201),
            ({"Origin": "https://d.example", "X-Forwarded-Host": "d.example"}, 201),
            ({}, 201),
        ):
            sent = CSV | PERSON | headers
            made = client.post("/v1/datasets", content=TABLE, headers=sent)
            assert made.status_code == status, (headers, made.text)
        seen = client.get("/v1/datasets", headers=PERSON | {"Sec-Fetch-Site": "cross-site"})
        assert seen.status_code == 200


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"oidc_issuer": "https://a.example"}, "oidc_audience"),
        ({"oidc_issuer": "a.example", "oidc_audience": "b"}, "oidc_issuer"),
        ({"trusted_proxies": "all"}, "trusted_proxies"),
    ],
)
def test_a_setting_that_would_let_others_in_is_refused(values, named):
    with pytest.raises(ValueError, match=named):
        ApiSettings(**values)
