"""Callers who sign in elsewhere: with a token of an OpenID Connect issuer, or by an authenticating proxy."""

import ipaddress
import logging
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from app.limits import Caller
from app.problems.problem import Problem
from models_store.keys import Scope

if TYPE_CHECKING:
    import jwt

log = logging.getLogger(__name__)

_GRANT = re.compile(r"densityd:(?P<project>[a-z0-9][a-z0-9._-]{0,63}):(?P<scope>read|write|admin)")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")
# Of key pairs alone: who may check a token cannot make one.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
_TIMEOUT_S = 3.0
_KEPT_S = 3600.0
_AGAIN_S = 10.0  # after a look for a key that the issuer did not have, or that failed
_LEEWAY_S = 10.0


@dataclass(frozen=True)
class Person:
    """Somebody who signed in.

    Args:
        name: Name, with who vouches for it before a colon.
        grants: Projects that the person may use, and the scope in each; the first one is the usual.
    """

    name: str
    grants: dict[str, Scope]

    def caller(self, wanted: str | None) -> Caller:
        """Return the person as the caller of a project.

        Args:
            wanted: Project that the request names; None: the first one.

        Raises:
            Problem: `forbidden`.
        """
        project = next(iter(self.grants), None) if wanted is None else wanted
        if project is None or project not in self.grants:
            raise Problem(
                "forbidden",
                "You are signed in, and may not use this project: a group `densityd:PROJECT:SCOPE`, with the"
                " scope read, write or admin, is missing.",
            )
        return Caller(project, self.grants[project], self.name)


def person_of(name: str, groups: Iterable[object]) -> Person | None:
    """Return a person with the projects that groups such as ``densityd:fraud:write`` open; None without a name.

    Args:
        name: Name, with who vouches for it before a colon.
        groups: All groups of the person; those that are not meant for densityd are ignored.
    """
    if not _NAME.fullmatch(name):
        return None
    grants: dict[str, Scope] = {}
    for group in groups:
        match = _GRANT.fullmatch(group) if isinstance(group, str) else None
        if match is not None:
            scope = Scope(match["scope"])
            old = grants.get(match["project"], scope)
            grants[match["project"]] = old if old.includes(scope) else scope
    return Person(name, grants)


@dataclass(frozen=True)
class SignIn:
    """What a page needs to sign somebody in by the authorization code flow with PKCE (RFC 7636)."""

    client_id: str
    authorization_endpoint: str
    token_endpoint: str
    scope: str


class Issuer:
    """OpenID Connect issuer whose signed tokens are accepted; safe to share between threads.

    A token needs the issuer, the audience, a subject and an end. The issuer's keys are read when the first
    token comes, each hour, and when a token names another key, at most six times a minute.

    Args:
        url: Issuer, as in the claim `iss`.
        audience: Audience, as in the claim `aud`.
        claim: Claim with the groups of the person, a list of texts or one text with spaces.
    """

    def __init__(self, url: str, *, audience: str, claim: str) -> None:
        self._url = url
        self._audience = audience
        self._claim = claim
        self._lock = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._sign_in: SignIn | None = None
        self._read_at = self._tried_at = float("-inf")

    def person(self, token: str) -> Person | None:
        """Return the bearer of a token; None if it is not valid.

        Raises:
            Problem: `issuer-away`.
        """
        import jwt  # noqa: PLC0415 - the library is for services with an issuer alone

        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._url,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, KeyError):
            return None
        groups = claims.get(self._claim)
        return person_of(
            f"oidc:{claims['sub']}", groups.split() if isinstance(groups, str) else groups or ()
        )

    def _key(self, kid: str | None) -> "jwt.PyJWK":
        """Return a key of the issuer.

        Raises:
            KeyError: It has none of this id.
            Problem: `issuer-away`.
        """
        with self._lock:
            self._look(wanted=kid not in self._keys)
            if not self._keys:
                raise Problem("issuer-away")
            return self._keys[kid]

    def sign_in(self) -> SignIn | None:
        """Return how a page signs somebody in; None if the issuer does not say, or was never there."""
        with self._lock:
            self._look(wanted=False)
            return self._sign_in

    def _look(self, *, wanted: bool) -> None:
        """Read the issuer's pages if something in them is wanted, or they are old."""
        now = time.monotonic()
        if now - self._tried_at > _AGAIN_S and (wanted or now - self._read_at > _KEPT_S):
            self._tried_at = now
            try:
                self._read()
                self._read_at = now
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                log.warning("the keys of the issuer %s cannot be read: %s", self._url, error)

    def _read(self) -> None:
        import jwt  # noqa: PLC0415 - as above

        with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            found = client.get(f"{self._url.rstrip('/')}/.well-known/openid-configuration")
            described = found.raise_for_status().json()
            if described["issuer"] != self._url:
                raise ValueError("the document is of another issuer")
            keys = client.get(described["jwks_uri"]).raise_for_status().json()
        usable = jwt.PyJWKSet.from_dict(keys).keys
        self._keys = {key.key_id: key for key in usable if key.public_key_use in (None, "sig")}
        places = [str(described.get(f"{name}_endpoint", "")) for name in ("authorization", "token")]
        if all(place.startswith(("https://", "http://")) for place in places):
            known = described.get("scopes_supported", ())
            scopes = ["openid", *(scope for scope in ("profile", "groups") if scope in known)]
            self._sign_in = SignIn(self._audience, places[0], places[1], " ".join(scopes))


class Proxy:
    """Authenticating proxies, whose word about who is signed in is taken.

    Args:
        networks: Networks of their addresses, with commas between them.
    """

    def __init__(self, networks: str) -> None:
        self._networks = [ipaddress.ip_network(text.strip()) for text in networks.split(",")]

    def person(self, address: str | None, headers: list[tuple[bytes, bytes]]) -> Person | None:
        """Return whom a proxy names; None if it names nobody, or the request is of none.

        Args:
            address: Address that the connection comes from.
        """
        users = _values(headers, b"x-forwarded-user")
        if len(users) != 1 or not self._is_trusted(address):
            return None
        groups = ",".join(_values(headers, b"x-forwarded-groups"))
        return person_of(f"proxy:{users[0]}", [group.strip() for group in groups.split(",")])

    def _is_trusted(self, address: str | None) -> bool:
        try:
            peer = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(peer in network for network in self._networks)


def _values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]
