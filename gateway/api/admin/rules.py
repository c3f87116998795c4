"""Policy rules: role × action × model, deny by default."""

from __future__ import annotations

from litestar import Router

from gateway.api.admin.bodies import RuleBody, to_item
from gateway.api.admin.caller import Caller
from gateway.api.admin.resource import Kind, collection
from tenants.models import OrgRule


def _make(caller: Caller, body: RuleBody, current: OrgRule | None) -> OrgRule:
    return to_item(OrgRule, body, current, org=caller.org)


def router() -> Router:
    return collection(
        Kind(
            noun="rule",
            model=OrgRule,
            body=RuleBody,
            filters=("name", "effect", "roles", "actions", "models"),
            repository=lambda store: store.rules,
            make=_make,
        )
    )
