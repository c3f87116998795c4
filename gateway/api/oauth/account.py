"""`/oauth/account`: a member's own factors, recovery codes, password and sessions.

Signing in there takes the same steps as everywhere. What is changed is posted to `/oauth/account/change`; what
changes how somebody signs in wants a sign-in of the last few minutes: a browser that was left open must not become
somebody else's for good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from litestar import Response

from gateway.api.oauth import account_pages, csrf, factor_pages, pages
from gateway.api.oauth.account_pages import Shown
from gateway.api.oauth.factor_pages import Sent
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, query_of, read_form
from gateway.api.oauth.steps import HTML, TICKET, Asked, SingleSignOn, begin, take
from gateway.oauth.account import Visit
from gateway.oauth.caller import Caller
from gateway.oauth.clients import BUILT_IN
from gateway.oauth.digests import sha256
from gateway.oauth.errors import InvalidRequestError, OAuthError, SecondFactorRefusedError
from gateway.oauth.factors import Offer
from gateway.oauth.service import OAuthService
from gateway.oauth.signin import SignedIn
from gateway.oauth.ticket import Stage
from tenants.store import StoreUnavailableError

PATH: Final = "/oauth/account"
CHANGE: Final = "/oauth/account/change"
COOKIE: Final = "__Host-orgate_account"
_VALUE: Final = re.compile(r"ogr_[A-Za-z0-9_-]{86}")
_AGAIN: Final = "sign in again to change this: it wants a sign-in of the last five minutes"


class AccountPage:
    """Signing in at the account page, as `steps.SignInPage`. Nobody asks for anything there."""

    path = PATH
    about = sha256("account")
    targets: tuple[str, ...] = ()
    hidden: Mapping[str, str] = {}

    def __init__(self, service: OAuthService) -> None:
        self.service = service

    def first(self, token: str, form: Mapping[str, str], error: str) -> str:
        return account_pages.sign_in_page(token, PATH, form, error)

    async def ask(self, who: SignedIn) -> Asked | None:
        return None

    async def decide(self, who: SignedIn, caller: Caller, *, approve: bool) -> Response[Any]:
        return _home(await self.service.account.begin(who, caller))


class Account:
    """The handlers."""

    def __init__(self, service: OAuthService, sso: SingleSignOn | None = None) -> None:
        self._service = service
        self._sso = sso

    def __deepcopy__(self, memo: dict[int, Any]) -> Account:
        return self  # Litestar copies its handlers and what they are bound to

    async def page(self, request: HttpRequest) -> Response[Any]:
        """What is shown. An address names an organization to fill it in, and leads nowhere by itself: nothing is
        asked after a sign-in here, so that a link to somebody else's provider would sign them in, in this
        browser."""
        form = query_of(request)
        try:
            visit = await self._service.account.visit(_held(request))
            if visit is not None:
                return await self._shown(request, visit)
        except StoreUnavailableError as error:
            return begin(request, AccountPage(self._service), form, translated(error))
        return begin(request, AccountPage(self._service), form)

    async def form(self, request: HttpRequest) -> Response[Any]:
        """The steps of the sign-in. A session of before ends with the new one: a browser has one."""
        page, form = AccountPage(self._service), {}
        try:
            form = await read_form(request)
        except OAuthError as error:
            return begin(request, page, form, error)
        answer = await take(request, page, form, self._sso)
        if answer.headers.get("location") == PATH and _held(request):
            await self._service.account.end(_held(request), caller_of(request))
        return answer

    async def change(self, request: HttpRequest) -> Response[Any]:
        form: Mapping[str, str] = {}
        visit = None
        try:
            form = await read_form(request)
            csrf.check(request, form)
            visit = await self._service.account.visit(_held(request))
            if visit is None:
                raise InvalidRequestError("your session has ended; sign in again")
            return await self._change(request, visit, form)
        except (OAuthError, StoreUnavailableError) as error:
            if visit is None or isinstance(error, StoreUnavailableError):
                return begin(request, AccountPage(self._service), {}, translated(error))
            return await self._shown(request, visit, error=error)

    async def _change(self, request: HttpRequest, visit: Visit, form: Mapping[str, str]) -> Response[Any]:
        account, factors, caller = self._service.account, self._service.factors, caller_of(request)
        action, who = form.get("action", ""), visit.who
        if action == "continue":
            return _home()
        if action == "sign_out":
            await account.end(_held(request), caller)
            return _home("")
        if action == "end":
            await account.end_session(who, form.get("session", ""), caller)
            return await self._shown(request, visit, "The session has ended.")
        if action == "password":
            token = await account.change_password(who, form, caller)
            return _home(token)
        if not visit.fresh:
            known = {"org": who.member.org, "email": who.member.email}
            return begin(request, AccountPage(self._service), known, InvalidRequestError(_AGAIN))
        match action:
            case "add":
                return await self._offer(request, visit, await factors.offer(who.member))
            case "added":
                return await self._added(request, visit, form)
            case "remove":
                await factors.remove(who.member, form.get("factor", ""), caller)
                return await self._shown(request, visit, "The factor is removed.")
            case "codes":
                codes = await factors.renew_codes(who.member, caller)
                token = csrf.token_for(request)
                return _answer(token, factor_pages.codes_page(Sent(token, CHANGE, {}), codes))
        raise InvalidRequestError("action is not one of this page's")

    async def _added(self, request: HttpRequest, visit: Visit, form: Mapping[str, str]) -> Response[Any]:
        signin, factors, token = self._service.signin, self._service.factors, csrf.token_for(request)
        who, ticket = await signin.resume(form.get(TICKET, ""), Stage.ENROL, _about(visit), token)
        try:
            enrolled = await factors.enrol(who.member, form, ticket.extra, caller_of(request))
        except SecondFactorRefusedError as error:
            return await self._offer(request, visit, await factors.offer(who.member, ticket.extra), error)
        if enrolled.codes:
            return _answer(token, factor_pages.codes_page(Sent(token, CHANGE, {}), enrolled.codes))
        return await self._shown(request, visit, "The factor is added.")

    async def _offer(
        self, request: HttpRequest, visit: Visit, offer: Offer, error: OAuthError | None = None
    ) -> Response[Any]:
        token = csrf.token_for(request)
        ticket = await self._service.signin.ticket(visit.who, Stage.ENROL, _about(visit), token, offer.extra)
        text = factor_pages.enrol_page(
            Sent(token, CHANGE, {TICKET: ticket}),
            offer,
            title="Add a second factor",
            why=factor_pages.ANOTHER,
            action="added",
            back=PATH,
            error=error.description if error else "",
        )
        script = factor_pages.SCRIPT_HASH if offer.options else ""
        return _answer(token, text, error, script=script)

    async def _shown(
        self, request: HttpRequest, visit: Visit, said: str = "", error: OAuthError | None = None
    ) -> Response[Any]:
        account, factors, member = self._service.account, self._service.factors, visit.who.member
        sessions = await account.sessions(visit.who)
        clients = {client.id: client.name for client in BUILT_IN.values()}
        for one in sessions:
            if one.client not in clients and (found := await self._service.registry.find(one.client)) is not None:
                clients[one.client] = found.name
        shown = Shown(
            visit,
            await factors.of(member.org, member.id),
            await factors.codes_left(member.org, member.id),
            sessions,
            clients,
            await account.has_password(visit.who),
        )
        token = csrf.token_for(request)
        text = account_pages.account_page(
            token, CHANGE, shown, said=said, error=error.description if error else ""
        )
        return _answer(token, text, error)


def _about(visit: Visit) -> str:
    """What the ticket of an offer is about: nothing but this session."""
    return sha256(f"account\0{visit.session}")


def _held(request: HttpRequest) -> str:
    """The session that the browser's cookie names; '' for none."""
    held = request.cookies.get(COOKIE, "")
    return held if _VALUE.fullmatch(held) else ""


def _answer(token: str, text: str, error: OAuthError | None = None, *, script: str = "") -> Response[Any]:
    headers = {**pages.headers(script=script), "set-cookie": csrf.cookie(token)}
    if error is not None and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return Response(text, media_type=HTML, headers=headers, status_code=error.status if error else 200)


def _home(session: str | None = None) -> Response[Any]:
    """To the page, by GET. `session`: the cookie's new value, '' to take it away, None to leave it."""
    headers = {"location": PATH, "cache-control": "no-store"}
    if session is not None:
        # Lax and not Strict: who comes back from their identity provider comes from another site. What changes
        # something is a POST, with a token of the form besides.
        end = "" if session else "; Max-Age=0"
        headers["set-cookie"] = f"{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Lax{end}"
    return Response(b"", media_type=HTML, headers=headers, status_code=303)
