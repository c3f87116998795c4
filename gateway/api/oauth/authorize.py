"""`/oauth/authorize`: the page of RFC 6749 section 4.1 and what becomes of its form.

Two kinds of no: what concerns the client or its redirect URI is shown here and goes nowhere, for the address may
be an attacker's; everything else goes back to the client. A person's own mistake stays on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response

from gateway.api.oauth import csrf, pages
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, parse_form, read_form
from gateway.oauth.authorization import PARAMETERS, AuthorizationRequest, Return, refusal
from gateway.oauth.errors import OAuthError
from gateway.oauth.service import OAuthService
from tenants.store import StoreUnavailableError

HTML: Final = "text/html"


class Authorize:
    """The two handlers. Every answer is a page or a redirect: nobody but a browser comes here."""

    def __init__(self, service: OAuthService) -> None:
        self._service = service

    def __deepcopy__(self, memo: dict[int, Any]) -> Authorize:
        return self  # Litestar copies its handlers and what they are bound to

    async def page(self, request: HttpRequest) -> Response[Any]:
        try:
            form = parse_form(request.scope["query_string"])
            back = self._service.authorization(form)
        except OAuthError as error:
            return _dead_end(error)
        asked = self._checked(back, form)
        return asked if isinstance(asked, Response) else _page(request, asked, form)

    async def form(self, request: HttpRequest) -> Response[Any]:
        try:
            form = await read_form(request)
            back = self._service.authorization(form)
        except OAuthError as error:
            return _dead_end(error)
        asked = self._checked(back, form)
        if isinstance(asked, Response):
            return asked
        try:
            csrf.check(request, form)
            return _go(await self._service.authorize(asked, form, caller_of(request)))
        except (OAuthError, StoreUnavailableError) as error:
            return _page(request, asked, form, translated(error))

    def _checked(self, back: Return, form: Mapping[str, str]) -> AuthorizationRequest | Response[Any]:
        try:
            return self._service.authorization_request(back, form)
        except OAuthError as error:
            return _go(refusal(back, self._service.config.issuer, error))


def _page(
    request: HttpRequest, asked: AuthorizationRequest, form: Mapping[str, str], error: OAuthError | None = None
) -> Response[Any]:
    token = csrf.token_for(request)
    hidden = {name: form[name] for name in PARAMETERS if name in form}
    text = pages.authorize_page(
        token,
        form,
        hidden,
        client=asked.back.client,
        error=error.description if error else "",
    )
    # Chromium holds a form's redirect against form-action too: the client's address has to be in it.
    headers = {**pages.headers(asked.back.origin), "set-cookie": csrf.cookie(token)}
    if error is not None and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    status = 200 if error is None else error.status
    return Response(text, media_type=HTML, headers=headers, status_code=status)


def _dead_end(error: OAuthError) -> Response[Any]:
    text = pages.failure_page("This sign-in cannot go on", error.description)
    status = error.status if error.status in (413, 503) else 400
    return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=status)


def _go(url: str) -> Response[Any]:
    """303, so that no browser sends the form, password and all, again to where it goes (RFC 9700 section 4.12)."""
    headers = {"location": url, "cache-control": "no-store", "referrer-policy": "no-referrer"}
    return Response(b"", media_type=HTML, headers=headers, status_code=303)
