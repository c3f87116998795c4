"""`/oauth/device`: the verification page of RFC 8628 section 3.3.

A program that asks for JSON gets `{"status": …}` or an OAuth error; it decides at once, for it has nobody to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Response

from gateway.api.oauth import csrf, pages
from gateway.api.oauth.answers import json_answer, wants_json
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, query_of, read_form
from gateway.api.oauth.steps import HTML, TICKET, Asked, SingleSignOn, begin, take
from gateway.oauth.caller import Caller
from gateway.oauth.errors import InvalidRequestError, OAuthError
from gateway.oauth.service import OAuthService
from gateway.oauth.signin import SignedIn
from gateway.oauth.ticket import Stage
from tenants.store import StoreUnavailableError

_DONE = {
    "approved": ("The device is signed in", "You can close this page and go back to it."),
    "denied": ("The sign-in was refused", "The device was told so. You can close this page."),
}


class DevicePage:
    """One user code as `steps.SignInPage`."""

    path = "/oauth/device"
    targets: tuple[str, ...] = ()

    def __init__(self, service: OAuthService, form: Mapping[str, str]) -> None:
        self.service = service
        self._code = form.get("user_code", "")
        self.hidden: Mapping[str, str] = {"user_code": self._code}

    @property
    def about(self) -> str:
        return self.service.device_digest(self._code)

    def first(self, token: str, form: Mapping[str, str], error: str) -> str:
        return pages.device_page(token, form, error)

    async def ask(self, who: SignedIn) -> Asked:
        client = await self.service.ask_device(self._code, who)
        return Asked(
            pages.capital(client.name), pages.may(client), "Sign in a device", "Sign in the device", self._code
        )

    async def decide(self, who: SignedIn, caller: Caller, *, approve: bool) -> Response[Any]:
        status = await self.service.decide_device_for(who, self._code, caller, approve=approve)
        text = pages.done_page(*_DONE[status])
        return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=200)


class Device:
    """The two handlers."""

    def __init__(self, service: OAuthService, sso: SingleSignOn | None = None) -> None:
        self._service = service
        self._sso = sso

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        return self  # Litestar copies its handlers and what they are bound to

    async def page(self, request: HttpRequest) -> Response[Any]:
        form = query_of(request)
        return begin(request, DevicePage(self._service, form), form)

    async def form(self, request: HttpRequest) -> Response[Any]:
        if wants_json(request):
            form = await read_form(request)
            csrf.check(request, form)
            return await self._decide(form, caller_of(request))
        form = {}
        try:
            form = await read_form(request)
            if not form.get("user_code"):
                raise InvalidRequestError("user_code is missing")
        except (OAuthError, StoreUnavailableError) as error:
            return begin(request, DevicePage(self._service, form), form, translated(error))
        return await take(request, DevicePage(self._service, form), form, self._sso)

    async def _decide(self, form: Mapping[str, str], caller: Caller) -> Response[Any]:
        """For a program. Raises `OAuthError`: `insufficient_user_authentication` where a second factor is due."""
        signin, browser = self._service.signin, form[csrf.FIELD]
        about = self._service.device_digest(form.get("user_code", ""))
        if form.get("action") == "ask":
            who = await signin.at_once(form, caller)
            client = await self._service.ask_device(form.get("user_code", ""), who)
            ticket = await signin.ticket(who, Stage.CONSENT, about, browser)
            return json_answer({"status": "asked", "client": client.id, "ticket": ticket})
        if TICKET not in form:
            return json_answer({"status": await self._service.decide_device(form, caller)})
        who = await signin.consented(form[TICKET], about, browser)
        approve = form.get("action") == "approve"
        status = await self._service.decide_device_for(who, form.get("user_code", ""), caller, approve=approve)
        return json_answer({"status": status})
