"""SCIM's listener: an ASGI application of its own, mounted on the admin listener. Authenticates before it
looks at anything else, bounds what it reads, and says every error in SCIM's own shape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from gateway.api.admin.caller import PUBLIC
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.requestid import request_id
from gateway.api.failure import bare
from gateway.api.scim.bulk import run_bulk
from gateway.api.scim.caller import ScimCaller, ScimGate, gate_of
from gateway.api.scim.discovery import MAX_BODY
from gateway.api.scim.messages import MEDIA_TYPE, ScimAnswer, ScimRequest, parsed
from gateway.api.scim.problems import scim_error
from gateway.api.scim.routes import PREFIX, ScimRoute, find_routes
from gateway.scim.errors import ScimError, not_found

log = logging.getLogger(__name__)

BODY_S: Final = 20.0
REQUEST_S: Final = 60.0
MAX_PARAMETERS: Final = 50
_MEDIA: Final = frozenset({MEDIA_TYPE, "application/json"})


def scim_handler(deps: AdminDependencies) -> ASGIRouteHandler:
    """All that is beneath `/scim/v2`. The guard of the admin API passes it by: it has one of its own."""

    @cache
    def gate() -> ScimGate:  # not before it is asked: documents are made of routes alone
        return gate_of(deps, deps.admin_url, deps.throttles)

    @asgi(PREFIX, is_mount=True, copy_scope=True, opt={PUBLIC: True, "tenancy": "path"})
    async def scim(scope: Scope, receive: Receive, send: Send) -> None:
        await _send(send, await _answered(gate(), scope, receive))

    return scim


async def _answered(gate: ScimGate, scope: Any, receive: Receive) -> ScimAnswer:
    headers = _headers(scope)
    try:
        async with asyncio.timeout(REQUEST_S):
            return await _serve(gate, scope, receive, headers)
    except Exception as error:  # noqa: BLE001  # whatever it was, it is answered as SCIM has it
        said = scim_error(error)
        _note(request_id(scope), said, error)
        return _refusal(said, given="authorization" in headers)


async def _serve(gate: ScimGate, scope: Any, receive: Receive, headers: dict[str, str]) -> ScimAnswer:
    org, _, rest = str(scope["path"]).strip("/").partition("/")
    address = scope["client"][0] if scope.get("client") else ""
    caller = await gate.admit(org, headers, address, request_id(scope))
    found = find_routes("/" + rest)
    if found is None:
        raise not_found()
    route = found.routes.get(scope["method"])
    if route is None:
        answer = _refusal(ScimError(405, "This path exists, but not with this method; see Allow."), given=True)
        return ScimAnswer(answer.status, answer.body, {**answer.headers, "allow": ", ".join(sorted(found.routes))})
    caller.require(route.operation)
    body = parsed(await _body(receive, headers)) if scope["method"] in {"POST", "PUT", "PATCH"} else None
    request = ScimRequest(
        found.key,
        _query(scope),
        body,
        headers.get("if-match", ""),
        headers.get("if-none-match", ""),
    )
    return await _handled(caller, route, request)


async def _handled(caller: ScimCaller, route: ScimRoute, request: ScimRequest) -> ScimAnswer:
    if route.handle is not None:
        return await route.handle(caller, request)

    async def run(method: str, path: str, inner: ScimRequest) -> ScimAnswer:
        found = find_routes(path)
        one = found.routes.get(method) if found is not None else None
        try:
            if found is None or one is None or one.handle is None:
                raise ScimError(405, "There is no such operation.")
            caller.require(one.operation)
            return await one.handle(caller, msgspec.structs.replace(inner, key=found.key))
        except Exception as error:  # noqa: BLE001  # the operation's own answer; the others go on
            said = scim_error(error)
            _note(caller.actor.request_id, said, error)
            return ScimAnswer(said.status, said.body())

    return await run_bulk(request, run)


def _note(request: str, said: ScimError, error: BaseException) -> None:
    if said.status >= 500 and not isinstance(error, ScimError):
        log.error("request %s answered %d: %s", request, said.status, bare(error))


def _headers(scope: Any) -> dict[str, str]:
    """By name; of several, the first for what says who is calling, all of them for conditions."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found and key.startswith("if-") else found.get(key, text)
    return found


def _query(scope: Any) -> dict[str, str]:
    """Names in lower case. What is not known is passed over: Entra ID puts flags of its own there."""
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise ScimError(400, f"There are more than {MAX_PARAMETERS} parameters.", "invalidSyntax") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name.lower() in found:
            raise ScimError(400, "A parameter is given twice.", "invalidSyntax")
        found[name.lower()] = value
    return found


async def _body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in _MEDIA:
        raise ScimError(415, f"The body's content-type is {MEDIA_TYPE} or application/json.")
    if headers.get("content-encoding", "identity") != "identity":
        raise ScimError(415, "A body is taken as it is, without content-encoding.")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message: Any = await receive()
                if message["type"] == "http.disconnect":
                    raise ScimError(400, "The body came to no end.", "invalidSyntax")
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > MAX_BODY:
                    raise ScimError(413, f"The body is larger than {MAX_BODY} bytes.")
                if not message.get("more_body"):
                    return b"".join(pieces)
    except TimeoutError:
        raise ScimError(408, f"The body took longer than {BODY_S:g} s.") from None


def _refusal(said: ScimError, *, given: bool) -> ScimAnswer:
    headers = {}
    if said.status == 401:  # RFC 6750 section 3.1
        headers["www-authenticate"] = 'Bearer error="invalid_token"' if given else "Bearer"
    if said.retry_after_s:
        headers["retry-after"] = str(said.retry_after_s)
    return ScimAnswer(said.status, said.body(), headers)


async def _send(send: Send, answer: ScimAnswer) -> None:
    body = b"" if answer.body is None else msgspec.json.encode(answer.body)
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    if answer.body is not None:
        headers.append((b"content-type", MEDIA_TYPE.encode()))
    if answer.status not in {204, 304}:
        headers.append((b"content-length", str(len(body)).encode()))
    start: Any = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    end: Any = {"type": "http.response.body", "body": body, "more_body": False}
    await send(end)
