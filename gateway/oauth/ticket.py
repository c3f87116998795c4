"""Between signing in at the device page and saying yes: who it was, kept by the page under the server's key."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Final

from msgspec import DecodeError, Struct, json

from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import InvalidGrantError
from tenants.ids import MemberId, OrgId
from tenants.models import Member

TICKET_S: Final = 300.0
_TAG: Final = 32


class Ticket(Struct, frozen=True, array_like=True):
    """`about`: what the page is about. `browser`: a secret of the browser's. `until`: Unix seconds."""

    org: OrgId
    member: MemberId
    about: str
    browser: str
    until: float


class Tickets:
    """Tickets of five minutes that are worth something in one browser and for one thing. `clock`: Unix seconds."""

    def __init__(self, key: ServerKey, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock

    def issue(self, member: Member, about: str, browser: str) -> str:
        body = json.encode(Ticket(member.org, member.id, about, browser, self._clock() + TICKET_S))
        return urlsafe_b64encode(self._tag(body) + body).rstrip(b"=").decode()

    def who(self, ticket: str, about: str, browser: str) -> tuple[OrgId, MemberId]:
        """Who signed in. Raises `InvalidGrantError` for any other ticket, and for one that is too old."""
        stale = InvalidGrantError("this page is too old; sign in again")
        try:
            raw = urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
        except (Base64Error, ValueError):
            raise stale from None
        tag, body = raw[:_TAG], raw[_TAG:]
        if not hmac.compare_digest(tag, self._tag(body)):
            raise stale
        try:
            found = json.decode(body, type=Ticket)
        except DecodeError:
            raise stale from None
        right = hmac.compare_digest(found.browser.encode(), browser.encode()) and found.about == about
        if not browser or not right or self._clock() >= found.until:
            raise stale
        return found.org, found.member

    def _tag(self, body: bytes) -> bytes:
        return self._key.mac(b"page ticket", body)
