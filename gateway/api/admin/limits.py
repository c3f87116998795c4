"""Limits: how much of what, for whom; how much of it is used; and what it would have refused."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Router
from msgspec import structs

from gateway.api.admin.bodies import LimitBody, to_item
from gateway.api.admin.caller import Caller
from gateway.api.admin.problems import invalid
from gateway.api.admin.resource import Kind, collection
from gateway.api.admin.usage import below_limits
from gateway.authn.statickeys import CLIENT as PERSONAL_TOKENS
from gateway.limits.refusal import OF_PLATFORM
from gateway.oauth.clients import BUILT_IN, Plane
from tenants.clients import MOST_CLIENTS
from tenants.ids import PLATFORM, is_service_id
from tenants.models import Limit, LimitScope, LimitUnit, ModelAlias
from tenants.overlap import remarks
from tenants.store import NotFoundError
from tenants.validate import validate


def make(caller: Caller, body: LimitBody, current: Limit | None) -> Limit:
    """The limit that `body` describes."""
    if body.period_s is None:
        body = structs.replace(body, period_s=0 if body.unit is LimitUnit.CONCURRENCY or body.window else 60)
    return to_item(Limit, body, current, org=caller.org)


async def known(caller: Caller, item: Limit) -> None:
    """Raises 422 for a `subject` that names nobody and nothing: a limit that is misspelt would limit nothing."""
    if not item.subject or validate(item):  # what is no name at all is told by the rules, in their words
        return
    noun = "organization" if item.scope is LimitScope.ORG else item.scope.value
    try:
        match item.scope:
            case LimitScope.ORG if caller.org == PLATFORM:
                await caller.deps.store.orgs.get(item.subject)
            case LimitScope.MODEL:
                await caller.store.models.get(item.subject)
            case LimitScope.MEMBER if is_service_id(item.subject):
                await caller.store.services.get(item.subject)
            case LimitScope.MEMBER:
                await caller.store.members.get(item.subject)
            case LimitScope.TEAM:
                await caller.store.teams.get(item.subject)
            case LimitScope.UPSTREAM if caller.org != PLATFORM:
                await caller.store.upstreams.get(item.subject)
            case _:
                return
    except NotFoundError:
        raise invalid(("subject", f"unknown {noun} '{item.subject}'")) from None


async def _replacing(caller: Caller, was: Limit, item: Limit) -> None:
    # What it names may be gone since: it can be changed all the same.
    if (was.scope, was.subject) != (item.scope, item.subject):
        await known(caller, item)


async def _remarks(caller: Caller, item: Limit) -> Sequence[str]:
    others: list[Limit] = []
    after = ""
    while True:
        found, after = await caller.store.limits.page(after=after, limit=500)
        others += found
        if not after:
            break
    mine = remarks(item, others)
    theirs = (said for said in remarks(item, _of_platform(caller)) if said.startswith(f"limit '{item.name}'"))
    return [
        *mine,
        *theirs,
        *_unpriced(caller, item),
        *await _unregistered(caller, item),
        *await _own_prices(caller, item),
    ]


def _of_platform(caller: Caller) -> Sequence[Limit]:
    """What the platform's operators allow this organization, as if it were limits of its own."""
    tenants = caller.deps.streams.snapshot.tenants
    tenant, platform = tenants.get(caller.org), tenants.get(PLATFORM)
    if tenant is None or platform is None or caller.org == PLATFORM:
        return ()
    weight = tenant.org.weight
    return [
        structs.replace(
            one, name=OF_PLATFORM + one.name, subject="", amount=one.amount * weight, burst=one.burst * weight
        )
        for one in platform.limits
        if one.scope is LimitScope.ORG and one.subject in ("", caller.org)
    ]


async def _unregistered(caller: Caller, item: Limit) -> Sequence[str]:
    """Clients come with releases, so one that is not known may be meant for the next."""
    if item.scope is not LimitScope.CLIENT or not item.subject:
        return ()
    own, _ = await caller.store.clients.page(limit=MOST_CLIENTS)
    asking = [PERSONAL_TOKENS, *(client.id for client in BUILT_IN.values() if Plane.DATA in client.planes)]
    asking += [client.client_id for client in own if Plane.DATA in client.planes]
    if item.subject in asking:
        return ()
    asking.sort()
    return (f"nobody asks models with client '{item.subject}': those there are are {', '.join(asking)}",)


def _unpriced(caller: Caller, item: Limit) -> Sequence[str]:
    """A limit of money stops what has no price: whoever sets it should hear of it before their callers do."""
    tenants = caller.deps.streams.snapshot.tenants
    tenant, platform = tenants.get(caller.org), tenants.get(PLATFORM)
    if item.unit is not LimitUnit.SPEND or tenant is None or caller.org == PLATFORM:
        return ()
    priced = {*tenant.prices, *(platform.prices if platform else ())}
    names = sorted(m.name for m in tenant.models.values() if m.model not in priced and _is_about(item, m))
    if not names:
        return ()
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    shown = ", ".join(f"'{name}'" for name in names[:5]) + more
    return (f"no price is known for what {shown} leads to: it is answered 503 until there is one",)


async def _own_prices(caller: Caller, item: Limit) -> Sequence[str]:
    """The platform's limit of money counts by prices that its operators never saw: perhaps of nothing at all."""
    if item.unit is not LimitUnit.SPEND or caller.org != PLATFORM:
        return ()
    remarked = []
    for org, tenant in sorted(caller.deps.streams.snapshot.tenants.items()):
        other = item.scope is LimitScope.ORG and item.subject not in ("", org)
        if org == PLATFORM or not tenant.prices or other:
            continue
        if (await caller.deps.store.for_org(org).prices.table()).imported.by_org != PLATFORM:
            remarked.append(f"'{org}' set its prices itself: look at them with `orgate price list --org {org}`")
    return remarked


def _is_about(item: Limit, model: ModelAlias) -> bool:
    match item.scope:
        case LimitScope.MODEL:
            return item.subject in ("", model.name)
        case LimitScope.UPSTREAM:
            return item.subject in ("", model.upstream)
        case _:
            return True


def router() -> Router:
    return collection(
        Kind(
            noun="limit",
            model=Limit,
            body=LimitBody,
            filters=("name", "scope", "unit", "subject"),
            repository=lambda store: store.limits,
            make=make,
            creating=known,
            replacing=_replacing,
            remarks=_remarks,
        ),
        *below_limits(),
    )
