"""Model aliases: the names callers use."""

from __future__ import annotations

from litestar import Router

from gateway.api.admin.bodies import ModelBody, to_item
from gateway.api.admin.caller import Caller
from gateway.api.admin.resource import Kind, collection
from tenants.models import ModelAlias


def _make(caller: Caller, body: ModelBody, current: ModelAlias | None) -> ModelAlias:
    return to_item(ModelAlias, body, current, org=caller.org)


def router() -> Router:
    return collection(
        Kind(
            noun="model",
            model=ModelAlias,
            body=ModelBody,
            filters=("name", "upstream", "model", "tasks"),
            repository=lambda store: store.models,
            make=_make,
        )
    )
