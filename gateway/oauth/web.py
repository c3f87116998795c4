"""Sessions of the pages on the admin listener: a backend for the frontend.

The browser holds the name of a session and never a token: those stay in this process, which asks its own
authorization server. Sessions are in memory. A restart ends them; what it leaves are refresh families whose tokens
nobody has.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode

from gateway.oauth.caller import Caller
from gateway.oauth.clients import WEB, Plane
from gateway.oauth.errors import AccessDeniedError, InvalidGrantError, InvalidRequestError
from gateway.oauth.service import OAuthService

NAME_BYTES: Final = 32
MAX_SESSIONS: Final = 10_000
MAX_OF_A_MEMBER: Final = 20
EARLY_S: Final = 30.0
"""An access token is renewed so long before its end: a request takes its time."""


class NoSessionError(Exception):
    """There is no such session, or it has ended. `ended`: there was one a moment ago."""

    def __init__(self, *, ended: bool = False) -> None:
        super().__init__("the session has ended" if ended else "there is no session")
        self.ended = ended


@dataclass(slots=True)
class _Session:
    """`member` is organization and id. Times in Unix seconds."""

    member: tuple[str, str]
    began: float
    seen: float
    access: str
    access_until: float
    refresh: str = field(repr=False)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


class WebSessions:
    """Sessions of people who signed in with a browser; one loop's.

    A session ends when it was not used for `idle_s`, `session_s` after it began, when its refresh family ends
    (signed out everywhere, offboarded, suspended), and when the server stops. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        service: OAuthService,
        *,
        clock: Callable[[], float],
        idle_s: float,
        session_s: float,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._service = service
        self._clock = clock
        self._idle_s = idle_s
        self._session_s = session_s
        self._random = random
        self._sessions: dict[str, _Session] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> WebSessions:
        return self

    @property
    def redirect_uri(self) -> str:
        return self._service.config.admin_url + WEB.redirect_uris[0]

    def begin(self) -> tuple[str, str]:
        """A secret for the browser to keep until it comes back, and where to send it now (RFC 6749 section 4.1.1).

        State and verifier are made from the secret, so that nothing is kept here for strangers.
        """
        secret = self._name()
        challenge = urlsafe_b64encode(sha256(_verifier(secret).encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": WEB.id,
            "redirect_uri": self.redirect_uri,
            "resource": self._service.audience(Plane.ADMIN),
            "state": _state(secret),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return secret, f"{self._service.config.base}/oauth/authorize?{urlencode(asked)}"

    async def finish(self, secret: str, answer: Mapping[str, str], caller: Caller) -> str:
        """The name of a new session, for what the browser brought back from the sign-in that `secret` began.

        Raises `OAuthError`: not begun in this browser (somebody else's sign-in must not become this person's
        session), refused, or too late.
        """
        if not secret or not hmac.compare_digest(answer.get("state", "").encode(), _state(secret).encode()):
            raise InvalidRequestError("this sign-in was not begun in this browser, or too long ago; begin again")
        if answer.get("iss", "") != self._service.config.issuer:  # RFC 9207 section 2.4
            raise InvalidRequestError("the answer is not from this gateway's authorization server")
        if "error" in answer:
            raise AccessDeniedError("the sign-in was refused; nothing was opened")
        form = {
            "grant_type": "authorization_code",
            "code": answer.get("code", ""),
            "redirect_uri": self.redirect_uri,
            "code_verifier": _verifier(secret),
        }
        tokens = await self._service.token(form, caller, WEB)
        claims = self._service.signing.own_claims(tokens["access_token"]) or {}
        now = self._clock()
        made = _Session(
            member=(str(claims.get("org", "")), str(claims.get("sub", ""))),
            began=now,
            seen=now,
            access=tokens["access_token"],
            access_until=now + tokens["expires_in"],
            refresh=tokens["refresh_token"],
        )
        await self._make_room(made.member, caller)
        name = self._name()
        self._sessions[_digest(name)] = made
        return name

    async def token(self, name: str, good: Callable[[str], bool], caller: Caller) -> str:
        """The access token of the session `name`, renewed when it is about to end or not `good` any more: it is
        not after a role was taken away, though the member may be let in with those that are left.

        Raises `NoSessionError`; `OAuthError` and `StoreUnavailableError` when it cannot be renewed now.
        """
        key = _digest(name)
        session = self._sessions.get(key)
        if session is None:
            raise NoSessionError
        now = self._clock()
        if self._over(session, now) or not await self._service.lives(session.refresh):
            await self._drop(key, caller)
            raise NoSessionError(ended=True)
        session.seen = now
        async with session.turn:  # two requests of one page: one renews
            if session.access_until - now <= EARLY_S or not good(session.access):
                await self._renew(key, session, caller)
        return session.access

    async def end(self, name: str, caller: Caller) -> None:
        """Sign out: forget the session and end its refresh family. Harmless when there is none."""
        await self._drop(_digest(name), caller)

    def forget(self, org: str, member: str = "") -> int:
        """Forget the sessions of `org`, or of one member; how many there were. Their families end elsewhere."""
        theirs = [
            key
            for key, one in self._sessions.items()
            if one.member[0] == org and (not member or one.member[1] == member)
        ]
        for key in theirs:
            del self._sessions[key]
        return len(theirs)

    async def _renew(self, key: str, session: _Session, caller: Caller) -> None:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": session.refresh,
            "resource": self._service.audience(Plane.ADMIN),
        }
        try:
            tokens = await self._service.token(form, caller, WEB)
        except InvalidGrantError:  # suspended, or ended while we looked
            self._sessions.pop(key, None)
            raise NoSessionError(ended=True) from None
        session.refresh = tokens["refresh_token"]
        session.access = tokens["access_token"]
        session.access_until = self._clock() + tokens["expires_in"]

    def _over(self, session: _Session, now: float) -> bool:
        return now - session.seen >= self._idle_s or now - session.began >= self._session_s

    async def _make_room(self, member: tuple[str, str], caller: Caller) -> None:
        """End what is over, and the oldest of too many: nobody fills this memory by signing in."""
        now = self._clock()
        for key in [key for key, one in self._sessions.items() if self._over(one, now)]:
            await self._drop(key, caller)
        theirs = [key for key, one in self._sessions.items() if one.member == member]
        every = list(self._sessions)
        for key in (*_beyond(theirs, MAX_OF_A_MEMBER), *_beyond(every, MAX_SESSIONS)):
            await self._drop(key, caller)

    async def _drop(self, key: str, caller: Caller) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            await self._service.revoke({"token": session.refresh}, caller, WEB)

    def _name(self) -> str:
        return urlsafe_b64encode(self._random(NAME_BYTES)).rstrip(b"=").decode()


def _beyond(keys: list[str], most: int) -> list[str]:
    """Those that have to go for one more to make `most`."""
    return keys[: max(len(keys) - most + 1, 0)]


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _state(secret: str) -> str:
    return urlsafe_b64encode(hmac.digest(secret.encode(), b"state", "sha256")).rstrip(b"=").decode()


def _verifier(secret: str) -> str:
    return urlsafe_b64encode(hmac.digest(secret.encode(), b"verifier", "sha256")).rstrip(b"=").decode()
