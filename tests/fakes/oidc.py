"""An OpenID provider on loopback that keeps the rules, and breaks the one that a test names."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

CLIENT, SECRET = "orgate", "a secret with: 100% of the characters & more"
Signer = RSAKey | ECKey | OKPKey | OctKey

KEYS: list[RSAKey] = []
"""Made once for all tests: RSA takes its time."""


def rsa(number: int = 0) -> RSAKey:
    while len(KEYS) <= number:
        KEYS.append(RSAKey.generate_key(2048, {"kid": f"key-{len(KEYS)}", "use": "sig", "alg": "RS256"}))
    return KEYS[number]


def signed(claims: Any, key: Signer, alg: str = "RS256", **header: Any) -> str:
    """A JWS of `claims` (a mapping, or text as it is)."""
    text = claims if isinstance(claims, str) else json.dumps(claims)
    head = {"alg": alg, "typ": "JWT", "kid": key.kid, **header}
    protected = {name: value for name, value in head.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    # A key that says what it is for would not do what an attacker does.
    willing = {name: value for name, value in key.as_dict(private=True).items() if name not in ("alg", "use")}
    key = type(key).import_key(willing)
    return jws.serialize_compact(protected, text, key, algorithms=[alg], registry=registry)


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """A token of `alg` none, or whatever the header says, with an empty signature."""
    parts = ({"alg": "none", "typ": "JWT", **header}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


@dataclass
class Provider:
    """`answers`: path → (status, body, headers) in the place of what is right. `claims` are what each ID Token
    says beside what it has to; None takes one away. `userinfo` the same of that endpoint."""

    url: str = ""
    signing: Signer = field(default_factory=rsa)
    alg: str = "RS256"
    published: list[Signer] = field(default_factory=lambda: [rsa()])
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    token: Callable[[dict[str, Any]], str] | None = None
    """Makes the ID Token of its claims."""
    now: Callable[[], float] = lambda: 0.0
    hold: threading.Event | None = None
    """When set, no answer before this."""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """(path, headers, form) of each request."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def paths(self, path: str) -> int:
        return sum(1 for asked, _, _ in self.asked if asked == path)

    def authorize(self, url: str) -> dict[str, str]:
        """What the browser brings back from where it was sent, by somebody who signs in at once."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return {"code": code, "state": query["state"], "iss": self.url}

    def document(self) -> dict[str, Any]:
        usual = {
            "issuer": self.url,
            "jwks_uri": self.url + "/jwks",
            "authorization_endpoint": self.url + "/authorize",
            "token_endpoint": self.url + "/token",
            "userinfo_endpoint": self.url + "/userinfo",
            "response_types_supported": ["code"],
            "scopes_supported": ["openid", "email", "profile"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return {name: value for name, value in {**usual, **self.metadata}.items() if value is not None}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self.published]}

    def tokens(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            return 400, {"error": "invalid_grant"}
        now = int(self.now())
        usual = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "ada-1",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "email": "ada@acme.example",
            "email_verified": True,
            "name": "Ada",
        }
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        made = self.token(claims) if self.token else signed(claims, self.signing, self.alg)
        return 200, {"access_token": "the-access-token", "token_type": "Bearer", "id_token": made}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        self._answer(dict(parse_qsl(body)))

    def _answer(self, form: dict[str, str]) -> None:
        provider, path = self.provider, urlsplit(self.path).path
        provider.asked.append((path, {name.lower(): value for name, value in self.headers.items()}, form))
        if provider.hold is not None:
            provider.hold.wait(30)
        status, body, headers = provider.answers.get(path) or self._right(path, form)
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _right(self, path: str, form: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        provider = self.provider
        status, found = 200, {}
        match path.removeprefix(urlsplit(provider.url).path):
            case "/.well-known/openid-configuration":
                found = provider.document()
            case "/jwks":
                found = provider.jwks()
            case "/token":
                status, found = provider.tokens(form)
            case "/userinfo":
                found = {"sub": "ada-1", **provider.userinfo}
            case _:
                status = 404
        return status, json.dumps(found).encode(), {}

    def log_message(self, *_args: object) -> None:
        """Tests read `asked` instead."""


@contextmanager
def providing(path: str = "") -> Iterator[Provider]:
    """A provider on a free port of loopback, its issuer with `path`."""
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": provider}))
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        if provider.hold is not None:
            provider.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


def basic(authorization: str) -> tuple[str, str]:
    """Client id and secret of an `Authorization` header, as RFC 6749 section 2.3.1 has them decoded."""
    user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    pair = dict(parse_qsl(f"user={user}&password={password}"))
    return pair["user"], pair["password"]


def query(**parameters: str) -> str:
    return urlencode(parameters)
