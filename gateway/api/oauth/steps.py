"""A sign-in in a browser, step by step: who are you, a second factor where one is due, and what do you say.

Each step is a form that posts to where the page is, with a ticket for what was shown before
(`gateway.oauth.ticket`) and the browser's own token against other sites (`csrf`). Nothing is kept here between two
steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from litestar import Response
from msgspec import Struct

from gateway.api.oauth import csrf, factor_pages, pages
from gateway.api.oauth.factor_pages import Sent
from gateway.api.oauth.failures import translated
from gateway.api.oauth.forms import HttpRequest, caller_of
from gateway.oauth.caller import Caller
from gateway.oauth.errors import (
    InvalidRequestError,
    OAuthError,
    SecondFactorRefusedError,
    TooManyAttemptsError,
)
from gateway.oauth.factors import Due
from gateway.oauth.service import OAuthService
from gateway.oauth.signin import EnrolStep, FactorStep, SignedIn
from gateway.oauth.ticket import Stage
from tenants.store import StoreUnavailableError

HTML: Final = "text/html"  # Litestar adds the charset
TICKET: Final = "ticket"


class Asked(Struct, frozen=True):
    """What the last page says: who asks for what, and what the buttons are called."""

    client: str
    what: str
    title: str
    yes: str
    more: str = ""


class SignInPage(Protocol):
    """What somebody signs in for. Made anew for each request, from what its forms carry: `resume.resumed`."""

    @property
    def service(self) -> OAuthService: ...

    @property
    def path(self) -> str:
        """Where its forms post to."""

    @property
    def about(self) -> str:
        """What a ticket of it is about: one of another request, or another device's, is worth nothing here."""

    @property
    def hidden(self) -> Mapping[str, str]:
        """What every form of it carries, so that it can be made anew."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Origins that the last form may lead to, beside our own."""

    def first(self, token: str, form: Mapping[str, str], error: str) -> str:
        """The page of the first step, with what was typed before."""

    async def ask(self, who: SignedIn) -> Asked | None:
        """What `who` is asked; None: nothing. Raises `OAuthError`."""

    async def decide(self, who: SignedIn, caller: Caller, *, approve: bool) -> Response[Any]:
        """What comes of the answer. Raises `OAuthError`."""


SingleSignOn = Callable[[HttpRequest, SignInPage, Mapping[str, str]], Awaitable[Response[Any]]]
"""`action=sso` of the first step: sends the browser to the organization's identity provider. Whoever comes back
goes on with `proceed`."""

Detour = Callable[[HttpRequest, SignInPage, Mapping[str, str]], Awaitable[Response[Any] | None]]
"""The same at once, where the page's address names an organization without passwords; None: stay. Of pages alone
that ask for a yes after it: who follows somebody else's link sees there whose account it is."""


async def take(
    request: HttpRequest, page: SignInPage, form: Mapping[str, str], sso: SingleSignOn | None = None
) -> Response[Any]:
    """A form of `page`, checked against other sites. What is wrong is said on the first page again.

    A program decides in one step, with a password where others have a ticket: it has nobody to ask.
    """
    caller = caller_of(request)
    action = form.get("action", "")
    try:
        csrf.check(request, form)
        if action == "sso" and sso is not None:
            return await sso(request, page, form)
        if action == "ask":
            return await proceed(request, page, form, await page.service.signin.password(form, caller))
        if action in {"factor", "enrol", "continue"}:
            return await _go_on(request, page, form, caller)
        if action in {"approve", "deny"}:
            return await page.decide(await _who(page, form, caller), caller, approve=action == "approve")
        raise InvalidRequestError("action is not one of this page's")
    except (OAuthError, StoreUnavailableError) as error:
        return begin(request, page, form, translated(error))


async def proceed(request: HttpRequest, page: SignInPage, form: Mapping[str, str], who: SignedIn) -> Response[Any]:
    """The step that comes next for `who`. Raises `OAuthError`."""
    signin, token = page.service.signin, csrf.token_for(request)
    due = await signin.due(who)
    if due is Due.FACTOR:
        return _factor(page, token, await signin.factor_step(who, page.about, token))
    if due is Due.ENROL:
        return _enrol(page, token, await signin.enrol_step(who, page.about, token))
    asked = await page.ask(who)
    if asked is None:
        return await page.decide(who, caller_of(request), approve=True)
    ticket = await signin.ticket(who, Stage.CONSENT, page.about, token)
    text = pages.consent_page(
        token,
        {**page.hidden, TICKET: ticket},
        path=page.path,
        title=asked.title,
        client=asked.client,
        who=(who.member.email, who.member.org),
        what=asked.what,
        more=asked.more,
        yes=asked.yes,
    )
    return shown(text, token, page)


def begin(
    request: HttpRequest, page: SignInPage, form: Mapping[str, str], error: OAuthError | None = None
) -> Response[Any]:
    """The first step, and what was wrong."""
    token = csrf.token_for(request)
    return shown(page.first(token, form, error.description if error else ""), token, page, error)


def shown(
    text: str, token: str, page: SignInPage, error: OAuthError | None = None, *, script: str = ""
) -> Response[Any]:
    """`text` as a page of the sign-in. `script`: see `pages.headers`."""
    # Chromium holds a form's redirect against form-action too: the client's address has to be in it.
    headers = {**pages.headers(*page.targets, script=script), "set-cookie": csrf.cookie(token)}
    if error is not None and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return Response(text, media_type=HTML, headers=headers, status_code=error.status if error else 200)


async def _go_on(request: HttpRequest, page: SignInPage, form: Mapping[str, str], caller: Caller) -> Response[Any]:
    """A form of the steps between. A mistake is said on the same page, with a new challenge. Raises
    `OAuthError`."""
    signin, ticket, token = page.service.signin, form.get(TICKET, ""), form[csrf.FIELD]
    mistakes = SecondFactorRefusedError, TooManyAttemptsError, InvalidRequestError
    if form["action"] == "continue":
        who, _ = await signin.resume(ticket, Stage.CONSENT, page.about, token)
        return await proceed(request, page, form, who)
    if form["action"] == "factor":
        try:
            who = await signin.factor(form, ticket, page.about, token, caller)
        except mistakes as error:
            return _factor(page, token, await signin.factor_again(ticket, page.about, token), error)
        return await proceed(request, page, form, who)
    try:
        who, enrolled = await signin.enrol(form, ticket, page.about, token, caller)
    except mistakes as error:
        return _enrol(page, token, await signin.enrol_again(ticket, page.about, token), error)
    sent = _sent(page, token, await signin.ticket(who, Stage.CONSENT, page.about, token))
    return shown(factor_pages.codes_page(sent, enrolled.codes), token, page)


def _sent(page: SignInPage, token: str, ticket: str) -> Sent:
    return Sent(token, page.path, {**page.hidden, TICKET: ticket})


def _factor(page: SignInPage, token: str, step: FactorStep, error: OAuthError | None = None) -> Response[Any]:
    said = error.description if error else ""
    text = factor_pages.factor_page(_sent(page, token, step.ticket), step.who.member, step.challenge, said)
    return shown(text, token, page, error, script=factor_pages.SCRIPT_HASH if step.challenge.options else "")


def _enrol(page: SignInPage, token: str, step: EnrolStep, error: OAuthError | None = None) -> Response[Any]:
    text = factor_pages.enrol_page(
        _sent(page, token, step.ticket),
        step.offer,
        title="Add a second factor",
        why=factor_pages.DEMANDED,
        action="enrol",
        error=error.description if error else "",
    )
    return shown(text, token, page, error, script=factor_pages.SCRIPT_HASH if step.offer.options else "")


async def _who(page: SignInPage, form: Mapping[str, str], caller: Caller) -> SignedIn:
    if TICKET not in form:
        return await page.service.signin.at_once(form, caller)
    return await page.service.signin.consented(form[TICKET], page.about, form[csrf.FIELD])
