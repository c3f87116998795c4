"""What the authorization server keeps of clients' requests, over the tables of `SqlOAuthStore`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from msgspec import json
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.oauth.requests import Pushed
from gateway.oauth.store import DeviceStatus
from gateway.oauth.tables import assertions, codes, devices, families, pushed
from tenants.clients import org_of
from tenants.sql.rows import storable

Opened = Callable[..., AbstractAsyncContextManager[AsyncConnection]]


class SqlClientRequests:
    """`requests.ClientRequests`. `write` is that of the store that these tables belong to: its errors, its one
    writer."""

    def __init__(self, write: Opened) -> None:
        self._write = write

    async def use(self, client: str, digest: str, expires_at: float, now: float) -> bool:
        values = {"org": org_of(client), "client": client, "digest": digest, "expires_at": expires_at}
        try:
            async with self._write() as connection:
                await connection.execute(delete(assertions).where(assertions.c.expires_at <= now))
                await connection.execute(insert(assertions).values(values))
        except IntegrityError:
            return False
        return True

    async def push(self, request: Pushed, now: float, most: int) -> bool:
        table = pushed.c
        async with self._write() as connection:
            await connection.execute(delete(pushed).where(table.expires_at <= now))
            waiting = await connection.scalar(select(func.count()).where(table.client == request.client))
            if (waiting or 0) >= most:
                return False
            await connection.execute(
                insert(pushed).values(
                    digest=request.digest,
                    org=org_of(request.client),
                    client=request.client,
                    form=json.encode(request.form).decode(),
                    expires_at=request.expires_at,
                )
            )
        return True

    async def take(self, digest: str, client: str, now: float) -> Pushed | None:
        if not storable(client):
            return None
        table = pushed.c
        async with self._write() as connection:
            gone = await connection.execute(
                delete(pushed)
                .where(table.digest == digest, table.client == client, table.expires_at > now)
                .returning(table.form, table.expires_at)
            )
            row = gone.first()
        return None if row is None else Pushed(digest, client, json.decode(row[0], type=dict[str, str]), row[1])

    async def end_client(self, client: str, now: float) -> int:
        mine = (families.c.client == client, families.c.ended_at == 0, families.c.expires_at > now)
        async with self._write() as connection:
            ended = await connection.execute(update(families).where(*mine).values(ended_at=now))
            # Not yet redeemed, they would begin new families after this.
            await connection.execute(
                update(devices)
                .where(
                    devices.c.client == client,
                    devices.c.status.in_([DeviceStatus.APPROVED.value, DeviceStatus.PENDING.value]),
                )
                .values(status=DeviceStatus.DENIED.value)
            )
            await connection.execute(delete(codes).where(codes.c.client == client, codes.c.family == ""))
            await connection.execute(delete(pushed).where(pushed.c.client == client))
        return int(ended.rowcount)
