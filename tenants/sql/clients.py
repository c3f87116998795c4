"""Registered clients and their secrets' digests, in SQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update

from tenants.clients import MOST_CLIENTS, SECRET_METHODS, ClientSecret, OAuthClient
from tenants.models import LimitScope, State
from tenants.revocations import revoke_tokens
from tenants.sql import rows
from tenants.sql.client_tables import client_secrets, clients, services
from tenants.sql.database import Transaction, uninterrupted
from tenants.sql.naming import refuse_named
from tenants.sql.repository import Kind, ScopedRepository
from tenants.store import Actor, InvalidItemError, InvalidReferenceError, TooManyError


class Clients(ScopedRepository[OAuthClient]):
    """Not served to the data plane: a token says which client it was given to."""

    kind = Kind("client", OAuthClient, clients)
    served = False

    @uninterrupted
    async def secrets(self, name: str) -> tuple[ClientSecret, ...]:
        await self.get(name)
        table = client_secrets.c
        now = int(self._database.clock())
        async with self._database.read() as connection:
            found = await connection.execute(
                select(client_secrets)
                .where(*self._of(name), or_(table.expires_at == 0, table.expires_at > now))
                .order_by(table.created_at.desc(), table.expires_at, table.digest)
            )
            return tuple(rows.decode(ClientSecret, row) for row in found.mappings())

    @uninterrupted
    async def add_secret(self, name: str, digest: str, overlap_s: int, by: Actor) -> ClientSecret:
        table = client_secrets.c
        async with self._database.write() as transaction:
            client = await self._find(transaction.connection, self._key == name, name)
            if client.auth_method not in SECRET_METHODS:
                fault = f"is '{client.auth_method}': such a client has no secret"
                raise InvalidItemError([("auth_method", fault)])
            ends = transaction.at + overlap_s
            connection = transaction.connection
            # The one in force gives way; an older one that was giving way already is gone at once.
            await connection.execute(delete(client_secrets).where(*self._of(name), table.expires_at != 0))
            if overlap_s:
                await connection.execute(update(client_secrets).where(*self._of(name)).values(expires_at=ends))
            else:
                await connection.execute(delete(client_secrets).where(*self._of(name)))
            made = ClientSecret(self._org, name, digest, transaction.at, 0)
            await connection.execute(insert(client_secrets).values(rows.encode(made)))
            await transaction.queue(self._org, "client.secret", name, by, {"overlap_s": overlap_s})
        return made

    @uninterrupted
    async def drop_secrets(self, name: str, by: Actor) -> int:
        table = client_secrets.c
        async with self._database.write() as transaction:
            await self._find(transaction.connection, self._key == name, name)
            gone = await transaction.connection.execute(
                delete(client_secrets).where(*self._of(name), table.expires_at != 0)
            )
            await transaction.queue(self._org, "client.secret", name, by, {"ended": gone.rowcount})
        return int(gone.rowcount)

    async def _admit(self, transaction: Transaction, old: OAuthClient | None, new: OAuthClient) -> OAuthClient:
        connection = transaction.connection
        if old is not None and _takes_away(old, new):
            await transaction.revoke(revoke_tokens(self._org, transaction.now, member=new.client_id))
        if old is None:
            count = select(func.count()).select_from(clients).where(*self._mine())
            if int((await connection.execute(count)).scalar_one()) >= MOST_CLIENTS:
                raise TooManyError(f"an organization has {MOST_CLIENTS} clients at most: delete one first")
        elif new.auth_method not in SECRET_METHODS:
            # A client that is public now, or proves itself with a key, must not come back to an old secret.
            await connection.execute(delete(client_secrets).where(*self._of(new.name)))
        if new.service:
            found = await connection.execute(
                select(services.c.id).where(services.c.org == self._org, services.c.id == new.service)
            )
            if found.first() is None:
                raise InvalidReferenceError(f"no service '{new.service}'")
        return new

    async def _release(self, transaction: Transaction, old: OAuthClient) -> None:
        await refuse_named(transaction, self._org, LimitScope.CLIENT, old.client_id)
        await transaction.revoke(revoke_tokens(self._org, transaction.now, member=old.client_id))

    def _of(self, name: str) -> tuple[ColumnElement[bool], ...]:
        return (client_secrets.c.org == self._org, client_secrets.c.client == name)


def _takes_away(old: OAuthClient, new: OAuthClient) -> bool:
    """Whether tokens that the client got say more than it may have from now on."""
    return (
        bool(set(old.planes) - set(new.planes) or set(old.grant_types) - set(new.grant_types))
        or old.service != new.service
        or (old.state is State.ACTIVE and new.state is not State.ACTIVE)
    )
