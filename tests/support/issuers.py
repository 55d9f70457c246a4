"""An OpenID Connect issuer of our own on loopback."""

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

AUDIENCE = "densityd-page"


class OwnIssuer:
    """An issuer on loopback, which can be away and change its keys, and signs `ada` in who asks for it."""

    def __init__(self) -> None:
        self.is_away = False
        self.looks = 0
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.rotate("first")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.looks += 1
                path, _, query = self.path.partition("?")
                if path.endswith("/authorize"):
                    self.send_response(302)
                    self.send_header("Location", issuer.signed_in(dict(parse_qsl(query))))
                    self.end_headers()
                    return
                self.answer(503 if issuer.is_away else 200, issuer.page(path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                token = issuer.redeemed(dict(parse_qsl(body)))
                self.answer(*((400, {"error": "invalid_grant"}) if token is None else (200, token)))

            def answer(self, status: int, content: dict[str, Any]) -> None:
                self.send_response(status)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realms/own"
        self.endpoints = {
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        }
        self.asked: dict[str, dict[str, str]] = {}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> "OwnIssuer":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def rotate(self, kid: str) -> None:
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1())}

    def page(self, path: str) -> dict[str, Any]:
        if path.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                **self.endpoints,
                "scopes_supported": ["openid", "groups"],
            }
        algorithm = jwt.algorithms.ECAlgorithm
        return {
            "keys": [
                {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
        }

    def signed_in(self, asked: dict[str, str]) -> str:
        """Where the browser goes back to with a code."""
        assert (asked["response_type"], asked["client_id"]) == ("code", AUDIENCE)
        assert (asked["code_challenge_method"], asked["scope"]) == ("S256", "openid groups")
        code = f"code-{len(self.asked)}"
        self.asked[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def redeemed(self, given: dict[str, str]) -> dict[str, str] | None:
        """The token for a code, of whoever has the verifier of its challenge; once."""
        asked = self.asked.pop(given["code"])
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return None
        assert given["redirect_uri"] == asked["redirect_uri"]
        return {"id_token": self.token(groups=["densityd:default:admin"])}

    def token(self, *, kid: str | None = None, key: Any = None, **claims: Any) -> str:
        known = next(iter(self.keys))
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": time.time() + 600,
            "groups": ["staff", "densityd:fraud:write"],
        }
        content = {name: value for name, value in (usual | claims).items() if value is not None}
        headers = {"kid": kid or known}
        return jwt.encode(content, key or self.keys[known], algorithm="ES256", headers=headers)
