"""Workers pass `/oauth` and `/.well-known` on to the control process, where passwords and keys are.

What passes is what the table says: these paths with these methods, these headers, a small body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Protocol

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from gateway.bus.client import Relayed
from gateway.errors import UnavailableError
from tenants.ids import InvalidIdError, org_id

log = logging.getLogger("orgate.oauth")

RELAYED: Mapping[str, tuple[str, ...]] = {
    "/.well-known/oauth-authorization-server": ("GET",),
    "/.well-known/jwks.json": ("GET",),
    "/oauth/account": ("GET", "POST"),
    "/oauth/account/change": ("POST",),
    "/oauth/authorize": ("GET", "POST"),
    "/oauth/device": ("GET", "POST"),
    "/oauth/device_authorization": ("POST",),
    "/oauth/invitation": ("GET", "POST"),
    "/oauth/introspect": ("POST",),
    "/oauth/par": ("POST",),
    "/oauth/revoke": ("POST",),
    "/oauth/sso/callback/{org:str}": ("GET",),
    "/oauth/token": ("POST",),
}
"""Everything that is relayed. A path that is not here does not exist on the public listener."""

_ORG = "/{org:str}"
"""Of a path that ends with an organization's id."""

MAX_BODY = 64 * 1024
MAX_QUERY = 8 * 1024
BODY_S = 10.0
"""Seconds for a whole body. Nobody is signed in here: a body that never ends must not hold a place for ever."""

_REQUEST_HEADERS = frozenset(
    b"accept accept-language authorization content-type cookie dpop origin referer sec-fetch-site"
    b" user-agent".split()
)
_RESPONSE_HEADERS = frozenset(
    b"allow cache-control content-language content-security-policy content-type cross-origin-opener-policy"
    b" dpop-nonce etag location pragma referrer-policy retry-after set-cookie vary www-authenticate"
    b" x-content-type-options refresh x-frame-options".split()
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")

Headers = list[tuple[bytes, bytes]]


class ControlProcess(Protocol):
    """`gateway.bus.client.BusClient`."""

    async def relay(self, method: str, path_qs: str, headers: list[tuple[str, str]], body: bytes) -> Relayed: ...


class _RefusedError(Exception):
    """`error` is a code of RFC 6749 section 5.2; `description` is shown to the caller."""

    def __init__(self, status: int, error: str, description: str, headers: Headers | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.headers = headers or []
        self.body = json.dumps({"error": error, "error_description": description}).encode()


class _GoneError(Exception):
    """The client went away before its body had come."""


def control_routes(control: ControlProcess, body_s: float = BODY_S) -> list[ASGIRouteHandler]:
    """One raw handler for each path of `RELAYED`. Errors are OAuth's JSON (RFC 6749 section 5.2)."""
    return [_route(path, methods, control, body_s) for path, methods in RELAYED.items()]


def _route(path: str, methods: tuple[str, ...], control: ControlProcess, body_s: float) -> ASGIRouteHandler:
    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        status, headers, body = 500, [], b""
        try:
            answer = await _ask(path, methods, control, scope, receive, request_id=request_id, body_s=body_s)
            status, body = answer.status, answer.body
            headers = [item for item in answer.headers if item[0] in _RESPONSE_HEADERS]
        except _RefusedError as refused:
            json_headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
            status, headers, body = refused.status, [*json_headers, *refused.headers], refused.body
        except _GoneError:
            return
        headers += [(b"x-request-id", request_id), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        shown = b"" if scope.get("method") == "HEAD" else body
        await send({"type": "http.response.body", "body": shown, "more_body": False})

    relay.__name__ = "relay" + re.sub(r"\W", "_", path)
    # Litestar knows no parameters in a raw handler's path, but trees beneath one: `_path` judges what is there.
    return asgi(path.removesuffix(_ORG), is_mount=path.endswith(_ORG), opt={"tenancy": "none"}, copy_scope=False)(
        relay
    )


async def _ask(
    path: str,
    methods: tuple[str, ...],
    control: ControlProcess,
    scope: Scope,
    receive: Receive,
    *,
    request_id: bytes,
    body_s: float,
) -> Relayed:
    method = str(scope.get("method", ""))
    asked = "GET" if method == "HEAD" else method  # RFC 9110 section 9.3.2: the same, without the content
    if asked not in methods:
        allow = ", ".join(("HEAD", *methods) if "GET" in methods else methods)
        raise _RefusedError(405, "invalid_request", f"{path} takes {allow}", [(b"allow", allow.encode())])
    query = scope["query_string"]
    if len(query) > MAX_QUERY:
        raise _RefusedError(414, "invalid_request", f"the query is longer than {MAX_QUERY} bytes")
    try:
        async with asyncio.timeout(body_s):
            body = await _body(receive)
    except TimeoutError:
        raise _RefusedError(408, "invalid_request", f"the body did not come within {body_s:.0f} seconds") from None
    # None of these means anything outside ASCII (RFC 9110 section 5.5): what does not read is not there.
    headers = [
        (name.decode("ascii"), value.decode("ascii"))
        for name, value in scope["headers"]
        if name in _REQUEST_HEADERS and value.isascii() and name != b"cookie"
    ]
    # Over HTTP/2 a browser sends each cookie in a field of its own: a line again (RFC 9113 section 8.2.3).
    cookies = [value.decode("ascii") for name, value in scope["headers"] if name == b"cookie" and value.isascii()]
    headers += [("cookie", "; ".join(cookies))] if cookies else []
    client = scope.get("client")
    headers += [("x-orgate-client", client[0] if client else ""), ("x-request-id", request_id.decode())]
    target = _path(path, scope) + ("?" + query.decode("latin-1") if query else "")
    try:
        return await control.relay(asked, target, headers, body)
    except UnavailableError:
        # The request may have been carried out: nothing here may try it again.
        again = [(b"retry-after", b"1")]
        raise _RefusedError(
            503, "temporarily_unavailable", "sign-in is not available for the moment; try again", again
        ) from None


def _path(path: str, scope: Scope) -> str:
    """`path`, with the organization that stands in its place: an id and nothing else goes on."""
    if not path.endswith(_ORG):
        return path
    try:
        return f"{path.removesuffix(_ORG)}/{org_id(str(scope['path']).strip('/'))}"
    except InvalidIdError:
        raise _RefusedError(404, "invalid_request", "there is nothing here") from None


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _GoneError
        size += len(message["body"])
        if size > MAX_BODY:
            raise _RefusedError(413, "invalid_request", f"the body is larger than {MAX_BODY} bytes")
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def _request_id(scope: Scope) -> bytes:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given if _REQUEST_ID.fullmatch(given) else b"req_" + secrets.token_hex(12).encode()
