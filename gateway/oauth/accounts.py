"""Embedded accounts: invitations, passwords, sign-in with lock-out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.oauth.caller import Caller
from gateway.oauth.digests import sha256
from gateway.oauth.errors import (
    InvalidGrantError,
    InvalidRequestError,
    SignInRefusedError,
)
from gateway.oauth.lockout import Lockout
from gateway.oauth.passwords import Passwords, check_password
from gateway.oauth.sso_only import is_closed, is_of_now, require_password
from gateway.oauth.store import OAuthStore, StoredInvitation
from gateway.oauth.throttle import Throttles
from tenants.ids import PLATFORM, InvalidIdError, MemberId, OrgId
from tenants.ids import org_id as parse_org
from tenants.models import Member, State
from tenants.store import Actor, ControlStore, NotFoundError

INVITATION_S: Final = 7 * 86_400
LONGEST_WAIT_S: Final = 900.0
FAILURES_PER_ADDRESS: Final = 100
PERIOD_S: Final = 600.0
ANONYMOUS: Final = "anonymous"
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: five bits a letter


class Invitation(Struct, frozen=True):
    """Shown once. `expires_at` in Unix seconds; `url` is the page where it is used, without the code."""

    code: str
    expires_at: int
    url: str


class Accounts:
    """Sign-in of members by organization, e-mail and password. `clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        store: OAuthStore,
        control: ControlStore,
        passwords: Passwords,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
        invitation_url: str,
    ) -> None:
        self._store = store
        self._control = control
        self._passwords = passwords
        self._clock = clock
        self._random = random
        self._invitation_url = invitation_url
        self._lockout = Lockout(store, clock, LONGEST_WAIT_S)
        self._addresses = throttle("wrong-passwords", FAILURES_PER_ADDRESS, PERIOD_S)

    async def sign_in(self, org: str, email: str, password: str, caller: Caller) -> Member:
        """The active member these belong to.

        Raises `SignInRefusedError`, always in the same words; `TooManyAttemptsError` when this name or address
        has failed too often. Every attempt is charged before the password is looked at: a thousand guesses at
        once count as a thousand.
        """
        await self._addresses.check(caller.address)
        account = _account(org, email)
        await self._lockout.charge(account)
        # The same questions are asked of the store whether or not there is such an account.
        where = await self._existing(org)
        found = await self._find(org, email)
        member_id = found.id if found is not None else MemberId("")
        stored = await self._store.password(where, member_id)
        right = await self._passwords.verify(stored, password)
        if found is None or stored is None or not right:
            await self._addresses.charge(caller.address)
            raise await self._refusal(where, member_id, "credentials", caller)
        # From here on the caller has proven who it is: the lock-out is lifted whatever else is wrong.
        await self._store.forgive(account)
        if not await self.may_use(found):
            raise await self._refusal(where, found.id, "suspended", caller)
        await require_password(self._control, found, caller)
        if self._passwords.outdated(stored):
            await self._store.rehash(where, found.id, stored, await self._passwords.hash(password))
        return found

    async def may_use(self, member: Member) -> bool:
        """Whether the member and the organization are both active now."""
        if member.state is not State.ACTIVE:
            return False
        try:
            return (await self._control.orgs.get(member.org)).state is State.ACTIVE
        except NotFoundError:
            return False

    async def password_closed(self, member: Member) -> bool:
        """Whether the organization signs in at its provider only, and `member` has no key to the other door."""
        return await is_closed(self._control, member)

    async def provider_stands(self, member: Member, began: float) -> bool:
        """Whether who came by single sign-on at `began`, Unix seconds, came from the provider of now."""
        return await is_of_now(self._control, member, began)

    async def member(self, org: OrgId, member: MemberId) -> Member | None:
        """The member as it stands now, if it may sign in."""
        try:
            found = await self._control.for_org(org).members.get(member)
        except NotFoundError:
            return None
        return found if await self.may_use(found) else None

    async def invite(self, org: OrgId, member: MemberId) -> Invitation:
        """A new code, good for seven days and once; earlier ones are void. Raises `NotFoundError`."""
        await self._control.for_org(org).members.get(member)
        letters = "".join(_ALPHABET[byte % 32] for byte in self._random(25))
        code = "-".join(letters[at : at + 5] for at in range(0, 25, 5))
        expires_at = int(self._clock()) + INVITATION_S
        await self._store.invite(StoredInvitation(_code_digest(code), org, member, expires_at))
        return Invitation(code, expires_at, f"{self._invitation_url}?org={org}")

    async def accept(
        self, org: str, email: str, code: str, *, password: str, again: str, caller: Caller
    ) -> Member:
        """Use an invitation: set the password, end every session of before.

        Raises `InvalidRequestError` for the password (the invitation stays good), `InvalidGrantError` otherwise.
        """
        await self._addresses.check(caller.address)
        if password != again:
            raise InvalidRequestError("the two passwords differ")
        check_password(password)
        now = self._clock()
        invitation = await self._store.invitation(_code_digest(code), now)
        member = await self._find(org, email)
        if invitation is None or member is None or (invitation.org, invitation.member) != (member.org, member.id):
            await self._addresses.charge(caller.address)
            raise InvalidGrantError(
                "the invitation is not for this account, or it was used, replaced or has expired"
            )
        hashed = await self._passwords.hash(password)
        if not await self._store.accept(invitation, hashed, self._clock()):
            raise InvalidGrantError(
                "the invitation is not for this account, or it was used, replaced or has expired"
            )
        await self._store.forgive(_account(org, email))
        by = Actor(org=member.org, member=member.id, request_id=caller.request_id)
        await self._control.for_org(member.org).note("invitation.accept", member.id, by, {})
        return member

    async def mark(self, member: Member) -> str:
        """Tells a member's password from the one before, and nothing else of it; '' without any."""
        stored = await self._store.password(member.org, member.id)
        return sha256(stored)[:16] if stored is not None else ""

    async def change_password(self, member: Member, old: str, new: str, again: str, caller: Caller) -> None:
        """Set another password for who knows the one there is: asked and counted as at a sign-in.

        Raises what `sign_in` does; `InvalidRequestError` for the new one.
        """
        if new != again:
            raise InvalidRequestError("the two passwords differ")
        check_password(new)
        await self.sign_in(member.org, member.email, old, caller)
        stored = await self._store.password(member.org, member.id)
        hashed = await self._passwords.hash(new)
        if stored is not None:
            await self._store.rehash(member.org, member.id, stored, hashed)
        if await self._store.password(member.org, member.id) != hashed:
            raise InvalidGrantError("the password was changed somewhere else meanwhile")

    async def _find(self, org: str, email: str) -> Member | None:
        try:
            return await self._control.for_org(parse_org(org)).members.by_email(email.strip())
        except (NotFoundError, InvalidIdError):
            return None

    async def _existing(self, org: str) -> OrgId:
        """Where a refusal is noted: an organization that does not exist has no audit log of its own."""
        try:
            return (await self._control.orgs.get(parse_org(org))).id
        except (NotFoundError, InvalidIdError):
            return PLATFORM

    async def _refusal(self, org: OrgId, member: MemberId, reason: str, caller: Caller) -> SignInRefusedError:
        by = Actor(org=org, member=member or ANONYMOUS, request_id=caller.request_id)
        await self._control.for_org(org).note("session.refuse", member or ANONYMOUS, by, {"reason": reason})
        return SignInRefusedError(
            "organization, e-mail and password do not go together, or the account is suspended"
        )


def _account(org: str, email: str) -> str:
    """What failures are counted by, the same for names that do not exist. A digest: it holds no address."""
    return sha256(f"{org.strip()}\0{unicodedata.normalize('NFC', email.strip()).casefold()}")


def _code_digest(code: str) -> str:
    return sha256("".join(code.upper().split()).replace("-", ""))
