"""What an organization has: one repository a kind, with the rules only that kind knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs
from sqlalchemy import delete, func, select, update

from tenants.idprules import top_role
from tenants.ids import MemberId
from tenants.manylimits import MOST_AT_ONCE, MOST_LIMITS, TEAMS, at_once
from tenants.models import Limit, LimitScope, Member, ModelAlias, OrgRule, State, Upstream
from tenants.revocations import revoke_tokens
from tenants.sql import rows, statickeys, tables
from tenants.sql.database import Transaction, uninterrupted
from tenants.sql.naming import refuse_named
from tenants.sql.repository import Kind, ScopedRepository
from tenants.store import AlreadyExistsError, InUseError, InvalidReferenceError, TooManyError


class Members(ScopedRepository[Member]):
    """Members are not served to the data plane; what is taken from one reaches it as a revocation."""

    kind = Kind("member", Member, tables.members, "id")
    served = False

    @uninterrupted
    async def by_email(self, email: str) -> Member:
        async with self._database.read() as connection:
            wanted = tables.members.c.email_key == rows.email_key(email)
            return await self._find(connection, wanted, email)

    @uninterrupted
    async def names(self, members: Sequence[MemberId]) -> Mapping[MemberId, str]:
        table = tables.members.c
        async with self._database.read() as connection:
            found = await connection.execute(
                select(table.id, table.name).where(*self._mine(table.id.in_(members)))
            )
            return {MemberId(row.id): row.name for row in found}

    async def _admit(self, transaction: Transaction, old: Member | None, new: Member) -> Member:
        taken = tables.members.c.email_key == rows.email_key(new.email)
        if await self._exists(transaction, taken, tables.members.c.id != new.id):
            raise AlreadyExistsError("another member has this e-mail address")
        if old is None:
            return structs.replace(new, not_before=0)
        suspended = old.state is State.ACTIVE and new.state is not State.ACTIVE
        top = top_role(self._org)
        # An admin may hold a key of somebody who becomes an owner, and only owners make keys of owners.
        if suspended or (top in new.roles and top not in old.roles):
            await statickeys.end(transaction, self._org, new.id)
        elif set(old.roles) != set(new.roles):
            await statickeys.changed(transaction, self._org, new.id)
        # An access token says what its member may do until it ends: what is taken away ends it now.
        if set(old.roles) - set(new.roles) or suspended:
            revocation = revoke_tokens(self._org, transaction.now, member=new.id)
            await transaction.revoke(revocation)
            return structs.replace(new, not_before=max(old.not_before, revocation.not_before))
        return structs.replace(new, not_before=old.not_before)

    async def _release(self, transaction: Transaction, old: Member) -> None:
        await refuse_named(transaction, self._org, LimitScope.MEMBER, old.id)
        await statickeys.end(transaction, self._org, old.id)
        await statickeys.forget(transaction, self._org, old.id)
        await transaction.revoke(revoke_tokens(self._org, transaction.now, member=old.id))

    async def bar(self, transaction: Transaction, key: str, not_before: int) -> None:
        """Raise the member's `not_before`, as part of `transaction`. Errors: `NotFoundError`."""
        old = await self._find(transaction.connection, self._key == key, key)
        await transaction.connection.execute(
            update(self._table)
            .where(*self._mine(self._key == key))
            .values(not_before=max(old.not_before, not_before), version=old.version + 1)
        )


class Upstreams(ScopedRepository[Upstream]):
    kind = Kind("upstream", Upstream, tables.upstreams)

    async def _admit(self, transaction: Transaction, old: Upstream | None, new: Upstream) -> Upstream:
        # Workers read a key again when its version rises: one that falls back would keep an old key in use.
        return structs.replace(
            new,
            key_version=max(old.key_version if old else 0, new.key_version),
            client_cert_version=max(old.client_cert_version if old else 0, new.client_cert_version),
        )

    async def _release(self, transaction: Transaction, old: Upstream) -> None:
        table = tables.models
        naming = await transaction.connection.execute(
            select(table.c.name)
            .where(table.c.org == self._org, table.c.upstream == old.name)
            .order_by(table.c.name)
            .limit(5)
        )
        names = ", ".join(naming.scalars())
        if names:
            raise InUseError(f"upstream '{old.name}' is named by the models: {names}")
        # A schedule left behind would mint keys for whoever makes the next upstream of this name.
        known = tables.upstream_keys.c
        await transaction.connection.execute(
            delete(tables.upstream_keys).where(known.org == self._org, known.name == old.name)
        )


class Models(ScopedRepository[ModelAlias]):
    kind = Kind("model", ModelAlias, tables.models)

    async def _admit(self, transaction: Transaction, old: ModelAlias | None, new: ModelAlias) -> ModelAlias:
        table = tables.upstreams
        found = await transaction.connection.execute(
            select(table.c.name).where(table.c.org == self._org, table.c.name == new.upstream)
        )
        if found.first() is None:
            raise InvalidReferenceError(f"no upstream '{new.upstream}'")
        return new


class Limits(ScopedRepository[Limit]):
    kind = Kind("limit", Limit, tables.limits)

    async def _admit(self, transaction: Transaction, old: Limit | None, new: Limit) -> Limit:
        if old is None or (old.scope, old.subject) != (new.scope, new.subject):
            await self._bounded(transaction, old, new)
        return new

    async def _bounded(self, transaction: Transaction, old: Limit | None, new: Limit) -> None:
        # Writers come one after the other, so that what is counted here is what stands when this is written.
        table = tables.limits.c
        found = await transaction.connection.execute(
            select(table.scope, table.subject, func.count())
            .where(*self._mine(table.name != new.name))
            .group_by(table.scope, table.subject)
        )
        others = [(LimitScope(scope), str(subject), int(count)) for scope, subject, count in found]
        if old is None and sum(count for *_, count in others) >= MOST_LIMITS:
            raise TooManyError(f"an organization has {MOST_LIMITS} limits at most: delete one first")
        before = at_once(others if old is None else [*others, (old.scope, old.subject, 1)])
        if before < (after := at_once([*others, (new.scope, new.subject, 1)])) > MOST_AT_ONCE:
            raise TooManyError(
                f"at most {MOST_AT_ONCE} limits may apply to one request, and with this one {after} would (one of"
                f" each team counts as {TEAMS}): delete one first, or give this one another subject than theirs"
            )


class Rules(ScopedRepository[OrgRule]):
    kind = Kind("rule", OrgRule, tables.rules)
