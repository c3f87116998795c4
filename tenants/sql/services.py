"""Service accounts in SQL."""

from __future__ import annotations

from typing import Final

from msgspec import structs
from sqlalchemy import func, select, update

from tenants.models import LimitScope, Service, State
from tenants.revocations import revoke_tokens
from tenants.sql import statickeys
from tenants.sql.client_tables import clients, services
from tenants.sql.database import Transaction
from tenants.sql.naming import SHOWN, refuse_named
from tenants.sql.repository import Kind, ScopedRepository
from tenants.store import AlreadyExistsError, InUseError

MOST: Final = 1_000
"""Of one organization."""


class Services(ScopedRepository[Service]):
    """Not served to the data plane; what is taken from one reaches it as a revocation, as with members."""

    kind = Kind("service", Service, services, "id")
    served = False

    async def _admit(self, transaction: Transaction, old: Service | None, new: Service) -> Service:
        if await self._exists(transaction, services.c.name == new.name, services.c.id != new.id):
            raise AlreadyExistsError(f"service '{new.name}' exists already")
        if old is None:
            count = select(func.count()).select_from(services).where(*self._mine())
            if int((await transaction.connection.execute(count)).scalar_one()) >= MOST:
                raise InUseError(f"an organization has {MOST} service accounts at most: delete one first")
            return structs.replace(new, not_before=0)
        if old.state is State.ACTIVE and new.state is not State.ACTIVE:
            await statickeys.end(transaction, self._org, new.id)
        elif set(old.roles) != set(new.roles):
            await statickeys.changed(transaction, self._org, new.id)
        if set(old.roles) - set(new.roles) or (old.state is State.ACTIVE and new.state is not State.ACTIVE):
            revocation = revoke_tokens(self._org, transaction.now, member=new.id)
            await transaction.revoke(revocation)
            return structs.replace(new, not_before=max(old.not_before, revocation.not_before))
        return structs.replace(new, not_before=old.not_before)

    async def _release(self, transaction: Transaction, old: Service) -> None:
        naming = await transaction.connection.execute(
            select(clients.c.name)
            .where(clients.c.org == self._org, clients.c.service == old.id)
            .order_by(clients.c.name)
            .limit(SHOWN)
        )
        if names := ", ".join(naming.scalars()):
            raise InUseError(f"service '{old.name}' is named by the clients: {names}")
        await refuse_named(transaction, self._org, LimitScope.MEMBER, old.id)
        await statickeys.end(transaction, self._org, old.id)
        await transaction.revoke(revoke_tokens(self._org, transaction.now, member=old.id))

    async def bar(self, transaction: Transaction, key: str, not_before: int) -> None:
        """Raise the account's `not_before`, as part of `transaction`. Errors: `NotFoundError`."""
        old = await self._find(transaction.connection, self._key == key, key)
        await transaction.connection.execute(
            update(services)
            .where(*self._mine(self._key == key))
            .values(not_before=max(old.not_before, not_before), version=old.version + 1)
        )
