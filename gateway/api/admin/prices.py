"""Prices of models: one table an organization, imported as a whole, every version kept."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, Router, get, put
from litestar.params import QueryParameter, RequestBody
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, etag, expected_version
from gateway.api.admin.problems import invalid
from gateway.api.admin.resource import After, Page, PageLimit
from gateway.api.admin.routing import operation
from gateway.errors import ForbiddenError
from policies.facts import Role
from tenants.ids import PLATFORM
from tenants.models import LimitUnit, Price
from tenants.prices import PriceImport, PriceTable
from tenants.roles import Operation

Version = Annotated[int, QueryParameter(ge=0, description="Which import; 0: the one in force.")]


class PriceBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`model` is the provider's name. `input`, `output`: nanodollars per million tokens."""

    model: str
    input: int
    output: int


class PricesBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole table: a model that is not in it has no price any more."""

    prices: tuple[PriceBody, ...]


@get("/", **operation(Operation.PRICE_READ, "getPrices", query=True, summary="Read the prices"))
async def read(caller: CallerDependency, version: Version = 0) -> Response[PriceTable]:
    """The table in force, or as it was imported once. Before the first import it is empty, and of version 0."""
    table = await caller.store.prices.table(version)
    return Response(table, headers={"ETag": etag(table.imported.version)})


@put(
    "/", **operation(Operation.PRICE_IMPORT, "importPrices", body=True, conditional=True, summary="Import prices")
)
async def replace(
    caller: CallerDependency, data: RequestBody[PricesBody], if_match: IfMatch = ""
) -> Response[PriceImport]:
    """Replaces the whole table, as its next version. One that says what is in force already changes nothing.

    While the platform limits money, an organization's prices are its operators' to import: whoever sets a price
    decides what is counted against such a limit."""
    if caller.org != PLATFORM and Role.OPERATOR not in caller.roles and _platform_limits_money(caller):
        await caller.store.note("admin.refuse", Operation.PRICE_IMPORT, caller.actor, {"reason": "platform limit"})
        raise ForbiddenError(
            "The platform limits what organizations spend: ask its operators to import these prices.",
            rule=Operation.PRICE_IMPORT,
        )
    prices = [Price(caller.org, body.model, body.input, body.output) for body in data.prices]
    standing = (await caller.store.prices.table()).imported.version
    expected = expected_version(if_match, standing)
    made = await caller.store.prices.put(prices, expected, caller.actor)
    await caller.live()
    return Response(made, headers={"ETag": etag(made.version)})


@get(
    "/versions",
    **operation(Operation.PRICE_LIST, "listPriceVersions", query=True, summary="List imports of prices"),
)
async def versions(caller: CallerDependency, after: After = "", limit: PageLimit = 100) -> Page[PriceImport]:
    """The newest first: who, when, how many."""
    if after and not (after.isascii() and after.isdigit() and len(after) < 19 and int(after) > 0):
        raise invalid(("after", "is no cursor"))
    found = await caller.store.prices.versions(before=int(after or 0), limit=limit)
    more = len(found) == limit and found[-1].version > 1
    return Page(found, str(found[-1].version) if more else "")


def _platform_limits_money(caller: Caller) -> bool:
    platform = caller.deps.streams.snapshot.tenants.get(PLATFORM)
    return platform is not None and any(limit.unit is LimitUnit.SPEND for limit in platform.limits)


def router() -> Router:
    handlers: list[Any] = [read, replace, versions]
    return Router(path="/orgs/{org:str}/prices", tags=["Prices"], route_handlers=handlers)
