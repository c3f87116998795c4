"""Sessions as people see them: a refresh family, which one sign-in began, without anything that could be used."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from msgspec import Struct

from tenants.ids import MemberId, OrgId
from tenants.revocations import revoke_tokens
from tenants.store import Actor, ControlStore, InvalidQueryError, NotFoundError

_ID: Final = re.compile(r"[0-9a-f]{32}")


class LoginSession(Struct, frozen=True):
    """One session that lives. `client`: the program that signed in; where it did is kept nowhere. `last_used`:
    when it last got a token. `amr`: how its member signed in, RFC 8176's words, '' where that is not known. Times
    are Unix seconds."""

    id: str
    org: OrgId
    member: MemberId
    client: str
    created_at: int
    last_used: int
    expires_at: int
    amr: str = ""


class SessionStore(Protocol):
    """The part of the OAuth store that sessions are read from. Durable when a call returns; each is harmless when
    repeated. Errors: `tenants.store.StoreUnavailableError`."""

    async def page(
        self, org: OrgId, now: float, *, member: str = "", after: str = "", limit: int = 100
    ) -> tuple[tuple[LoginSession, ...], str]:
        """Those that live at `now`, of one `member` or of all, by id; and the id to go on after, '' at the end."""

    async def find(self, org: OrgId, session: str, now: float) -> LoginSession | None:
        """The session `session`, if it is of `org` and lives."""

    async def end_org(self, org: OrgId, now: float) -> int:
        """End every family of `org`, how many; void its invitations, its codes that were not redeemed and its
        approved devices. One transaction."""


class LoginSessions:
    """Sessions of one organization at a time, to be looked at and ended. `clock` gives Unix seconds."""

    def __init__(
        self,
        sessions: SessionStore,
        end: Callable[[str, float], Awaitable[bool]],
        control: ControlStore,
        clock: Callable[[], float],
    ) -> None:
        """`end`: ends the family of that id, False when it has ended (`OAuthStore.end_family`)."""
        self._sessions = sessions
        self._end = end
        self._control = control
        self._clock = clock

    async def page(
        self, org: OrgId, *, member: str = "", after: str = "", limit: int = 100
    ) -> tuple[tuple[LoginSession, ...], str]:
        """As `SessionStore.page`. Raises `InvalidQueryError` for an `after` that no page has named."""
        if after and not _ID.fullmatch(after):
            raise InvalidQueryError("after", "is no cursor")
        return await self._sessions.page(org, self._clock(), member=member, after=after, limit=limit)

    async def find(self, org: OrgId, session: str) -> LoginSession:
        """Raises `NotFoundError`, the same whether it has ended, is another organization's or never was."""
        known = _ID.fullmatch(session) is not None
        found = await self._sessions.find(org, session, self._clock()) if known else None
        if found is None:
            raise NotFoundError(f"no session '{session}'")
        return found

    async def end(self, session: LoginSession, by: Actor) -> None:
        """End it: its refresh token is refused from now on. An access token does not say which session it is of,
        so that those of its member are all taken back; programs of other sessions renew theirs and go on.

        A crash between the two leaves an access token that lives for its quarter of an hour.
        """
        await self._end(session.id, self._clock())
        store = self._control.for_org(session.org)
        await store.note("session.revoke", session.member, by, {"session": session.id, "client": session.client})
        await store.revoke(revoke_tokens(session.org, self._clock(), member=session.member), by)

    async def end_org(self, org: OrgId) -> int:
        """As `SessionStore.end_org`."""
        return await self._sessions.end_org(org, self._clock())
