"""The authorization server over HTTP. Served by the control process; workers relay these paths to it.

A failure is answered as RFC 6749 section 5.2 says, in JSON; a person at a page sees it on the page.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from litestar import Response, Router, get, post
from litestar.types import ControllerRouterHandler

from gateway.api.failure import bare
from gateway.api.oauth import csrf, pages
from gateway.api.oauth.authorize import Authorize
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, parse_form, read_form, refuse_client_authentication
from gateway.oauth.caller import Caller
from gateway.oauth.errors import InvalidRequestError, OAuthError
from gateway.oauth.service import DeviceAsked, OAuthService
from tenants.store import StoreUnavailableError

log = logging.getLogger("orgate.oauth")

JSON: Final = "application/json"
HTML: Final = "text/html"  # Litestar adds the charset
NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}
PUBLISHED: Final = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}

Page = Callable[[str, Mapping[str, str], str], str]


def oauth_routes(service: OAuthService) -> list[ControllerRouterHandler]:
    """Everything under `/oauth` and `/.well-known`, for the composition root."""
    server, authorize = AuthorizationServer(service), Authorize(service)
    return [
        Router(
            path="/",
            include_in_schema=False,
            exception_handlers={
                OAuthError: _oauth_failure,
                StoreUnavailableError: _store_failure,
                Exception: _unexpected,
            },
            route_handlers=[
                get("/.well-known/oauth-authorization-server", name="oauth-metadata")(server.metadata),
                get("/.well-known/jwks.json", name="oauth-jwks")(server.jwks),
                post("/oauth/device_authorization", name="oauth-device-authorization")(
                    server.device_authorization
                ),
                get("/oauth/authorize", name="oauth-authorize-page")(authorize.page),
                post("/oauth/authorize", name="oauth-authorize-form")(authorize.form),
                get("/oauth/device", name="oauth-device-page")(server.device_page),
                post("/oauth/device", name="oauth-device-form")(server.device_form),
                get("/oauth/invitation", name="oauth-invitation-page")(server.invitation_page),
                post("/oauth/invitation", name="oauth-invitation-form")(server.invitation_form),
                post("/oauth/token", name="oauth-token")(server.token),
                post("/oauth/revoke", name="oauth-revoke")(server.revoke),
            ],
        )
    ]


class AuthorizationServer:
    """The handlers: read the form, ask the service, write the answer."""

    def __init__(self, service: OAuthService) -> None:
        self._service = service

    def __deepcopy__(self, memo: dict[int, Any]) -> AuthorizationServer:
        # Litestar copies its handlers, and with a bound method what it is bound to: there is one server, not nine.
        return self

    async def metadata(self) -> Response[bytes]:
        return _json(self._service.metadata(), headers=PUBLISHED)

    async def jwks(self) -> Response[bytes]:
        text = self._service.jwks_json().encode()
        return Response(text, media_type="application/jwk-set+json", headers=PUBLISHED)

    async def device_authorization(self, request: HttpRequest) -> Response[bytes]:
        refuse_client_authentication(request)
        form = await read_form(request)
        return _json(await self._service.device_authorization(form, caller_of(request)))

    async def token(self, request: HttpRequest) -> Response[bytes]:
        refuse_client_authentication(request)
        return _json(await self._service.token(await read_form(request), caller_of(request)))

    async def revoke(self, request: HttpRequest) -> Response[bytes]:
        refuse_client_authentication(request)
        await self._service.revoke(await read_form(request), caller_of(request))
        return Response(b"", status_code=200, media_type=JSON, headers=NO_STORE)

    async def device_page(self, request: HttpRequest) -> Response[str]:
        return _page(request, pages.device_page, _query(request))

    async def invitation_page(self, request: HttpRequest) -> Response[str]:
        return _page(request, pages.invitation_page, _query(request))

    async def device_form(self, request: HttpRequest) -> Response[Any]:
        return await _submit(request, pages.device_page, self._device)

    async def _device(self, form: Mapping[str, str], caller: Caller) -> str | DeviceAsked:
        if form.get("action", "") == "ask":
            return await self._service.ask_device(form, caller)
        return await self._service.decide_device(form, caller)

    async def invitation_form(self, request: HttpRequest) -> Response[Any]:
        return await _submit(request, pages.invitation_page, self._service.accept_invitation)


_DONE: Final = {
    "approved": ("The device is signed in", "You can close this page and go back to it."),
    "denied": ("The sign-in was refused", "The device was told so. You can close this page."),
    "accepted": ("Your password is set", "You can close this page and sign in from your device."),
}


async def _submit(
    request: HttpRequest, page: Page, act: Callable[[Mapping[str, str], Caller], Awaitable[str | DeviceAsked]]
) -> Response[Any]:
    """Take a page's form. A program that asks for JSON gets `{"status": …}` or an OAuth error; it decides at once,
    for it has nobody to ask."""
    wants_json = JSON in request.headers.get("accept", "")
    form: Mapping[str, str] = {}
    try:
        form = await read_form(request)
        csrf.check(request, form)
        status = await act(form, caller_of(request))
    except (OAuthError, StoreUnavailableError) as error:
        if wants_json:
            raise
        return _page(request, page, form, translated(error))
    if isinstance(status, DeviceAsked):
        if wants_json:
            return _json({"status": "asked", "client": status.client.id, "ticket": status.ticket})
        text = pages.confirm_page(form[csrf.FIELD], form["user_code"], status)
        return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=200)
    if wants_json:
        return _json({"status": status})
    return Response(pages.done_page(*_DONE[status]), media_type=HTML, headers=dict(pages.HEADERS), status_code=200)


def _page(
    request: HttpRequest, page: Page, form: Mapping[str, str], error: OAuthError | None = None
) -> Response[str]:
    token = csrf.token_for(request)
    headers = {**pages.HEADERS, "set-cookie": csrf.cookie(token), **_retry_after(error)}
    text = page(token, form, error.description if error else "")
    return Response(text, media_type=HTML, headers=headers, status_code=error.status if error else 200)


def _query(request: HttpRequest) -> Mapping[str, str]:
    """What a link to the page fills in. A malformed one fills in nothing: the page is there all the same."""
    try:
        return parse_form(request.scope["query_string"])
    except InvalidRequestError:
        return {}


def _json(value: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON, headers=dict(headers))


def _retry_after(error: OAuthError | None) -> dict[str, str]:
    return {"retry-after": str(error.retry_after_s)} if error and error.retry_after_s is not None else {}


def _oauth_failure(_: HttpRequest, error: OAuthError) -> Response[bytes]:
    headers = {**NO_STORE, **_retry_after(error)}
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="orgate"'  # RFC 6749 section 5.2 wants one on a 401
    return _json({"error": error.code, "error_description": error.description}, error.status, headers)


def _store_failure(request: HttpRequest, error: StoreUnavailableError) -> Response[bytes]:
    return _oauth_failure(request, translated(error))


def _unexpected(request: HttpRequest, error: Exception) -> Response[bytes]:
    """The last resort. The log has where it was and no values: they may be passwords and codes."""
    caller = caller_of(request)
    log.error("request %s to %s failed: %s", caller.request_id, request.url.path, bare(error))
    text = "the authorization server failed; its log has this request's id"
    return _json({"error": "server_error", "error_description": text}, 500)
