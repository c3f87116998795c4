"""The web pages' cookies, and what makes of one the bearer token that `caller.guard` judges: one way in for all.

Cookies have the prefix `__Host-` (RFC 6265bis section 4.1.3.2): no sub-domain and no plain HTTP can plant one.
Ports do not tell cookies apart, so the admin listener wants a host name that no other program answers to.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.problems import ProblemError
from gateway.api.admin.requestid import request_id
from gateway.errors import GatewayError, UnauthenticatedError, UnavailableError
from gateway.oauth.caller import Caller
from gateway.oauth.errors import OAuthError
from gateway.oauth.web import NoSessionError, WebSessions

Connection = ASGIConnection[Any, Any, Any, Any]

SESSION: Final = "__Host-orgate_session"
SIGN_IN: Final = "__Host-orgate_signin"
SIGN_IN_S: Final = 600
"""A person finds their password within ten minutes, or begins again."""

ABSENT: Final = "You are not signed in."
ENDED: Final = "Your session has ended."

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{43}")


# Lax and not Strict: who follows a link from a ticket to an entry is signed in there, too, and who comes back from
# the sign-in comes from another site. What changes something asks for a token of the form besides.
def _cookie(name: str, value: str, max_age: int | None = None) -> Cookie:
    return Cookie(name, value=value, max_age=max_age, secure=True, httponly=True, samesite="lax")


class BySession(ASGIMiddleware):
    """Beneath it a request is who its session says, and nobody by any other credential.

    `data`: what scripts of our own pages fetch, and no page of another site may even cause.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(self, *, data: bool = False) -> None:
        self._data = data

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        connection: Connection = ASGIConnection(scope)
        if self._data and not _same_origin(connection):
            raise ProblemError(403, "cross-site", "Only this server's own pages may ask for this.")
        token = await _token(connection)
        others = [item for item in scope["headers"] if item[0] != b"authorization"]
        scope["headers"] = [*others, (b"authorization", f"Bearer {token}".encode())]
        await next_app(scope, receive, send)


async def _token(connection: Connection) -> str:
    deps: AdminDependencies = connection.app.state.dependencies
    host = next(_fields(connection, b"host"), "")

    def good(token: str) -> bool:
        try:
            deps.verifier.authenticate(b"Bearer " + token.encode(), host, deps.streams.snapshot)
        except UnauthenticatedError:
            return False
        except GatewayError:  # suspended, or not to be judged now: the guard says so
            return True
        return True

    try:
        return await sessions(connection).token(session_name(connection), good, caller_of(connection))
    except NoSessionError as error:
        raise UnauthenticatedError(ENDED if error.ended else ABSENT) from None
    except OAuthError as error:
        text = "Your session cannot be renewed now; try again."
        raise UnavailableError(text, retry_after_s=error.retry_after_s or 2) from None


def sessions(connection: Connection) -> WebSessions:
    """Those of this server. Raises 404 where it has none."""
    found: WebSessions | None = connection.app.state.dependencies.web
    if found is None:
        raise ProblemError(404, "not-found", "There are no pages here.")
    return found


def caller_of(connection: Connection) -> Caller:
    """Whom the authorization server hears from."""
    address = connection.client.host if connection.client else ""
    return Caller(address=address, request_id=request_id(connection.scope))


def _fields(connection: Connection, name: bytes) -> Iterator[str]:
    """The header's values. Not by `connection.headers`: Litestar keeps those, and the middleware changes them."""
    return (value.decode("latin-1") for field, value in connection.scope["headers"] if field == name)


def _held(connection: Connection, name: str) -> str:
    """A cookie's value, '' for none. Over HTTP/2 a browser sends each in a field of its own (RFC 9113 section
    8.2.3), of which Litestar reads one."""
    pairs = (item.strip().partition("=") for line in _fields(connection, b"cookie") for item in line.split(";"))
    return next((value for found, _, value in pairs if found == name), "")


def session_name(connection: Connection) -> str:
    """What the browser says its session is; '' for none."""
    held = _held(connection, SESSION)
    return held if _NAME.fullmatch(held) else ""


def form_token(session: str) -> str:
    """What a form of this session carries, and no other site can know: made from the session's name, which is in a
    cookie that no script reads."""
    return hmac.new(session.encode(), b"form", "sha256").hexdigest()


def is_own_form(connection: Connection, given: str) -> bool:
    """Whether a form was sent from a page of this session (`given`: its token)."""
    held = session_name(connection)
    return (
        bool(held) and hmac.compare_digest(form_token(held).encode(), given.encode()) and _same_origin(connection)
    )


def _same_origin(connection: Connection) -> bool:
    """Whether the browser says so (W3C Fetch Metadata); one that is too old to say it is believed."""
    return next(_fields(connection, b"sec-fetch-site"), "same-origin") == "same-origin"


def session_cookie(name: str) -> Cookie:
    """It ends with the browser's own session, or when the server says so."""
    return _cookie(SESSION, name)


def sign_in_cookie(secret: str, to: str) -> Cookie:
    """Keeps a sign-in's secret, and where the person wanted to go."""
    place = urlsafe_b64encode(to.encode()).rstrip(b"=").decode()
    return _cookie(SIGN_IN, f"{secret}.{place}", SIGN_IN_S)


def signing_in(connection: Connection) -> tuple[str, str]:
    """(secret, where to) as the cookie has them; ('', '/audit') when there is none."""
    secret, _, place = _held(connection, SIGN_IN).partition(".")
    if not _NAME.fullmatch(secret):
        return "", HOME
    try:
        to = urlsafe_b64decode(place + "=" * (-len(place) % 4)).decode("ascii")
    except ValueError:  # not base64, or not ASCII
        to = HOME
    return secret, own_place(to)


def gone(cookie: str) -> Cookie:
    """Takes a cookie away."""
    return _cookie(cookie, "", 0)


HOME: Final = "/audit"
_PLACE: Final = re.compile(r"/audit|/orgs/[a-z0-9-]{1,40}/audit(?:\?[A-Za-z0-9%=&._~:+-]{0,1500})?")


def own_place(to: str) -> str:
    """`to` if it is one of our own pages, else where they begin: no open redirect (RFC 9700 section 4.11)."""
    return to if _PLACE.fullmatch(to) else HOME
