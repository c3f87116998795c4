"""Limits: how much of what, for whom."""

from __future__ import annotations

from litestar import Router
from msgspec import structs

from gateway.api.admin.bodies import LimitBody, to_item
from gateway.api.admin.caller import Caller
from gateway.api.admin.resource import Kind, collection
from tenants.models import Limit, LimitUnit


def _make(caller: Caller, body: LimitBody, current: Limit | None) -> Limit:
    if body.period_s is None:
        body = structs.replace(body, period_s=0 if body.unit is LimitUnit.CONCURRENCY or body.window else 60)
    return to_item(Limit, body, current, org=caller.org)


def router() -> Router:
    return collection(
        Kind(
            noun="limit",
            model=Limit,
            body=LimitBody,
            filters=("name", "scope", "unit", "subject"),
            repository=lambda store: store.limits,
            make=_make,
        )
    )
