"""`/livez` and `/readyz` of the public listener, and the dialect of paths that do not exist there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from litestar import Request, Response, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gateway.api.data.openai import error_body
from gateway.errors import BadRequestError, GatewayError, NotFoundError


def health_routes(
    unready: Callable[[], Sequence[str]], degraded: Callable[[], Sequence[str]] = lambda: ()
) -> list[HTTPRouteHandler]:
    """`unready` gives the reasons why this worker should not be asked now, none when it should; `degraded` what is
    not as it should be while it is asked all the same."""

    @get(
        "/livez",
        include_in_schema=False,
        opt={"tenancy": "none"},
        media_type="application/json",
        sync_to_thread=False,
    )
    def livez() -> bytes:
        return b'{"status":"live"}'

    @get("/readyz", include_in_schema=False, opt={"tenancy": "none"}, sync_to_thread=False)
    def readyz() -> Response[bytes]:
        reasons = list(unready())
        said: dict[str, object] = {"status": "unready" if reasons else "ready", "reasons": reasons}
        if notes := list(degraded()):
            said["degraded"] = notes
        body = msgspec.json.encode(said)
        return Response(body, status_code=503 if reasons else 200, media_type="application/json")

    return [livez, readyz]


def refuse_http(request: Request, error: HTTPException) -> Response[bytes]:  # type: ignore[type-arg]
    """Litestar's own refusals (no such path, no such method) in the callers' dialect."""
    if error.status_code == 404:
        worded: GatewayError = NotFoundError(f"there is no {request.url.path} here")
    elif error.status_code < 500:
        worded = BadRequestError(error.detail)
    else:
        worded = GatewayError("the gateway failed")
    return Response(error_body(worded), status_code=error.status_code, media_type="application/json")
