"""Queries (RFC 7644 section 3.4.2): what the database finds quickly, and the rest of the filter over what it
found."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from msgspec import structs

from gateway.api.scim.caller import ScimCaller
from gateway.api.scim.messages import ScimAnswer, ScimRequest, Search, listed, search_in_body, search_of
from gateway.scim.documents import Document
from gateway.scim.errors import too_many
from gateway.scim.filter import All, Compare, Filter, ValuePath, compared, mentions, parse_filter
from gateway.scim.groups import group_document
from gateway.scim.matching import matches
from gateway.scim.schemas import GROUP, USER, ResourceKind
from gateway.scim.users import user_document
from tenants.roles import Operation
from tenants.scim import ScimGroup, UserLookup

BATCH: Final = 500
MAX_SCANNED: Final = 20_000
"""Resources that one filter may have to be held against. A filter by id, userName, externalId or an address
is looked up, however many there are."""


async def search_users(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    return await find(caller, search_in_body(request, USER), USER)


async def search_groups(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    return await find(caller, search_in_body(request, GROUP), GROUP)


async def search_all(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    caller.require(Operation.TEAM_LIST)
    return await find(caller, search_in_body(request, USER, GROUP), USER, GROUP)


async def list_all(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """The server's root: users and groups."""
    caller.require(Operation.TEAM_LIST)
    return await find(caller, search_of(request, USER, GROUP), USER, GROUP)


async def find(caller: ScimCaller, search: Search, *kinds: ResourceKind) -> ScimAnswer:
    """One page over the resources of `kinds`, those of one kind after those of the other, each by id."""
    wanted = parse_filter(search.filter, *kinds) if search.filter.strip() else None
    total = 0
    found: list[Document] = []
    for kind in kinds:
        skip = max(search.start - 1 - total, 0)
        take = search.count - len(found)
        query = _users if kind is USER else _groups
        count, documents = await query(caller, search, wanted, skip, take)
        total += count
        found += [search.projection.of(one, kind) for one in documents]
    return listed(total, search.start, found)


async def _users(
    caller: ScimCaller, search: Search, wanted: Filter | None, skip: int, take: int
) -> tuple[int, list[Document]]:
    book = caller.store.scim
    if wanted is None:
        total = await book.count_users()
        page = await book.users(UserLookup(), offset=skip, limit=take) if take and skip < total else ()
        return total, [user_document(user, caller.base) for user in page]
    total = 0
    found: list[Document] = []
    async for document in _candidates(caller, lookup_of(wanted)):
        if matches(wanted, document, USER):
            if skip <= total < skip + take:
                found.append(document)
            total += 1
    return total, found


async def _candidates(caller: ScimCaller, lookup: UserLookup) -> AsyncIterator[Document]:
    after, seen = "", 0
    while True:
        batch = await caller.store.scim.users(lookup, after=after, limit=BATCH)
        for user in batch:
            yield user_document(user, caller.base)
        seen += len(batch)
        if len(batch) < BATCH:
            return
        if seen >= MAX_SCANNED:
            raise too_many(
                f"The filter would have to be held against more than {MAX_SCANNED} users: name a userName, an "
                "externalId, an id or an e-mail address in it."
            )
        after = batch[-1].member.id


async def _groups(
    caller: ScimCaller, search: Search, wanted: Filter | None, skip: int, take: int
) -> tuple[int, list[Document]]:
    groups = await caller.store.scim.groups()
    if wanted is not None:
        if len(groups) > MAX_SCANNED:
            raise too_many(f"There are more than {MAX_SCANNED} groups to hold the filter against.")
        if mentions(wanted, "members"):
            groups = await _with_members(caller, groups)
        groups = tuple(one for one in groups if matches(wanted, group_document(one, caller.base), GROUP))
    page = groups[skip : skip + take] if take else ()
    if search.projection.wants("members"):
        page = await _with_members(caller, page)
    return len(groups), [group_document(one, caller.base) for one in page]


async def _with_members(caller: ScimCaller, groups: tuple[ScimGroup, ...]) -> tuple[ScimGroup, ...]:
    members = await caller.store.scim.members_of([one.team.name for one in groups])
    return tuple(structs.replace(one, members=members.get(one.team.name, ())) for one in groups)


def lookup_of(wanted: Filter) -> UserLookup:
    """What of a filter the database can find: equalities that must all hold."""
    told: dict[str, str | bool] = {}
    for one in _equalities(wanted):
        name = f"{one.path.name}.{one.path.sub}".lower().rstrip(".")
        field = {
            "id": "id",
            "username": "user_name",
            "externalid": "external_id",
            "emails": "email",
            "emails.value": "email",
            "active": "active",
        }.get(name)
        if field is not None and one.value not in (None, "") and not one.path.urn.endswith("enterprise:2.0:User"):
            told.setdefault(field, one.value)  # type: ignore[arg-type]  # the parser has seen to what it is
    return UserLookup(**told)  # type: ignore[arg-type]


def _equalities(wanted: Filter) -> list[Compare]:
    found = [one for one in compared(wanted) if one.operator == "eq"]
    for part in wanted.parts if isinstance(wanted, All) else (wanted,):
        if isinstance(part, ValuePath) and part.path.name.lower() == "emails":
            within = [one for one in compared(part.inner) if one.operator == "eq"]
            found += [structs.replace(one, path=part.path) for one in within if one.path.name.lower() == "value"]
    return found
