"""`gateway.oauth.factors_store.FactorStore` over the tables of `SqlOAuthStore`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.oauth.factors_store import MAX_FACTORS, Factor, FactorKind, NoRoomError
from gateway.oauth.tables import factors, recovery
from tenants.ids import MemberId, OrgId

Opened = Callable[[OrgId], AbstractAsyncContextManager[AsyncConnection]]


class SqlFactors:
    """`read` and `write` are those of the store that these tables belong to: its errors, its one writer."""

    def __init__(self, read: Opened, write: Opened) -> None:
        self._read = read
        self._write = write

    async def all(self, org: OrgId, member: MemberId) -> tuple[Factor, ...]:
        wanted = select(factors).where(*_of(org, member)).order_by(factors.c.created_at, factors.c.id)
        async with self._read(org) as connection:
            return tuple(_factor(row) for row in await connection.execute(wanted))

    async def add(self, factor: Factor, recovery: tuple[str, ...] = ()) -> None:
        mine = _of(factor.org, factor.member)
        try:
            async with self._write(factor.org) as connection:
                held = await connection.scalar(select(func.count()).select_from(factors).where(*mine)) or 0
                if held >= MAX_FACTORS:
                    raise NoRoomError
                await connection.execute(
                    insert(factors).values(**{**msgspec.structs.asdict(factor), "kind": factor.kind.value})
                )
                if not held:
                    await _replace(connection, factor.org, factor.member, recovery)
        except IntegrityError:
            raise NoRoomError from None

    async def use(self, factor: Factor, mark: int, sign_count: int, now: int) -> bool:
        table = factors.c
        # The whole decision is this one statement: a code or an answer that two bring at once is taken from one.
        async with self._write(factor.org) as connection:
            used = await connection.execute(
                update(factors)
                .where(
                    *_of(factor.org, factor.member),
                    table.id == factor.id,
                    table.mark < mark,
                    table.sign_count == factor.sign_count,
                )
                .values(mark=mark, sign_count=sign_count, used_at=now)
            )
        return int(used.rowcount) == 1

    async def remove(self, org: OrgId, member: MemberId, factor: str) -> bool:
        mine = _of(org, member)
        async with self._write(org) as connection:
            gone = await connection.execute(delete(factors).where(*mine, factors.c.id == factor))
            left = await connection.scalar(select(func.count()).select_from(factors).where(*mine))
            if not left:
                await _replace(connection, org, member, ())
        return int(gone.rowcount) == 1

    async def recovery_left(self, org: OrgId, member: MemberId) -> int:
        wanted = select(func.count()).where(recovery.c.org == org, recovery.c.member == member)
        async with self._read(org) as connection:
            return await connection.scalar(wanted) or 0

    async def set_recovery(self, org: OrgId, member: MemberId, digests: tuple[str, ...]) -> None:
        async with self._write(org) as connection:
            await _replace(connection, org, member, digests)

    async def use_recovery(self, org: OrgId, member: MemberId, digest: str) -> bool:
        table = recovery.c
        async with self._write(org) as connection:
            used = await connection.execute(
                delete(recovery).where(table.org == org, table.member == member, table.digest == digest)
            )
        return int(used.rowcount) == 1

    async def reset(self, org: OrgId, member: MemberId) -> int:
        async with self._write(org) as connection:
            gone = await connection.execute(delete(factors).where(*_of(org, member)))
            await _replace(connection, org, member, ())
        return int(gone.rowcount)


async def _replace(connection: AsyncConnection, org: OrgId, member: MemberId, digests: tuple[str, ...]) -> None:
    table = recovery.c
    await connection.execute(delete(recovery).where(table.org == org, table.member == member))
    for digest in digests:
        await connection.execute(insert(recovery).values(org=org, member=member, digest=digest))


def _of(org: OrgId, member: MemberId) -> tuple[Any, ...]:
    return factors.c.org == org, factors.c.member == member


def _factor(row: Any) -> Factor:
    values = dict(row._mapping)
    return Factor(**{**values, "kind": FactorKind(values["kind"])})
