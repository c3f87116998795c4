"""What a limit names stays: without it the limit would hold for nobody, and nobody would be told."""

from __future__ import annotations

from sqlalchemy import select

from tenants.ids import OrgId
from tenants.models import LimitScope
from tenants.sql import tables
from tenants.sql.database import Transaction
from tenants.store import InUseError

SHOWN = 5


async def refuse_named(transaction: Transaction, org: OrgId, scope: LimitScope, subject: str) -> None:
    """Raise `InUseError` when limits of `org` are for `subject`."""
    table = tables.limits
    naming = await transaction.connection.execute(
        select(table.c.name)
        .where(table.c.org == org, table.c.scope == scope.value, table.c.subject == subject)
        .order_by(table.c.name)
        .limit(SHOWN)
    )
    if names := ", ".join(naming.scalars()):
        raise InUseError(f"{scope.value} '{subject}' is named by the limits: {names}")
