"""`/oauth/authorize`: the pages of RFC 6749 section 4.1 and what becomes of their forms.

Two kinds of no: what concerns the client or its redirect URI is shown here and goes nowhere, for the address may
be an attacker's; everything else goes back to the client. A person's own mistake stays on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Response

from gateway.api.oauth import csrf, pages
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, parse_form, read_form
from gateway.api.oauth.steps import HTML, Asked, Detour, SingleSignOn, begin, take
from gateway.oauth.authorization import PARAMETERS, AuthorizationRequest, Return, refusal
from gateway.oauth.caller import Caller
from gateway.oauth.clients import UNKNOWN
from gateway.oauth.digests import sha256
from gateway.oauth.errors import AccessDeniedError, InvalidClientError, OAuthError
from gateway.oauth.service import OAuthService
from gateway.oauth.signin import SignedIn
from tenants.store import StoreUnavailableError


class AuthorizePage:
    """One authorization request as `steps.SignInPage`."""

    path = "/oauth/authorize"

    def __init__(self, service: OAuthService, asked: AuthorizationRequest, form: Mapping[str, str]) -> None:
        self.service = service
        self._asked = asked
        self.hidden: Mapping[str, str] = {name: form[name] for name in PARAMETERS if name in form}

    @property
    def about(self) -> str:
        return sha256("\0".join(("authorize", *(self.hidden.get(name, "") for name in PARAMETERS))))

    @property
    def targets(self) -> tuple[str, ...]:
        return (self._asked.back.origin,)

    def first(self, token: str, form: Mapping[str, str], error: str) -> str:
        return pages.authorize_page(token, form, self.hidden, client=self._asked.back.client, error=error)

    async def ask(self, who: SignedIn) -> Asked | None:
        client = self._asked.back.client
        if not client.lets_in(who.member.org):
            return None  # `decide` says so
        return Asked(pages.capital(client.name), pages.may(client), "Sign in", "Allow")

    async def decide(self, who: SignedIn, caller: Caller, *, approve: bool) -> Response[Any]:
        if not self._asked.back.client.lets_in(who.member.org):
            return _dead_end(InvalidClientError(UNKNOWN))  # another organization's: as unknown as one that is none
        return go(await self.service.authorize_for(who, self._asked)) if approve else self.refused()

    def refused(self) -> Response[Any]:
        """Said to the client, and not written down: nobody has signed in."""
        issuer = self.service.config.issuer
        return go(refusal(self._asked.back, issuer, AccessDeniedError("the sign-in was refused")))


class Authorize:
    """The two handlers. Every answer is a page or a redirect: nobody but a browser comes here."""

    def __init__(
        self, service: OAuthService, sso: SingleSignOn | None = None, detour: Detour | None = None
    ) -> None:
        self._service = service
        self._sso = sso
        self._detour = detour

    def __deepcopy__(self, memo: dict[int, Any]) -> Authorize:
        return self  # Litestar copies its handlers and what they are bound to

    async def page(self, request: HttpRequest) -> Response[Any]:
        try:
            form = await self._service.par.take(parse_form(request.scope["query_string"]))
            back = await self._service.authorization(form)
        except (OAuthError, StoreUnavailableError) as error:
            return _dead_end(translated(error))
        page = authorize_page(self._service, back, form)
        if isinstance(page, Response):
            return page
        away = await self._detour(request, page, form) if self._detour is not None else None
        return away or begin(request, page, form)

    async def form(self, request: HttpRequest) -> Response[Any]:
        try:
            form = await read_form(request)
            back = await self._service.authorization(form)
        except (OAuthError, StoreUnavailableError) as error:
            return _dead_end(translated(error))
        page = authorize_page(self._service, back, form)
        if isinstance(page, Response):
            return page
        if form.get("action") != "deny":
            return await take(request, page, form, self._sso)
        try:
            csrf.check(request, form)
        except (OAuthError, StoreUnavailableError) as error:
            return begin(request, page, form, translated(error))
        return page.refused()  # whoever it is: no is no without a password


def authorize_page(service: OAuthService, back: Return, form: Mapping[str, str]) -> AuthorizePage | Response[Any]:
    """The page of an authorization request, or the answer to a client that asks for what it may not."""
    try:
        return AuthorizePage(service, service.authorization_request(back, form), form)
    except OAuthError as error:
        return go(refusal(back, service.config.issuer, error))


def _dead_end(error: OAuthError) -> Response[Any]:
    text = pages.failure_page("This sign-in cannot go on", error.description)
    status = error.status if error.status in (413, 503) else 400
    return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=status)


def go(url: str) -> Response[Any]:
    """303, so that no browser sends the form, password and all, again to where it goes (RFC 9700 section 4.12)."""
    headers = {"location": url, "cache-control": "no-store", "referrer-policy": "no-referrer"}
    return Response(b"", media_type=HTML, headers=headers, status_code=303)
