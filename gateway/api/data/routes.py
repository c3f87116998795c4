"""The data plane's one route table: registration, 405s, tenancy and the OpenAPI entries come from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend

from gateway.api.challenge import challenge
from gateway.api.data.deadlines import Deadlines
from gateway.api.data.edge import HttpAnswer, HttpInbound, Receive, Scope, Send
from gateway.api.data.openai import decoder, error_body, error_event
from gateway.api.data.requestid import RequestIds
from gateway.api.failure import bare
from gateway.errors import (
    BadRequestError,
    GatewayError,
    LimitExceededError,
    MethodNotAllowedError,
    RequestTimeoutError,
    SupersededError,
    UnauthenticatedError,
    UnavailableError,
    UnknownModelError,
    UpstreamTimeoutError,
)
from gateway.exchange import Headers
from gateway.inflight import Abort
from gateway.pipeline import Pipeline
from policies.facts import Action
from tenants.models import ModelAlias

log = logging.getLogger("orgate.data")

Tenancy = Literal["token", "none"]
"""Where the organization comes from: the access token, or the route knows none."""

PATIENCE_S = 60
"""With a longer `Retry-After`, clients are told not to try again by themselves: OpenAI's SDKs of before 2026 would
not wait as long and be refused a second time."""

Serve = Callable[[HttpInbound, HttpAnswer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DataRoute:
    """One path of the data plane. `below`: also everything under it (a model's name)."""

    path: str
    method: str
    summary: str
    tenancy: Tenancy
    task: Action
    below: bool = False


ROUTES: tuple[DataRoute, ...] = (
    DataRoute(
        "/v1/completions", "POST", "Complete code, with a suffix to fill in the middle", "token", Action.COMPLETE
    ),
    DataRoute("/v1/chat/completions", "POST", "Answer a conversation", "token", Action.CHAT),
    DataRoute("/v1/embeddings", "POST", "Embed text", "token", Action.EMBED),
    DataRoute("/v1/models", "GET", "List the models the caller may use", "token", Action.LIST_MODELS, below=True),
)


class DataPlane:
    """Turns the table into Litestar's raw handlers around one `Pipeline`. Serves in one event loop."""

    def __init__(self, pipeline: Pipeline, *, max_body: int, timeout_s: float, body_timeout_s: float = 10) -> None:
        self._pipeline = pipeline
        self._max_body = max_body
        self._timeout_s = timeout_s
        self._body_timeout_s = body_timeout_s
        self._new_request_id = RequestIds()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: Deadlines

    def handlers(self) -> list[ASGIRouteHandler]:
        return [self._handler(route) for route in ROUTES]

    def _handler(self, route: DataRoute) -> ASGIRouteHandler:
        serve_call = None if route.below else self._serve_call(route.task)

        async def handle(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
            serve = serve_call or self._serve_models(scope["path"])
            await self._exchange(route, scope, receive, send, serve)  # type: ignore[arg-type]  # ASGI's own types

        handle.__name__ = "data_" + route.task.replace(".", "_")
        return asgi(route.path, is_mount=route.below, opt={"tenancy": route.tenancy}, copy_scope=False)(handle)

    def _serve_call(self, task: Action) -> Serve:
        complete, decode = self._pipeline.complete, decoder(task)
        return lambda inbound, answer: complete(task, inbound, decode, answer)

    def _serve_models(self, path: str) -> Serve:
        wanted = path.removeprefix("/v1/models").strip("/")
        list_models = self._pipeline.list_models
        return lambda inbound, answer: list_models(inbound, answer, lambda models: render_models(models, wanted))

    async def _exchange(self, route: DataRoute, scope: Scope, receive: Receive, send: Send, serve: Serve) -> None:
        """Run one request to its end, and word what went wrong in the caller's dialect."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._deadlines = Deadlines(loop)
        task = asyncio.current_task(loop)  # told which: to find out takes a system call
        assert task is not None  # noqa: S101  # ASGI handlers run in tasks
        answer = HttpAnswer(send)
        try:
            if scope["method"] != route.method:
                raise MethodNotAllowedError(route.method)
            inbound = HttpInbound(
                scope,
                receive,
                task,
                loop,
                max_body=self._max_body,
                body_timeout_s=self._body_timeout_s,
                request_timeout_s=self._timeout_s,
                new_request_id=self._new_request_id,
            )
        except GatewayError as error:
            await _refuse(answer, error, self._new_request_id())
            return
        self._deadlines.enter(inbound)
        try:
            await serve(inbound, answer)
        except GatewayError as error:
            await _refuse(answer, error, inbound.request_id)
        except asyncio.CancelledError:
            if inbound.aborted is None:
                raise  # the server itself is stopping
            task.uncancel()
            if inbound.aborted is not Abort.CLIENT:
                await _refuse(answer, _ABORTED[inbound.aborted], inbound.request_id)
            elif inbound.cut_off:
                await _refuse(answer, _CUT_OFF, inbound.request_id)  # heard only by a sender who is still there
        except Exception as error:  # noqa: BLE001  # the last resort: the worker lives on
            log.error("request %s failed: %s", inbound.request_id, bare(error))  # noqa: TRY400  # no values in logs
            await _refuse(answer, GatewayError("the gateway failed"), inbound.request_id)
        finally:
            self._deadlines.leave(inbound)
            inbound.finish()


_CUT_OFF = BadRequestError("the request's body broke off, or cannot be read")
_ABORTED: dict[Abort, GatewayError] = {
    Abort.DEADLINE: UpstreamTimeoutError("the request took longer than it may"),
    Abort.REVOKED: UnauthenticatedError("the access token was revoked"),
    Abort.SUPERSEDED: SupersededError("a newer completion of the same document took this one's place"),
    Abort.BODY: RequestTimeoutError("the request's body did not come in time"),
    Abort.STOPPING: UnavailableError("the gateway is stopping; send the request again", retry_after_s=1),
}


async def _refuse(answer: HttpAnswer, error: GatewayError, request_id: str) -> None:
    if answer.finished:
        return
    if answer.started:
        await answer.finish(error_event(error) if answer.events else b"")
        return
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", request_id.encode()),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if isinstance(error, LimitExceededError):
        headers += error.headers
    if isinstance(error, SupersededError) or (isinstance(error, LimitExceededError) and _is_futile(error)):
        # OpenAI's SDKs send a 409 and a 429 again by themselves: the old keystroke would end the new one, and a
        # limit would refuse it again.
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", challenge(error).encode()))
    await answer.start(error.status, headers)
    await answer.finish(error_body(error))


def _is_futile(error: LimitExceededError) -> bool:
    """Waiting is of no use, or for longer than anybody's program should."""
    return error.retry_after_s is None or error.retry_after_s > PATIENCE_S


def render_models(models: Sequence[ModelAlias], wanted: str) -> bytes:
    """OpenAI's model list, or one model of it. `created` is fixed: an alias has no birthday callers may see."""
    rows = [{"id": m.name, "object": "model", "created": 0, "owned_by": m.upstream} for m in models]
    if not wanted:
        return msgspec.json.encode({"object": "list", "data": rows})
    for row in rows:
        if row["id"] == wanted:
            return msgspec.json.encode(row)
    raise UnknownModelError(f"the model '{wanted}' does not exist in this organization", param="model")


def openapi_paths() -> dict[str, Any]:
    """The data plane's OpenAPI `paths`, for the reference (Litestar leaves raw handlers out of its own)."""
    return {
        route.path: {
            route.method.lower(): {
                "operationId": route.task.value,
                "summary": route.summary,
                "security": [{"accessToken": []}],
                "x-tenancy": route.tenancy,
            }
        }
        for route in ROUTES
    }
