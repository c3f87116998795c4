"""Forms are accepted only from our own page: double submit with a cookie that no other site can set or read.

The `__Host-` prefix (RFC 6265bis section 4.1.3.2) keeps sub-domains and plain HTTP from planting one.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Final

from gateway.api.oauth.forms import HttpRequest
from gateway.oauth.errors import InvalidRequestError

COOKIE: Final = "__Host-orgate_csrf"
FIELD: Final = "csrf_token"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class CrossSiteError(InvalidRequestError):
    """The form did not come from our page, or the page is from another day of the browser's life."""

    status = 403


def token_for(request: HttpRequest) -> str:
    """The browser's token, or a new one: two tabs share it."""
    held = request.cookies.get(COOKIE, "")
    return held if _TOKEN.fullmatch(held) else secrets.token_urlsafe(32)


def cookie(token: str) -> str:
    """The `Set-Cookie` value."""
    return f"{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict"


def check(request: HttpRequest, form: Mapping[str, str]) -> None:
    """Raises `CrossSiteError`."""
    held, sent = request.cookies.get(COOKIE, ""), form.get(FIELD, "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    same = hmac.compare_digest(held.encode(), sent.encode())
    if not (_TOKEN.fullmatch(held) and same and site in {"same-origin", "none"}):
        raise CrossSiteError("this page is no longer valid; load it again")
