"""A token endpoint that keeps RFC 6749: client credentials alone, each client authenticated in one way.

`orders` are what a test can do to it: answer late, not at all, with a redirect, with something else. Where it says
no it repeats what it was sent, as real ones do: none of it may be seen anywhere.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote_plus

from tests.kit.upstream import RecordingUpstream, Request

_NO_STORE = [("cache-control", "no-store"), ("pragma", "no-cache")]


class TokenEndpoint:
    """See the module. An async context manager; `url` is what a client's `token_url` takes.

    `life_s`: of the tokens; None: it is not said. `scopes`: those a client may ask for. `given`: what was issued.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, life_s: int | None = 3600) -> None:
        self.life_s = life_s
        self.clients: dict[str, str] = {"gw": "cs-planted"}
        self.scopes = {"models"}
        self.given: list[str] = []
        self.revoked: set[str] = set()
        self.status: int | None = None
        """Answer this to everything, with what was sent in the body."""
        self.raw: bytes | None = None
        """Answer 200 and these bytes."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        """Cleared: it takes requests and does not answer."""
        self.server = RecordingUpstream(tls=tls, script=self._answer)
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return f"{self.server.url}/oauth/token?tenant=acme"

    @property
    def asked(self) -> int:
        return self.server.opened

    def takes(self, authorization: str) -> bool:
        """Whether a resource server would: RFC 6750, a token issued here and not revoked."""
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and token in self.given and token not in self.revoked

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)

    async def _answer(self, request: Request) -> None:
        await self.go_on.wait()
        sent = bytes(request.body).decode()
        if self.status is not None:
            location = [("location", "https://elsewhere.example/token")] if 300 <= self.status < 400 else []
            request.respond(self.status, [("content-type", "text/plain"), *location])
            request.send(f"{request.headers} {sent}".encode(), end=True)
        elif self.raw is not None:
            request.respond(200, [("content-type", "application/json")])
            request.send(self.raw, end=True)
        elif fault := self._fault(request, sent):
            status = 401 if fault == "invalid_client" else 400
            request.respond_json(
                {"error": fault, "error_description": f"not with {request.headers} and {sent}"}, status
            )
        else:
            token = f"at-planted-{next(self._numbers)}"
            self.given.append(token)
            answer: dict[str, object] = {"access_token": token, "token_type": "bearer"}
            if self.life_s is not None:
                answer["expires_in"] = self.life_s
            request.respond_json(answer)

    def _fault(self, request: Request, sent: str) -> str:
        """The error code of RFC 6749 section 5.2, '' for none."""
        form = parse_qs(sent, keep_blank_values=True)
        content_type = request.headers.get("content-type", "")
        if request.method != "POST" or content_type != "application/x-www-form-urlencoded":
            return "invalid_request"
        if request.path != "/oauth/token?tenant=acme" or any(len(values) != 1 for values in form.values()):
            return "invalid_request"
        basic = _basic(request.headers.get("authorization", ""))
        if basic is not None and "client_secret" in form:
            return "invalid_request"  # section 2.3: one way to authenticate in each request
        name, secret = basic or (form.get("client_id", [""])[0], form.get("client_secret", [""])[0])
        if not secret or self.clients.get(name) != secret:
            return "invalid_client"
        if form.get("grant_type") != ["client_credentials"]:
            return "unsupported_grant_type"
        if not set(form.get("scope", [""])[0].split()) <= self.scopes:
            return "invalid_scope"
        return ""


def _basic(value: str) -> tuple[str, str] | None:
    """Section 2.3.1: both parts are form-urlencoded."""
    kind, _, coded = value.partition(" ")
    if kind != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(name), unquote_plus(secret)
