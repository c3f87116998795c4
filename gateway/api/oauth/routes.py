"""The authorization server over HTTP. Served by the control process; workers relay these paths to it.

A failure is answered as RFC 6749 section 5.2 says, in JSON; a person at a page sees it on the page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from litestar import Response, Router, get, post
from litestar.types import ControllerRouterHandler

from gateway.api.failure import bare
from gateway.api.oauth import csrf, pages
from gateway.api.oauth.account import CHANGE, Account
from gateway.api.oauth.account import PATH as ACCOUNT
from gateway.api.oauth.answers import JSON, NO_STORE, json_answer, wants_json, with_nonce
from gateway.api.oauth.authorize import Authorize
from gateway.api.oauth.client import authenticated
from gateway.api.oauth.device import Device
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, query_of, read_form
from gateway.api.oauth.introspect import introspect_route
from gateway.api.oauth.par import par_route
from gateway.api.oauth.sso import Sso
from gateway.oauth.errors import OAuthError, UseDpopNonceError
from gateway.oauth.service import OAuthService
from tenants.store import StoreUnavailableError

log = logging.getLogger("orgate.oauth")

HTML: Final = "text/html"  # Litestar adds the charset
PUBLISHED: Final = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}


def oauth_routes(service: OAuthService) -> list[ControllerRouterHandler]:
    """Everything under `/oauth` and `/.well-known`, for the composition root."""
    sso = Sso(service, service.sso) if service.sso is not None else None
    leave, detour = (sso.leave, sso.detour) if sso is not None else (None, None)
    server = AuthorizationServer(service)
    authorize, device = Authorize(service, leave, detour), Device(service, leave)
    account = Account(service, leave)
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
                *([get("/oauth/sso/callback/{org:str}", name="oauth-sso-callback")(sso.callback)] if sso else []),
                get("/oauth/device", name="oauth-device-page")(device.page),
                post("/oauth/device", name="oauth-device-form")(device.form),
                get(ACCOUNT, name="oauth-account-page")(account.page),
                post(ACCOUNT, name="oauth-account-form")(account.form),
                post(CHANGE, name="oauth-account-change")(account.change),
                get("/oauth/invitation", name="oauth-invitation-page")(server.invitation_page),
                post("/oauth/invitation", name="oauth-invitation-form")(server.invitation_form),
                par_route(service),
                introspect_route(service),
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
        return json_answer(self._service.metadata(), headers=PUBLISHED)

    async def jwks(self) -> Response[bytes]:
        text = self._service.jwks_json().encode()
        return Response(text, media_type="application/jwk-set+json", headers=PUBLISHED)

    async def device_authorization(self, request: HttpRequest) -> Response[bytes]:
        form, client = await authenticated(self._service, request)
        return json_answer(await self._service.device_authorization(form, caller_of(request), client))

    async def token(self, request: HttpRequest) -> Response[bytes]:
        form, client = await authenticated(self._service, request)
        caller = caller_of(request)
        answer = json_answer(await self._service.token(form, caller, client))
        return with_nonce(answer, self._service, caller)

    async def revoke(self, request: HttpRequest) -> Response[bytes]:
        form, client = await authenticated(self._service, request)
        await self._service.revoke(form, caller_of(request), client)
        return Response(b"", status_code=200, media_type=JSON, headers=NO_STORE)

    async def invitation_page(self, request: HttpRequest) -> Response[str]:
        return _invitation(request, query_of(request))

    async def invitation_form(self, request: HttpRequest) -> Response[Any]:
        """A program that asks for JSON gets `{"status": …}` or an OAuth error."""
        form: Mapping[str, str] = {}
        try:
            form = await read_form(request)
            csrf.check(request, form)
            status = await self._service.accept_invitation(form, caller_of(request))
        except (OAuthError, StoreUnavailableError) as error:
            if wants_json(request):
                raise
            return _invitation(request, form, translated(error))
        if wants_json(request):
            return json_answer({"status": status})
        text = pages.done_page("Your password is set", "You can close this page and sign in from your device.")
        return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=200)


def _invitation(request: HttpRequest, form: Mapping[str, str], error: OAuthError | None = None) -> Response[str]:
    token = csrf.token_for(request)
    headers = {**pages.HEADERS, "set-cookie": csrf.cookie(token), **_retry_after(error)}
    text = pages.invitation_page(token, form, error.description if error else "")
    return Response(text, media_type=HTML, headers=headers, status_code=error.status if error else 200)


def _retry_after(error: OAuthError | None) -> dict[str, str]:
    return {"retry-after": str(error.retry_after_s)} if error and error.retry_after_s is not None else {}


def _oauth_failure(_: HttpRequest, error: OAuthError) -> Response[bytes]:
    headers = {**NO_STORE, **_retry_after(error)}
    if isinstance(error, UseDpopNonceError):
        headers["dpop-nonce"] = error.nonce
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="orgate"'  # RFC 6749 section 5.2 wants one on a 401
    return json_answer({"error": error.code, "error_description": error.description}, error.status, headers)


def _store_failure(request: HttpRequest, error: StoreUnavailableError) -> Response[bytes]:
    return _oauth_failure(request, translated(error))


def _unexpected(request: HttpRequest, error: Exception) -> Response[bytes]:
    """The last resort. The log has where it was and no values: they may be passwords and codes."""
    caller = caller_of(request)
    log.error("request %s to %s failed: %s", caller.request_id, request.url.path, bare(error))
    text = "the authorization server failed; its log has this request's id"
    return json_answer({"error": "server_error", "error_description": text}, 500)
