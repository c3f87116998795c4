"""Shutting somebody out, step by step: one member, or a whole organization. Each step says when it was done.

The order is what makes it safe. First the one transaction after which nothing is renewed, let in or signed in:
the state, the revocation that ends access tokens, and personal tokens with it. Then streams in flight are told to
end, so that they wait for nobody. Then what was still held somewhere is forgotten, and at last every live worker
has said that it refuses them. A crash between two steps leaves the later ones undone, and nothing open: whatever
is left is refused by the state. Repeating it finishes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol

from msgspec import Struct, structs

from tenants.ids import MemberId, OrgId
from tenants.lastone import keep_one
from tenants.models import Member, Org, State
from tenants.store import Actor, ControlStore, VersionMismatchError

ATTEMPTS: Final = 5

ACCESS_REFUSED: Final = "access refused by every worker"


Allowed = Callable[[Member], Awaitable[None]]


async def anybody(_: Member) -> None:
    """Whoever may ask at all may touch anybody."""


class BusyError(Exception):
    """Somebody else keeps changing the same thing. Nothing was changed by this call."""


class Step(Struct, frozen=True):
    """`ms` since the call began; `count`: of what, where there is something to count."""

    what: str
    ms: float
    count: int | None = None


class ShutOut(Struct, frozen=True):
    """What was done. `fenced`: workers that did not answer within a second, and serve nobody until they have
    caught up."""

    steps: tuple[Step, ...]
    fenced: tuple[str, ...]


class Logins(Protocol):
    """Accounts and refresh tokens. Durable when a call returns; each is harmless when repeated."""

    async def uninvite(self, org: OrgId, member_id: MemberId) -> None: ...
    async def end_sessions(self, org: OrgId, member_id: MemberId) -> int:
        """Ends families, codes that were not redeemed and devices that were approved; how many families."""

    async def end_org(self, org: OrgId) -> int:
        """The same of everybody in it, invitations included."""


class WebLogins(Protocol):
    """Sessions of browsers: `gateway.oauth.web.WebSessions`."""

    def forget(self, org: str, member: str = "") -> int:
        """Of `org`, or one member of it; how many there were."""


class Reached(Protocol):
    """The workers, seen from here: `gateway.bus.streams.LiveStreams`."""

    def reset(self, org: OrgId, member: str = "") -> None: ...
    async def live(self, version: int) -> Sequence[str]: ...
    def workers(self) -> Sequence[object]: ...


class Offboarding:
    """One loop's. `clock` gives seconds of any epoch; `turn`: as `tenants.lastone.keep_one` needs it."""

    def __init__(
        self,
        *,
        control: ControlStore,
        logins: Logins,
        web: WebLogins | None,
        workers: Reached,
        clock: Callable[[], float],
        turn: asyncio.Lock,
    ) -> None:
        self._control = control
        self._logins = logins
        self._web = web
        self._workers = workers
        self._clock = clock
        self._turn = turn

    async def member(
        self, org: OrgId, member_id: MemberId, by: Actor, allowed: Allowed = anybody
    ) -> tuple[Member, ShutOut]:
        """Shut a member out. Harmless when repeated: who is suspended already is shut out all the same. `allowed`
        is asked of the member as they are in the moment before, and raises where `by` may not touch them.

        Raises what `allowed` does, `NotFoundError`, `tenants.lastone.LastOneError`, `BusyError`,
        `StoreUnavailableError`.
        """
        said = _Steps(self._clock)
        store = self._control.for_org(org)
        suspended = await self.suspend(org, member_id, by, allowed)
        said.done("suspended: nothing of theirs is renewed, personal tokens are dead")
        self._workers.reset(org, member_id)
        said.done("streams in flight told to end")
        ended = await self._logins.end_sessions(org, member_id)
        said.done("sessions ended, and sign-ins under way", ended)
        await self._logins.uninvite(org, member_id)
        said.done("invitation void")
        late = await self._shut(org, member_id, said)
        await store.note("member.offboard", member_id, by, {"fenced": len(late)})
        return suspended, ShutOut(tuple(said.steps), tuple(late))

    async def organization(self, org: OrgId, by: Actor) -> tuple[Org, ShutOut]:
        """The same of a whole organization: it is suspended. Who belongs to it signs in again when it is resumed.

        Raises `NotFoundError`, `InvalidItemError` (the platform), `BusyError`, `StoreUnavailableError`.
        """
        said = _Steps(self._clock)
        suspended = await self._suspend_org(org, by)
        said.done("suspended: nothing of theirs is renewed, personal tokens are dead")
        self._workers.reset(org)
        said.done("streams in flight told to end")
        ended = await self._logins.end_org(org)
        said.done("sessions ended, sign-ins under way, and invitations", ended)
        late = await self._shut(org, "", said)
        return suspended, ShutOut(tuple(said.steps), tuple(late))

    async def suspend(self, org: OrgId, member_id: MemberId, by: Actor, allowed: Allowed = anybody) -> Member:
        """Only the first step of `member`, and its errors."""
        store = self._control.for_org(org)
        for _ in range(ATTEMPTS):
            current = await store.members.get(member_id)
            await allowed(current)
            if current.state is State.SUSPENDED:
                return current
            item = structs.replace(current, state=State.SUSPENDED)
            try:
                async with AsyncExitStack() as stack:
                    await keep_one(stack, self._turn, store, current, item)
                    return await store.members.replace(item, current.version, by)
            except VersionMismatchError:
                continue
        raise BusyError("The member keeps being changed by somebody else; try again.")

    async def _suspend_org(self, org: OrgId, by: Actor) -> Org:
        orgs = self._control.orgs
        for _ in range(ATTEMPTS):
            current = await orgs.get(org)
            if current.state is State.SUSPENDED:
                return current
            try:
                return await orgs.replace(structs.replace(current, state=State.SUSPENDED), current.version, by)
            except VersionMismatchError:
                continue
        raise BusyError("The organization keeps being changed by somebody else; try again.")

    async def _shut(self, org: OrgId, member: str, said: _Steps) -> Sequence[str]:
        if self._web is not None:
            said.done("browsers signed out", self._web.forget(org, member))
        late = await self._workers.live(await self._control.version())
        said.done(ACCESS_REFUSED, len(self._workers.workers()))
        self._workers.reset(org, member)  # for what began before the last worker knew
        said.done("streams that began meanwhile told to end")
        return late


class _Steps:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self.steps: list[Step] = []

    def done(self, what: str, count: int | None = None) -> None:
        self.steps.append(Step(what, round((self._clock() - self._began) * 1_000, 1), count))
