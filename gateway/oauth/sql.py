"""`OAuthStore` over SQL: tables of its own in the control store's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.oauth.factors_sql import SqlFactors
from gateway.oauth.sql_clients import SqlClientRequests
from gateway.oauth.sql_sessions import SqlSessions
from gateway.oauth.store import (
    Attempts,
    AuthorizationCode,
    Consumed,
    DeviceGrant,
    DeviceStatus,
    DuplicateUserCodeError,
    Family,
    StoredInvitation,
)
from gateway.oauth.tables import attempts, codes, devices, families, invitations, metadata, passwords
from tenants.clients import org_of
from tenants.ids import MemberId, OrgId
from tenants.sql.connecting import EVERY_ORG
from tenants.sql.dialect import READ_ONLY, unavailable, within
from tenants.sql.migrate import bring_up

KEEP_S: Final = 86_400
"""How long what has ended is kept, so that a late replay is still told what happened to it."""


class SqlOAuthStore:
    """Transactions of `engine` begin with the write lock, except those with the options `READ_ONLY`.

    Writers of this process queue here instead of waking each other in the database's busy loop.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(**READ_ONLY)
        self._writer = asyncio.Lock()
        self.sessions = SqlSessions(self._read, self._write)
        self.clients = SqlClientRequests(self._write)
        self.factors = SqlFactors(self._read, self._write)

    @classmethod
    async def open(cls, engine: AsyncEngine) -> SqlOAuthStore:
        """Make the tables, and what an older Orgate's lack. `engine` is `SqlControlStore.engine`; who made it
        closes it. A crash in the middle leaves what stood before: it is one transaction."""
        with unavailable():
            async with engine.begin() as connection:
                await connection.run_sync(bring_up, metadata)
        return cls(engine)

    async def password(self, org: OrgId, member: str) -> str | None:
        table = passwords.c
        async with self._read(org) as connection:
            found: str | None = await connection.scalar(
                select(table.hash).where(table.org == org, table.member == member)
            )
        return found

    async def rehash(self, org: OrgId, member: MemberId, old: str, new: str) -> None:
        table = passwords.c
        async with self._write(org) as connection:
            await connection.execute(
                update(passwords)
                .where(table.org == org, table.member == member, table.hash == old)
                .values(hash=new)
            )

    async def attempts(self, account: str) -> Attempts:
        async with self._read() as connection:
            row = (
                await connection.execute(
                    select(attempts.c.failures, attempts.c.retry_at).where(attempts.c.account == account)
                )
            ).first()
        return Attempts(*row) if row is not None else Attempts()

    async def charge(self, account: str, seen: Attempts, then: Attempts, now: float) -> bool:
        table = attempts.c
        values = {"failures": then.failures, "retry_at": then.retry_at, "at": now}
        try:
            async with self._write() as connection:
                await connection.execute(delete(attempts).where(table.at < now - KEEP_S))
                if seen.failures == 0:
                    await connection.execute(insert(attempts).values(account=account, **values))
                    return True
                changed = await connection.execute(
                    update(attempts)
                    .where(table.account == account, table.failures == seen.failures)
                    .values(**values)
                )
                return int(changed.rowcount) == 1
        except IntegrityError:  # another first failure was counted meanwhile
            return False

    async def forgive(self, account: str) -> None:
        async with self._write() as connection:
            await connection.execute(delete(attempts).where(attempts.c.account == account))

    async def invite(self, invitation: StoredInvitation) -> None:
        table = invitations.c
        async with self._write(invitation.org) as connection:
            await connection.execute(
                delete(invitations).where(table.org == invitation.org, table.member == invitation.member)
            )
            await connection.execute(insert(invitations).values(**msgspec.structs.asdict(invitation)))

    async def uninvite(self, org: OrgId, member: MemberId) -> None:
        table = invitations.c
        async with self._write(org) as connection:
            await connection.execute(delete(invitations).where(table.org == org, table.member == member))

    async def invitation(self, digest: str, now: float) -> StoredInvitation | None:
        table = invitations.c
        async with self._read() as connection:
            row = (
                await connection.execute(select(invitations).where(table.digest == digest, table.expires_at > now))
            ).first()
        return StoredInvitation(**row._mapping) if row is not None else None

    async def accept(self, invitation: StoredInvitation, password: str, now: float) -> bool:
        table = invitations.c
        mine = (passwords.c.org == invitation.org, passwords.c.member == invitation.member)
        async with self._write(invitation.org) as connection:
            used = await connection.execute(
                delete(invitations).where(table.digest == invitation.digest, table.expires_at > now)
            )
            if used.rowcount != 1:
                return False
            await connection.execute(delete(passwords).where(*mine))
            await connection.execute(
                insert(passwords).values(org=invitation.org, member=invitation.member, hash=password)
            )
            await _end(
                connection, families.c.org == invitation.org, families.c.member == invitation.member, now=now
            )
        return True

    async def add_device(self, grant: DeviceGrant, now: float) -> None:
        try:
            async with self._write() as connection:
                await connection.execute(delete(devices).where(devices.c.expires_at < now - KEEP_S))
                await connection.execute(
                    insert(devices).values(**{**msgspec.structs.asdict(grant), "status": grant.status.value})
                )
        except IntegrityError:
            raise DuplicateUserCodeError from None

    async def pending_devices(self, now: float, client: str = "") -> int:
        table = devices.c
        pending = [table.expires_at > now, table.status == DeviceStatus.PENDING.value]
        if org := org_of(client):
            pending.append(table.client.startswith(f"{org}.", autoescape=True))
        elif client:
            pending.append(table.client == client)
        async with self._read() as connection:
            count = await connection.scalar(select(func.count()).where(*pending))
        return count or 0

    async def device(self, digest: str) -> DeviceGrant | None:
        async with self._read() as connection:
            row = (await connection.execute(select(devices).where(devices.c.digest == digest))).first()
        return _grant(row) if row is not None else None

    async def device_of(self, user_code_digest: str, now: float) -> DeviceGrant | None:
        table = devices.c
        pending = table.user_code_digest == user_code_digest, table.status == DeviceStatus.PENDING.value
        async with self._read() as connection:
            row = (await connection.execute(select(devices).where(*pending, table.expires_at > now))).first()
        return _grant(row) if row is not None else None

    async def polled(self, digest: str, now: float, interval: float) -> None:
        async with self._write() as connection:
            await connection.execute(
                update(devices).where(devices.c.digest == digest).values(polled_at=now, interval=interval)
            )

    async def decide(
        self,
        user_code_digest: str,
        status: DeviceStatus,
        org: OrgId,
        member: MemberId,
        now: float,
        *,
        amr: str = "",
        auth_time: int = 0,
    ) -> DeviceGrant | None:
        table = devices.c
        async with self._write() as connection:
            decided = await connection.execute(
                update(devices)
                .where(
                    table.user_code_digest == user_code_digest,
                    table.status == DeviceStatus.PENDING.value,
                    table.expires_at > now,
                )
                .values(status=status.value, org=org, member=member, amr=amr, auth_time=auth_time)
                .returning(devices)
            )
            row = decided.first()
        return _grant(row) if row is not None else None

    async def redeem(self, digest: str, family: Family) -> bool:
        table = devices.c
        async with self._write(family.org) as connection:
            used = await connection.execute(
                update(devices)
                .where(
                    table.digest == digest,
                    table.status == DeviceStatus.APPROVED.value,
                    table.org == family.org,
                    table.member == family.member,
                )
                .values(status=DeviceStatus.REDEEMED.value)
            )
            if used.rowcount != 1:
                return False
            await _begin(connection, family)
        return True

    async def add_code(self, code: AuthorizationCode, now: float) -> None:
        async with self._write() as connection:
            await connection.execute(delete(codes).where(codes.c.expires_at < now - KEEP_S))
            await connection.execute(insert(codes).values(**msgspec.structs.asdict(code)))

    async def code(self, digest: str) -> AuthorizationCode | None:
        async with self._read() as connection:
            row = (await connection.execute(select(codes).where(codes.c.digest == digest))).first()
        return AuthorizationCode(**dict(row._mapping)) if row is not None else None

    async def redeem_code(self, digest: str, family: Family, token_id: str) -> bool:
        table = codes.c
        async with self._write(family.org) as connection:
            used = await connection.execute(
                update(codes)
                .where(
                    table.digest == digest,
                    table.family == "",
                    table.org == family.org,
                    table.member == family.member,
                )
                .values(family=family.id, token_id=token_id)
            )
            if used.rowcount != 1:
                return False
            await _begin(connection, family)
        return True

    async def begin_family(self, family: Family) -> None:
        async with self._write(family.org) as connection:
            await _begin(connection, family)

    async def family(self, family: str) -> Family | None:
        async with self._read() as connection:
            row = (await connection.execute(select(families).where(families.c.id == family))).first()
        if row is None:
            return None
        values: dict[str, Any] = dict(row._mapping)
        return Family(**{**values, "recent": msgspec.json.decode(values["recent"], type=tuple[Consumed, ...])})

    async def rotate(self, family: Family, successor: str, consumed: tuple[Consumed, ...]) -> bool:
        # The whole decision is this one statement: whoever finds its token still current is the only winner.
        # `recent` was read with `current` and changes only with it, so it cannot be stale where the update hits.
        async with self._write(family.org) as connection:
            changed = await connection.execute(
                update(families)
                .where(families.c.id == family.id, families.c.current == family.current, families.c.ended_at == 0)
                .values(current=successor, recent=_json(consumed), jkt=family.jkt)
            )
        return changed.rowcount == 1

    async def end_family(self, family: str, now: float) -> bool:
        async with self._write() as connection:
            return await _end(connection, families.c.id == family, now=now) == 1

    async def end_families(self, org: OrgId, member: MemberId, now: float) -> int:
        table = devices.c
        async with self._write(org) as connection:
            # A grant approved, or a code given, and not yet redeemed would begin a new family after this.
            await connection.execute(
                update(devices)
                .where(table.org == org, table.member == member, table.status == DeviceStatus.APPROVED.value)
                .values(status=DeviceStatus.DENIED.value)
            )
            await connection.execute(
                delete(codes).where(codes.c.org == org, codes.c.member == member, codes.c.family == "")
            )
            return await _end(connection, families.c.org == org, families.c.member == member, now=now)

    async def drop_member(self, org: OrgId, member: MemberId) -> None:
        async with self._write(org) as connection:
            for table in (passwords, invitations, devices, codes, families):
                await connection.execute(delete(table).where(table.c.org == org, table.c.member == member))

    @asynccontextmanager
    async def _read(self, org: str = EVERY_ORG) -> AsyncIterator[AsyncConnection]:
        """`org`: no statement reaches another's rows, where the database can see to that."""
        with unavailable():
            async with within(self._reading, org).connect() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self, org: str = EVERY_ORG) -> AsyncIterator[AsyncConnection]:
        """Commits when its block ends; a crash before that leaves nothing of it, after it all of it."""
        async with self._writer:
            with unavailable():
                async with within(self._engine, org).begin() as connection:
                    yield connection


async def _begin(connection: AsyncConnection, family: Family) -> None:
    await connection.execute(delete(families).where(families.c.expires_at < family.created_at - KEEP_S))
    await connection.execute(
        insert(families).values(**{**msgspec.structs.asdict(family), "recent": _json(family.recent)})
    )


async def _end(connection: AsyncConnection, *wanted: Any, now: float) -> int:
    ended = await connection.execute(
        update(families).where(*wanted, families.c.ended_at == 0, families.c.expires_at > now).values(ended_at=now)
    )
    return int(ended.rowcount)


def _grant(row: Any) -> DeviceGrant:
    values = dict(row._mapping)
    return DeviceGrant(**{**values, "status": DeviceStatus(values["status"])})


def _json(consumed: tuple[Consumed, ...]) -> str:
    return msgspec.json.encode(consumed).decode()
