"""Trust in outside tokens, in SQL."""

from __future__ import annotations

from sqlalchemy import func, select

from tenants.sql.client_tables import services
from tenants.sql.database import Transaction
from tenants.sql.repository import Kind, ScopedRepository
from tenants.sql.trust_tables import service_trusts
from tenants.store import InUseError, InvalidReferenceError
from tenants.trust import MOST_TRUSTS, ServiceTrust


class Trusts(ScopedRepository[ServiceTrust]):
    """Not served to the data plane: it is asked when a token is made."""

    kind = Kind("trust", ServiceTrust, service_trusts)
    served = False

    async def _admit(self, transaction: Transaction, old: ServiceTrust | None, new: ServiceTrust) -> ServiceTrust:
        run = transaction.connection.execute
        named = select(services.c.id).where(services.c.org == self._org, services.c.id == new.service)
        if (await run(named)).first() is None:
            raise InvalidReferenceError(f"no service account '{new.service}'")
        if old is None:
            count = select(func.count()).select_from(service_trusts).where(*self._mine())
            if int((await run(count)).scalar_one()) >= MOST_TRUSTS:
                raise InUseError(f"an organization has {MOST_TRUSTS} trusts at most: delete one first")
        return new
