"""Single sign-on in a browser: away to the organization's provider, and back to the page it was for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from litestar import Response
from litestar.params import FromPath

from gateway.api.oauth import pages
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of, parse_form
from gateway.api.oauth.resume import resumed
from gateway.api.oauth.steps import HTML, SignInPage, begin, proceed
from gateway.oauth.errors import InvalidRequestError, OAuthError
from gateway.oauth.service import OAuthService
from gateway.oauth.sso import COOKIE, FLOW_S, Begun, SingleSignOn
from tenants.store import StoreUnavailableError

MAX_UNDER_WAY = 4
"""Sign-ins that one browser may have begun and not ended: each is a cookie of up to 4 KiB for ten minutes."""


_NAME = re.compile(re.escape(COOKIE) + r"[A-Za-z0-9_-]{8}")


class Sso:
    """`steps.SingleSignOn`, what an address may lead to at once, and the redirect URI."""

    def __init__(self, service: OAuthService, sso: SingleSignOn) -> None:
        self._service = service
        self._sso = sso

    def __deepcopy__(self, memo: dict[int, Any]) -> Sso:
        return self  # Litestar copies its handlers and what they are bound to

    async def leave(self, request: HttpRequest, page: SignInPage, form: Mapping[str, str]) -> Response[Any]:
        """The form's button. Raises `OAuthError`.

        A page, and no redirect: browsers hold those of a form against the page's own policy, which was written
        before anybody knew where this organization's provider is.
        """
        begun = await self._begin(request, page, form, form.get("email", ""))
        shown = escape(begun.host)
        body = (
            f'<h1>Single sign-on</h1>\n<p role="status">You go on to {shown}, where your organization signs in.'
            f'</p>\n<p><a href="{escape(begun.url)}">Go on to {shown}</a></p>'
        )
        headers = {**pages.HEADERS, "refresh": f"0; url={begun.url}"}  # goes on by itself, without a script
        text = pages.layout("Single sign-on", body)
        return _with_cookie(request, Response(text, media_type=HTML, headers=headers, status_code=200), begun)

    async def detour(
        self, request: HttpRequest, page: SignInPage, form: Mapping[str, str]
    ) -> Response[Any] | None:
        """Where the page's address names an organization that has no passwords: away at once. None: stay."""
        try:
            if not form.get("org") or not await self._sso.only(form["org"]):
                return None
            begun = await self._begin(request, page, form, form.get("login_hint", ""))
        except (OAuthError, StoreUnavailableError) as error:
            return begin(request, page, form, translated(error))
        headers = {"location": begun.url, "cache-control": "no-store", "referrer-policy": "no-referrer"}
        return _with_cookie(request, Response(b"", media_type=HTML, headers=headers, status_code=303), begun)

    async def callback(self, request: HttpRequest, org: FromPath[str]) -> Response[Any]:
        """The browser comes back: on with the page that it left, or the first step of it with what was wrong."""
        try:
            query = parse_form(request.scope["query_string"])
            flow = self._sso.flow(query, request.cookies)
            page = await resumed(self._service, flow.path, flow.hidden)
        except (OAuthError, StoreUnavailableError) as error:
            said = translated(error)
            text = pages.failure_page("This sign-in cannot go on", said.description)
            status = said.status if said.status == 503 else 400
            return Response(text, media_type=HTML, headers=dict(pages.HEADERS), status_code=status)
        try:
            who = await self._sso.finish(flow, org, query, caller_of(request))
            answer = await proceed(request, page, {}, who)
        except (OAuthError, StoreUnavailableError) as error:
            answer = begin(request, page, {**page.hidden, "org": flow.org}, translated(error))
        _drop(answer, COOKIE + flow.state[:8])
        return answer

    async def _begin(self, request: HttpRequest, page: SignInPage, form: Mapping[str, str], hint: str) -> Begun:
        org = form.get("org", "")
        if not org:
            raise InvalidRequestError("type your organization, and choose single sign-on again")
        return await self._sso.begin(org, page.path, page.hidden, hint, caller_of(request))


def _with_cookie(request: HttpRequest, answer: Response[Any], begun: Begun) -> Response[Any]:
    others = [name for name in request.cookies if _NAME.fullmatch(name)]
    for name in others[: max(len(others) - MAX_UNDER_WAY + 1, 0)]:
        _drop(answer, name)
    # Lax: the browser comes back from another site. Host-only and secure by the name's prefix, as `csrf` says.
    answer.set_cookie(
        key=begun.cookie,
        value=begun.value,
        max_age=int(FLOW_S),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return answer


def _drop(answer: Response[Any], name: str) -> None:
    answer.set_cookie(key=name, value="", max_age=0, path="/", secure=True, httponly=True, samesite="lax")
