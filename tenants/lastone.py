"""One always stays: the last active owner of an organization, or operator of the platform, is not taken away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from policies.facts import Role
from tenants.ids import PLATFORM
from tenants.models import Member, State
from tenants.store import OrgStore, StoreError


class LastOneError(StoreError):
    """Nobody could undo it. The message says whom to make first, and is safe to show."""


async def keep_one(
    stack: AsyncExitStack, turn: asyncio.Lock, store: OrgStore, before: Member, after: Member | None
) -> None:
    """Refuse to make `after` of `before` (None: to delete them) where that leaves nobody. Raises `LastOneError`.

    Enters `turn` into `stack` until the write is done, so that two cannot each leave the other. It is this
    process's own; there is one control process.
    """
    role = Role.OPERATOR if store.org == PLATFORM else Role.OWNER
    if role not in before.roles or before.state is not State.ACTIVE:
        return
    if after is not None and role in after.roles and after.state is State.ACTIVE:
        return
    await stack.enter_async_context(turn)
    found, _ = await store.members.page(limit=2, filters={"roles": role, "state": State.ACTIVE})
    if all(member.id == before.id for member in found):
        raise LastOneError(f"This is the last active {role}: make another one first.")
