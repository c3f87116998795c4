"""A member's own account: the session of its page, their password, and the sessions they may end.

The page's session is a refresh family like any other, with a client of its own that no program may speak for: it
is listed and ended with the others, and ends with them. Its token is the page's cookie and never rotates, for
nobody redeems it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from gateway.oauth.accounts import Accounts
from gateway.oauth.caller import Caller
from gateway.oauth.clients import ACCOUNT
from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import InvalidGrantError, InvalidRequestError
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.sessions import LoginSession, LoginSessions
from gateway.oauth.signin import SignedIn, SignIn, joined, parted
from gateway.oauth.store import OAuthStore
from tenants.revocations import revoke_tokens
from tenants.store import Actor, ControlStore, NotFoundError

SESSION_S: Final = 1_800
FRESH_S: Final = 300
"""How long ago somebody may have signed in who changes how they sign in."""

MAX_SHOWN: Final = 100


class Visit(Struct, frozen=True):
    """Somebody signed in at the account page. `session`: its id; `fresh`: a moment ago."""

    who: SignedIn
    session: str
    fresh: bool


class OwnAccount:
    """`clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        store: OAuthStore,
        control: ControlStore,
        accounts: Accounts,
        signin: SignIn,
        sessions: LoginSessions,
        key: ServerKey,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._control = control
        self._accounts = accounts
        self._signin = signin
        self._sessions = sessions
        self._clock = clock
        self._tokens = RefreshTokens(
            store=store, key=key, clock=clock, random=random, lifetime_s=SESSION_S, grace_s=0
        )

    async def begin(self, who: SignedIn, caller: Caller) -> str:
        """The cookie's value of a new session for `who`, who has been through all steps."""
        await self._signin.finished(who)
        member = who.member
        token, family = self._tokens.begin(
            member.org, member.id, ACCOUNT.id, amr=joined(who.amr), auth_time=who.auth_time
        )
        await self._store.begin_family(family)
        await self._note("session.create", who, caller, {"grant": "account page"})
        return token

    async def visit(self, token: str) -> Visit | None:
        """Who comes with that cookie; None: nobody, or they have to sign in again."""
        family = await self._tokens.find(token)
        if family is None or family.client != ACCOUNT.id:
            return None
        member = await self._accounts.member(family.org, family.member)
        if member is None or await self._signin.lacks(member, parted(family.amr), family.created_at):
            return None
        fresh = self._clock() - family.auth_time < FRESH_S
        return Visit(SignedIn(member, parted(family.amr), family.auth_time), family.id, fresh)

    async def end(self, token: str, caller: Caller) -> None:
        """Sign out of the page. Harmless when it has ended."""
        family = await self._tokens.find(token)
        if family is None or family.client != ACCOUNT.id or not await self._tokens.end(family):
            return
        by = Actor(family.org, family.member, ACCOUNT.id, caller.request_id)
        await self._control.for_org(family.org).note("session.revoke", family.member, by, {"reason": "signed out"})

    async def sessions(self, who: SignedIn) -> tuple[LoginSession, ...]:
        """Those of `who`, the newest first; not more than are looked at."""
        found, _ = await self._sessions.page(who.member.org, member=who.member.id, limit=MAX_SHOWN)
        return tuple(sorted(found, key=lambda one: one.created_at, reverse=True))

    async def end_session(self, who: SignedIn, session: str, caller: Caller) -> None:
        """End one of `who`'s. Somebody else's is answered as one that never was: raises `InvalidRequestError`."""
        try:
            found = await self._sessions.find(who.member.org, session)
        except NotFoundError:
            found = None
        if found is None or found.member != who.member.id:
            raise InvalidRequestError("this session has ended already")
        await self._sessions.end(found, self._by(who, caller))

    async def has_password(self, who: SignedIn) -> bool:
        return await self._store.password(who.member.org, who.member.id) is not None

    async def change_password(self, who: SignedIn, form: Mapping[str, str], caller: Caller) -> str:
        """Set another password and end every session; returns the cookie of a new one. The old password is asked
        for, and counted: a browser that was left open is not enough, and no place to guess.

        Raises `OAuthError`.
        """
        member = who.member
        now, fresh, again = (form.get(name, "") for name in ("password", "new_password", "new_password_again"))
        if not now:
            raise InvalidRequestError("password is missing")
        await self._accounts.change_password(member, now, fresh, again, caller)
        by = self._by(who, caller)
        # A crash here leaves sessions of before: end them on the page, or change it once more.
        ended = await self._store.end_families(member.org, member.id, self._clock())
        store = self._control.for_org(member.org)
        await store.note("password.change", member.id, by, {"sessions": ended})
        await store.revoke(revoke_tokens(member.org, self._clock(), member=member.id), by)
        found = await self._accounts.member(member.org, member.id)
        if found is None:
            raise InvalidGrantError("this account may not sign in any more")
        return await self.begin(SignedIn(found, who.amr, who.auth_time), caller)

    async def _note(self, action: str, who: SignedIn, caller: Caller, detail: Mapping[str, str]) -> None:
        await self._control.for_org(who.member.org).note(action, who.member.id, self._by(who, caller), detail)

    def _by(self, who: SignedIn, caller: Caller) -> Actor:
        return Actor(who.member.org, who.member.id, ACCOUNT.id, caller.request_id)
