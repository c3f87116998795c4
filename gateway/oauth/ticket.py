"""Between the steps of a sign-in: who it is so far, kept by the page under the server's key.

Nothing is stored for somebody who has not come to the end. A ticket says what its bearer has shown, is worth
something in one browser, for one thing and at one step, and is no secret from that browser.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import DecodeError, Struct, json, structs

from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import InvalidGrantError
from tenants.ids import MemberId, OrgId

TICKET_S: Final = 300.0
_TAG: Final = 32


class Stage(StrEnum):
    """The step that a ticket leads to."""

    FACTOR = "factor"
    ENROL = "enrol"
    CONSENT = "consent"


class Ticket(Struct, frozen=True, array_like=True):
    """`about`: what the page is about. `browser`: a secret of the browser's. `until`: Unix seconds. `amr` and
    `auth_time`: see `signin.SignedIn`. `extra`: what this server made for the step, a challenge say.
    `password`: which one it was (`Accounts.mark`): a ticket ends with it."""

    org: OrgId
    member: MemberId
    stage: Stage
    about: str
    browser: str
    amr: tuple[str, ...] = ()
    auth_time: int = 0
    extra: str = ""
    password: str = ""
    until: float = 0


class Tickets:
    """Tickets of five minutes that are worth something in one browser and for one thing. `clock`: Unix seconds."""

    def __init__(self, key: ServerKey, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock

    def issue(self, ticket: Ticket) -> str:
        """The ticket as a page keeps it. One that has an end keeps it: trying again does not take longer."""
        if not ticket.until:
            ticket = structs.replace(ticket, until=self._clock() + TICKET_S)
        body = json.encode(ticket)
        return urlsafe_b64encode(self._tag(body) + body).rstrip(b"=").decode()

    def read(self, text: str, stage: Stage, about: str, browser: str) -> Ticket:
        """Who came how far. Raises `InvalidGrantError` for any other ticket, and for one that is too old."""
        stale = InvalidGrantError("this page is too old; sign in again")
        try:
            raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (Base64Error, ValueError):
            raise stale from None
        tag, body = raw[:_TAG], raw[_TAG:]
        if not hmac.compare_digest(tag, self._tag(body)):
            raise stale
        try:
            found = json.decode(body, type=Ticket)
        except DecodeError:  # an earlier version's
            raise stale from None
        right = hmac.compare_digest(found.browser.encode(), browser.encode()) and found.about == about
        if not browser or not right or found.stage is not stage or self._clock() >= found.until:
            raise stale
        return found

    def _tag(self, body: bytes) -> bytes:
        return self._key.mac(b"page ticket", body)
