"""`gateway.oauth.sessions.SessionStore` over the tables of `SqlOAuthStore`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.oauth.sessions import LoginSession
from gateway.oauth.store import Consumed, DeviceStatus
from gateway.oauth.tables import codes, devices, families, invitations
from tenants.ids import OrgId
from tenants.sql.rows import storable

Opened = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class SqlSessions:
    """`read` and `write` are those of the store that these tables belong to: its errors, its one writer."""

    def __init__(self, read: Opened, write: Opened) -> None:
        self._read = read
        self._write = write

    async def page(
        self, org: OrgId, now: float, *, member: str = "", after: str = "", limit: int = 100
    ) -> tuple[tuple[LoginSession, ...], str]:
        if not storable(member):
            return (), ""
        table = families.c
        wanted = [*_living(org, now), table.id > after, *([table.member == member] if member else [])]
        async with self._read() as connection:
            found = await connection.execute(select(families).where(*wanted).order_by(table.id).limit(limit + 1))
            rows = [_session(row) for row in found]
        more = len(rows) > limit
        return tuple(rows[:limit]), rows[limit - 1].id if more else ""

    async def find(self, org: OrgId, session: str, now: float) -> LoginSession | None:
        wanted = (*_living(org, now), families.c.id == session)
        async with self._read() as connection:
            row = (await connection.execute(select(families).where(*wanted))).first()
        return None if row is None else _session(row)

    async def end_org(self, org: OrgId, now: float) -> int:
        approved = DeviceStatus.APPROVED.value
        async with self._write() as connection:
            await connection.execute(
                update(devices)
                .where(devices.c.org == org, devices.c.status == approved)
                .values(status=DeviceStatus.DENIED.value)
            )
            await connection.execute(delete(codes).where(codes.c.org == org, codes.c.family == ""))
            await connection.execute(delete(invitations).where(invitations.c.org == org))
            ended = await connection.execute(update(families).where(*_living(org, now)).values(ended_at=now))
        return int(ended.rowcount)


def _living(org: OrgId, now: float) -> tuple[Any, ...]:
    return families.c.org == org, families.c.ended_at == 0, families.c.expires_at > now


def _session(row: Any) -> LoginSession:
    recent = msgspec.json.decode(row.recent, type=tuple[Consumed, ...])
    return LoginSession(
        id=row.id,
        org=row.org,
        member=row.member,
        client=row.client,
        created_at=int(row.created_at),
        # A rotation writes down the token it consumed, and when: the newest is never forgotten before the next.
        last_used=int(recent[-1].at if recent else row.created_at),
        expires_at=int(row.expires_at),
        amr=row.amr,
    )
