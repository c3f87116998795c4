"""Pushed authorization requests, RFC 9126: what a client asks comes from the client, and not through the browser.

A `request_uri` is good for a minute, once, and for the client it was given to. What it stands for goes on through
the sign-in pages with a mark under the server's key, so that a page may take longer than that minute, and nobody
can change what was pushed. The mark ends after an hour.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import json

from gateway.oauth.authorization import PARAMETERS, PUSHED, AuthorizationCodes
from gateway.oauth.caller import Caller
from gateway.oauth.clients import Client
from gateway.oauth.digests import ServerKey, sha256
from gateway.oauth.errors import InvalidRequestError, InvalidRequestUriError, TemporarilyUnavailableError
from gateway.oauth.requests import ClientRequests, Pushed
from gateway.oauth.throttle import Throttles

PREFIX: Final = "urn:ietf:params:oauth:request_uri:"
EXPIRES_S: Final = 60
MAX_WAITING: Final = 1_000
"""Of one client that authenticates, at once."""

MAX_WAITING_PUBLIC: Final = 10_000
PUBLIC_FROM_AN_ADDRESS: Final = 100
"""Of one public client at once, and what one address pushes for it while a request waits: anybody may push in the
name of such a client, and it takes 50 to 100 addresses to fill it."""

PUSHES_FROM_AN_ADDRESS: Final = 2_000
PERIOD_S: Final = 600.0
PAGES_S: Final = 3_600
"""How long the pages may take, single sign-on and a second factor among them: what was pushed is old then."""

STALE: Final = "request_uri is unknown, was used, or has expired"
_ASKED: Final = tuple(name for name in PARAMETERS if name != PUSHED)


class PushedRequests:
    """`clock` gives Unix seconds."""

    def __init__(
        self,
        store: ClientRequests,
        codes: AuthorizationCodes,
        *,
        key: ServerKey,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
    ) -> None:
        self._store = store
        self._codes = codes
        self._key = key
        self._clock = clock
        self._random = random
        self._pushes = throttle("pushed-requests", PUSHES_FROM_AN_ADDRESS, PERIOD_S)
        self._public = throttle("pushed-for-public", PUBLIC_FROM_AN_ADDRESS, EXPIRES_S)

    async def push(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, str | int]:
        """The endpoint (section 2). `client` has authenticated. Raises what the authorization endpoint would send
        back, `TooManyAttemptsError`, `TemporarilyUnavailableError`."""
        await self._pushes.check(caller.address)
        await self._pushes.charge(caller.address)
        if "request_uri" in form:
            raise InvalidRequestError("request_uri is what this endpoint gives, and takes none")
        asked = {name: form[name] for name in _ASKED if name in form} | {"client_id": client.id}
        # A request that could only be refused later is refused now, where nobody has to look at a page for it.
        self._codes.checked(await self._codes.back(asked), form)
        uri = PREFIX + urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()
        now = self._clock()
        request = Pushed(sha256(uri), client.id, asked, now + EXPIRES_S)
        if not client.confidential:
            await self._public.check(f"{client.id} {caller.address}")
            await self._public.charge(f"{client.id} {caller.address}")
        if not await self._store.push(request, now, MAX_WAITING if client.confidential else MAX_WAITING_PUBLIC):
            raise TemporarilyUnavailableError("too many of this client's requests wait", retry_after_s=EXPIRES_S)
        return {"request_uri": uri, "expires_in": EXPIRES_S}

    async def take(self, form: Mapping[str, str]) -> Mapping[str, str]:
        """The authorization request that a query stands for: with a `request_uri` what was pushed, whatever else
        the query says but for `client_id` (section 4), else the query itself. Raises `InvalidRequestUriError`,
        which concerns the person: who would be told is not known yet."""
        uri = form.get("request_uri", "")
        if not uri:
            return form
        found = None
        if uri.startswith(PREFIX):
            found = await self._store.take(sha256(uri), form.get("client_id", ""), self._clock())
        if found is None:
            raise InvalidRequestUriError(STALE)
        return {**found.form, PUSHED: self._mark(found.form, str(int(self._clock()) + PAGES_S))}

    def judge(self, form: Mapping[str, str], client: Client) -> None:
        """Whether a form that comes back from a page is what was pushed, to the letter. Raises
        `InvalidRequestError` when it is not, or was too long ago, and when nothing was pushed though `client` has
        to."""
        if PUSHED not in form:
            if client.require_par:
                raise InvalidRequestError("this client pushes its authorization requests (RFC 9126)")
            return
        until = form[PUSHED].partition(".")[0]
        if not hmac.compare_digest(form[PUSHED].encode(), self._mark(form, until).encode()):
            raise InvalidRequestError("this is not the request that was pushed")
        if self._clock() >= int(until):
            raise InvalidRequestError("this request was pushed too long ago; begin again")

    def _mark(self, form: Mapping[str, str], until: str) -> str:
        """`until`: Unix seconds."""
        asked = json.encode([until, *(form.get(name, "") for name in _ASKED)])
        return f"{until}.{urlsafe_b64encode(self._key.mac(b'pushed request', asked)).rstrip(b'=').decode()}"
