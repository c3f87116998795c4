"""Who the provider says it is → the member of the organization: found, linked once, or made; and what they may do
by the groups they are in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from msgspec import structs

from gateway.oauth.caller import Caller
from gateway.oauth.sso_identity import Identity, IdentityError
from policies.facts import Role
from tenants.idp import IdentityProvider
from tenants.idprules import top_role, within
from tenants.ids import MemberId, OrgId, new_member_id
from tenants.lastone import LastOneError, keep_one
from tenants.models import Member, State
from tenants.store import (
    Actor,
    AlreadyExistsError,
    ControlStore,
    InvalidItemError,
    InvalidReferenceError,
    NotFoundError,
    OrgStore,
    VersionMismatchError,
)

log = logging.getLogger("orgate.oauth")

ATTEMPTS: Final = 5
CLIENT: Final = "single-sign-on"
"""Of the actor in audit entries: nobody here did it, the provider's groups did."""

ShutOut = Callable[[OrgId, MemberId], Awaitable[None]]
Uninvite = Callable[[OrgId, MemberId], Awaitable[None]]


class Admission:
    """`turn`: as `tenants.lastone.keep_one` needs it. `shut_out` ends what a member has in flight once a role was
    taken from them; `uninvite` voids an invitation that somebody lesser may have made for an owner."""

    def __init__(
        self, control: ControlStore, *, turn: asyncio.Lock, shut_out: ShutOut, uninvite: Uninvite
    ) -> None:
        self._control = control
        self._turn = turn
        self._shut_out = shut_out
        self._uninvite = uninvite

    async def admit(self, provider: IdentityProvider, who: Identity, caller: Caller) -> Member:
        """The active member, their roles and teams as the groups have them now. Raises `IdentityError`."""
        store = self._control.for_org(provider.org)
        by = Actor(provider.org, "system", CLIENT, caller.request_id)
        member = await self._member(store, provider, who, by)
        if member.state is not State.ACTIVE:
            text = "your account here is suspended; ask an admin of your organization"
            raise IdentityError("suspended", text, member.id)
        if who.groups is not None:
            member = await self._roles(store, provider, member, frozenset(who.groups), by)
            await self._teams(store, provider, member.id, frozenset(who.groups), by)
        _judge(provider, who, member.roles, member.id)  # after the groups, for they give the roles
        return member

    async def _member(self, store: OrgStore, provider: IdentityProvider, who: Identity, by: Actor) -> Member:
        known = await store.idp.linked(provider.issuer, who.subject)
        if known is not None:
            return await store.members.get(known)
        if not who.email:
            raise IdentityError(
                "no e-mail", f"the provider does not say your e-mail address ({provider.email_claim})"
            )
        if not (who.verified or (who.verified is None and provider.emails_verified)):
            text = "the provider does not say that your e-mail address is verified, so that it may be anybody's"
            raise IdentityError("e-mail not verified", text)
        if not within(who.email, provider.domains):
            raise IdentityError("domain", "your e-mail address is of a domain that is not your organization's")
        member = await self._by_email(store, provider, who, by)
        # A crash here leaves a member who is not linked: the next sign-in finds them by their address.
        if not await store.idp.link(provider.issuer, who.subject, member.id, by):
            text = "the account with your e-mail address belongs to another person at the provider; ask an admin"
            raise IdentityError("linked already", text, member.id)
        return member

    async def _by_email(self, store: OrgStore, provider: IdentityProvider, who: Identity, by: Actor) -> Member:
        for _ in range(2):
            try:
                found = await store.members.by_email(who.email)
            except NotFoundError:
                pass
            else:
                # The store takes more for the same address than a mail server does (`straße` is `strasse` there):
                # enough to keep them apart, not to let one in as the other.
                if found.email.lower() == who.email.lower():
                    return found
                raise IdentityError("e-mail alike", "your e-mail address is too much like another member's")
            if not provider.jit:
                text = "nobody here has your e-mail address; ask an admin of your organization to add you"
                raise IdentityError("no account", text)
            item = Member(
                org=provider.org,
                id=new_member_id(),
                email=who.email,
                name=who.name,
                roles=_ordered([*provider.default_roles, *_given(provider, frozenset(who.groups or ()))]),
            )
            if who.groups is not None:
                item = structs.replace(item, roles=_roles_now(provider, item, frozenset(who.groups)))
            _judge(provider, who, item.roles)  # before it is made: who is refused leaves no account
            try:
                return await store.members.create(item, by)
            except AlreadyExistsError:  # their other browser was faster
                continue
            except InvalidItemError:
                raise IdentityError(
                    "e-mail", "your e-mail address at the provider is none that is taken here"
                ) from None
        raise IdentityError("busy", "your account is being made just now; try again")

    async def _roles(
        self, store: OrgStore, provider: IdentityProvider, member: Member, groups: frozenset[str], by: Actor
    ) -> Member:
        for _ in range(ATTEMPTS):
            roles = _roles_now(provider, member, groups)
            if roles == member.roles:
                return member
            try:
                return await self._write(store, member, roles, by)
            except LastOneError:
                top = top_role(provider.org)
                await store.note("member.keep", member.id, by, {"role": top, "reason": "the last one"})
                kept = _ordered([*roles, top])
                if kept == member.roles:
                    return member
                try:
                    return await self._write(store, member, kept, by)
                except VersionMismatchError:
                    pass
            except VersionMismatchError:
                pass
            member = await store.members.get(member.id)
        raise IdentityError("busy", "your account is being changed just now; try again")

    async def _write(self, store: OrgStore, member: Member, roles: tuple[Role, ...], by: Actor) -> Member:
        item = structs.replace(member, roles=roles)
        async with AsyncExitStack() as stack:
            await keep_one(stack, self._turn, store, member, item)
            if top_role(store.org) in set(roles) - set(member.roles):
                await stack.enter_async_context(self._turn)
                # A crash here leaves somebody without an invitation, who is no owner yet.
                await self._uninvite(store.org, member.id)
            made = await store.members.replace(item, member.version, by)
        if set(member.roles) - set(roles):
            await self._shut_out(store.org, member.id)
        return made

    async def _teams(
        self, store: OrgStore, provider: IdentityProvider, member: MemberId, groups: frozenset[str], by: Actor
    ) -> None:
        managed = {one.team for one in provider.group_teams}
        wanted = {one.team for one in provider.group_teams if one.group in groups}
        if not managed:
            return
        now = set(await store.teams.of(member))
        for team in sorted(wanted - now):
            try:
                await store.teams.add(team, member, by)
            except (NotFoundError, InvalidReferenceError) as error:  # deleted since, or they are in too many
                log.warning("%s: a group's team was left out at a sign-in: %s", provider.org, error)
        for team in sorted((managed & now) - wanted):
            try:
                await store.teams.remove(team, member, by)
            except NotFoundError:
                continue


def _judge(provider: IdentityProvider, who: Identity, roles: Sequence[Role], member: str = "") -> None:
    """Whether the sign-in is as strong as `roles` ask. Raises `IdentityError`."""
    # Nobody is let in with fewer: roles are the member's and not the session's, and what is withheld here would be
    # taken from all of their sessions.
    for demand in provider.demands:
        if demand.role in roles and not demand.met(who.acr, who.amr):
            text = (
                f"your role '{demand.role}' asks for a stronger sign-in than this was; sign in at your"
                " provider with a second factor, and try again"
            )
            raise IdentityError(f"weak sign-in for {demand.role}", text, member)


def _given(provider: IdentityProvider, groups: frozenset[str]) -> set[Role]:
    return {one.role for one in provider.group_roles if one.group in groups}


def _roles_now(provider: IdentityProvider, member: Member, groups: frozenset[str]) -> tuple[Role, ...]:
    """Roles that a group gives come and go with it, others stay; who would be left with none has the default."""
    managed = {one.role for one in provider.group_roles}
    roles = {role for role in member.roles if role not in managed} | _given(provider, groups)
    if roles == set(member.roles):
        return member.roles
    return _ordered(roles or provider.default_roles)


def _ordered(roles: Sequence[Role] | set[Role]) -> tuple[Role, ...]:
    return tuple(role for role in Role if role in roles)
