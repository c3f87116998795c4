"""`/Groups`: the organization's teams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import structs

from gateway.api.scim.caller import ScimCaller
from gateway.api.scim.messages import ScimAnswer, ScimRequest, precondition, search_of, unchanged
from gateway.api.scim.search import find
from gateway.scim.documents import Document, read
from gateway.scim.errors import ScimError, not_found, uniqueness
from gateway.scim.groups import (
    described_group,
    group_document,
    group_etag,
    group_id,
    parse_group_id,
    team_name,
    writable_group,
)
from gateway.scim.patch import patched
from gateway.scim.schemas import GROUP
from tenants.models import Team
from tenants.scim import GroupChange, ScimGroup
from tenants.store import AlreadyExistsError, VersionMismatchError

ATTEMPTS: Final = 5


async def list_groups(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    return await find(caller, search_of(request, GROUP), GROUP)


async def read_group(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    group = await _group(caller, request)
    if unchanged(request, group_etag(group)):
        return ScimAnswer(304, headers={"etag": group_etag(group)})
    return _answer(caller, request, group)


async def create_group(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """A team named after the group, with who is in it."""
    told = described_group(read(GROUP, request.body))
    async with caller.naming:
        groups = await caller.store.scim.groups()
        _refuse_taken(told.display_name, groups)
        name = team_name(told.display_name, (one.team.name for one in groups))
        team = Team(org=caller.org, name=name, title=told.display_name)
        change = GroupChange(team, told.external_id, join=told.members)
        roles = caller.settings.roles_of(told.display_name)
        try:
            made = await caller.store.scim.create_group(change, roles, caller.actor)
        except AlreadyExistsError as error:
            raise uniqueness(f"It cannot be created: {error}.") from None
    return _answer(caller, request, made, status=201)


async def replace_group(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    document = read(GROUP, request.body)
    return _answer(caller, request, await _write(caller, request, lambda _: document))


async def patch_group(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """Answered without a body unless attributes are asked for (section 3.5.2): a group may have thousands in
    it."""

    def change(group: ScimGroup) -> Document:
        return patched(GROUP, writable_group(group, caller.base), request.body)

    made = await _write(caller, request, change)
    if request.projection(GROUP).asked:
        return _answer(caller, request, made)
    return ScimAnswer(204, headers={"etag": group_etag(made)})


async def delete_group(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """Its members stay; roles that it brought go."""
    group = await _group(caller, request)
    precondition(request, group_etag(group))
    lost = await caller.store.scim.delete_group(group.team, caller.settings, caller.actor)
    await caller.shut_out(lost)
    return ScimAnswer(204)


async def _write(caller: ScimCaller, request: ScimRequest, change: Callable[[ScimGroup], Document]) -> ScimGroup:
    for _ in range(ATTEMPTS):
        group = await _group(caller, request)
        precondition(request, group_etag(group))
        try:
            made, lost = await _replace(caller, group, change(group))
        except VersionMismatchError:
            continue
        await caller.shut_out(lost)
        return made
    raise ScimError(503, "The group keeps being changed by somebody else; try again.", retry_after_s=1)


async def _replace(caller: ScimCaller, group: ScimGroup, after: Document) -> tuple[ScimGroup, frozenset[str]]:
    told = described_group(after)
    held = set(group.members or ())
    change = GroupChange(
        structs.replace(group.team, title=told.display_name)
        if told.display_name != group.display_name
        else group.team,
        told.external_id,
        join=tuple(one for one in told.members if one not in held),
        leave=tuple(one for one in group.members or () if one not in set(told.members)),
    )
    if change.team == group.team and change.external_id == group.external_id and not change.join + change.leave:
        return group, frozenset()
    async with caller.naming:
        if change.team != group.team:
            others = await caller.store.scim.groups()
            _refuse_taken(told.display_name, tuple(one for one in others if one.team.name != group.team.name))
        return await caller.store.scim.replace_group(change, group.team.version, caller.settings, caller.actor)


def _refuse_taken(display_name: str, groups: tuple[ScimGroup, ...]) -> None:
    wanted = display_name.casefold()
    if any(one.display_name.casefold() == wanted for one in groups):
        raise uniqueness("Another group has this displayName.")


async def _group(caller: ScimCaller, request: ScimRequest) -> ScimGroup:
    found = parse_group_id(request.key)
    if found is None:
        raise not_found()
    group = await caller.store.scim.group(found[0])
    if group.team.created_at != found[1] or group_id(group.team) != request.key:
        raise not_found()
    return group


def _answer(caller: ScimCaller, request: ScimRequest, group: ScimGroup, *, status: int = 200) -> ScimAnswer:
    document = group_document(group, caller.base)
    headers = {"etag": group_etag(group), "location": str(document["meta"]["location"])}
    return ScimAnswer(status, request.projection(GROUP).of(document, GROUP), headers)
