"""The audit log in a browser: one page an organization, read-only, and the sign-in that leads to it.

Who may see it is decided where the admin API decides: `web_session.BySession` makes of a cookie the bearer token
that `caller.guard` judges, and what the page's script fetches are the API's own handlers.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from litestar import Request, Response, Router, get, post
from litestar.datastructures import Cookie

from gateway.api.admin import audit
from gateway.api.admin.caller import PUBLIC, Caller, CallerDependency
from gateway.api.admin.problems import NOT_FOUND, ProblemError, handle
from gateway.api.admin.routing import operation
from gateway.api.admin.web_find import Timeline, find, read_filter, timeline
from gateway.api.admin.web_pages import ASSETS, HEADERS, VERIFIER, asset, audit_page, link, notice, sign_out_form
from gateway.api.admin.web_session import (
    ENDED,
    HOME,
    SESSION,
    SIGN_IN,
    BySession,
    caller_of,
    form_token,
    gone,
    is_own_form,
    own_place,
    session_cookie,
    session_name,
    sessions,
    sign_in_cookie,
    signing_in,
)
from gateway.api.oauth.forms import parse_form, read_form
from gateway.errors import UnavailableError
from gateway.oauth.errors import InvalidRequestError, OAuthError, TemporarilyUnavailableError
from tenants.roles import Operation

HttpRequest = Request[Any, Any, Any]

HTML: Final = "text/html"
_FILES: Final = {
    **{name: (kind, asset(name)) for name, kind in ASSETS.items()},
    **{f"verifier/{name}": ("text/javascript", asset(f"verifier/{name}")) for name in VERIFIER},
}


# -- signing in and out -----------------------------------------------------------------------------------


@get("/sign-in", opt={PUBLIC: True})
async def sign_in(request: HttpRequest) -> Response[Any]:
    """Begin: to the authorization server, with what tells this browser from others when it comes back."""
    secret, url = sessions(request).begin()
    return _go(url, sign_in_cookie(secret, own_place(request.query_params.get("to", HOME))))


@get("/sign-in/callback", opt={PUBLIC: True})
async def signed_in(request: HttpRequest) -> Response[Any]:
    """The redirect URI. The session gets a name that nobody knew before, whatever cookie came along."""
    secret, to = signing_in(request)
    web, caller = sessions(request), caller_of(request)
    try:
        name = await web.finish(secret, parse_form(request.scope["query_string"]), caller)
    except TemporarilyUnavailableError as error:
        text = "The sign-in cannot be finished now; try again."
        raise UnavailableError(text, retry_after_s=error.retry_after_s or 2) from None
    except OAuthError as error:
        again = link(f"/sign-in?to={quote(to, safe='')}", "Sign in")
        text = error.description[0].upper() + error.description[1:] + "."
        return _answer(notice("Not signed in", text, action=again, wrong=True), 403, gone(SIGN_IN))
    await web.end(session_name(request), caller)
    return _go(to, session_cookie(name), gone(SIGN_IN))


@post("/sign-out", opt={PUBLIC: True})
async def sign_out(request: HttpRequest) -> Response[Any]:
    """End the session here and its refresh family, if the form is from one of its pages."""
    try:
        form = await read_form(request)
    except InvalidRequestError:
        form = {}
    if not is_own_form(request, form.get("token", "")):
        raise ProblemError(403, "cross-site", "This page is no longer valid; load it again.")
    await sessions(request).end(session_name(request), caller_of(request))
    return _go("/signed-out", gone(SESSION))


@get("/signed-out", opt={PUBLIC: True})
async def signed_out() -> Response[str]:
    return _answer(notice("You are signed out", "You can close this page.", action=link(HOME, "Sign in again")))


# -- the page ---------------------------------------------------------------------------------------------


@get("/audit", **operation(Operation.ME_READ, "webHome"))
async def home(caller: CallerDependency) -> Response[Any]:
    """To the log of the caller's own organization."""
    return _go(f"/orgs/{caller.org}/audit")


@get("/", **operation(Operation.AUDIT_READ, "webAudit"))
async def page(caller: CallerDependency, request: HttpRequest) -> Response[str]:
    wanted = read_filter(dict(request.query_params.multi_items()))
    text = audit_page(
        org=caller.org,
        who=_who(caller),
        token=form_token(session_name(request)),
        wanted=wanted,
        found=await find(caller.deps.audit, caller.org, wanted),
    )
    return _answer(text, 422 if wanted.faults else 200)


@get("/timeline", **operation(Operation.AUDIT_READ, "webTimeline"))
async def bars(caller: CallerDependency, request: HttpRequest) -> Timeline:
    return await timeline(caller.deps.audit, caller.org, read_filter(dict(request.query_params.multi_items())))


def _who(caller: Caller) -> str:
    there = "" if caller.own_org else f" of {caller.principal.org}"
    return f"{caller.member.email}{there}"


# -- files, and what goes wrong ---------------------------------------------------------------------------


@get(["/web/{name:str}", "/web/verifier/{name:str}"], opt={PUBLIC: True})
async def file(request: HttpRequest) -> Response[bytes]:
    """Style and scripts: the same for everybody."""
    found = _FILES.get(request.url.path.removeprefix("/web/"))
    if found is None:
        raise ProblemError(404, "not-found", NOT_FOUND)
    kind, data = found
    return Response(data, media_type=kind, headers=dict(HEADERS))


_TITLES: Final = {
    401: "Sign in",
    403: "Not allowed",
    404: "Nothing here",
    429: "Too often",
    503: "Not now",
}


def failure(request: HttpRequest, error: Exception) -> Response[str]:
    """Every exception as a page. What is said, and with which status, is the admin API's table."""
    said = handle(request, error)
    status, text = said.status_code or 500, said.content.detail
    headers = {name: value for name, value in said.headers.items() if name.lower() in {"retry-after", "allow"}}
    name, action = session_name(request), ""
    cookies: list[Cookie] = []
    if status == 401:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        action = link(f"/sign-in?to={quote(own_place(here), safe='')}", "Sign in")
        cookies = [gone(SESSION)] if text == ENDED else []
    elif name and request.url.path != "/sign-out":
        action = sign_out_form(form_token(name))
    title = _TITLES.get(status, "Something went wrong")
    return _answer(notice(title, text, action=action, wrong=True), status, *cookies, **headers)


def _answer(text: str, status: int = 200, *cookies: Cookie, **more: str) -> Response[str]:
    return Response(text, media_type=HTML, status_code=status, headers={**HEADERS, **more}, cookies=cookies)


def _go(url: str, *cookies: Cookie) -> Response[Any]:
    """303: a form that was sent is not sent again to where it goes."""
    headers = {**HEADERS, "location": url}
    return Response(b"", media_type=HTML, status_code=303, headers=headers, cookies=cookies)


def routers() -> list[Router]:
    """Everything a browser asks of the admin listener. None of it is in the API's document."""
    pages: dict[str, Any] = {"include_in_schema": False, "exception_handlers": {Exception: failure}}
    return [
        Router("/", route_handlers=[sign_in, signed_in, sign_out, signed_out, file], **pages),
        Router("/", route_handlers=[home], middleware=[BySession()], **pages),
        Router("/orgs/{org:str}/audit", route_handlers=[page], middleware=[BySession()], **pages),
        Router(
            "/orgs/{org:str}/audit",
            route_handlers=[bars, audit.checkpoint, audit.key, audit.log],
            middleware=[BySession(data=True)],
            include_in_schema=False,
        ),
    ]
