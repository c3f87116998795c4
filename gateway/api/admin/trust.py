"""Trust in outside tokens: which of a CI system's jobs are a service account."""

from __future__ import annotations

from litestar import Router
from msgspec import Struct

from gateway.api.admin.bodies import to_item
from gateway.api.admin.caller import Caller
from gateway.api.admin.resource import Kind, collection
from tenants.clients import Plane
from tenants.trust import ServiceTrust


class TrustBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`service`: the id of the account that a job then is. `audience`: the one that its tokens have, to the
    letter. `claims`: each `name=pattern`, and all must hold. `planes`: what it gets access tokens for."""

    name: str
    service: str
    issuer: str
    audience: str
    claims: tuple[str, ...]
    planes: tuple[Plane, ...] = (Plane.DATA,)
    ca_pem: str = ""
    org: str | None = None
    created_at: int | None = None
    version: int | None = None


def _make(caller: Caller, body: TrustBody, current: ServiceTrust | None) -> ServiceTrust:
    return to_item(ServiceTrust, body, current, org=caller.org)


def router() -> Router:
    return collection(
        Kind(
            noun="trust",
            model=ServiceTrust,
            body=TrustBody,
            filters=("name", "service", "issuer"),
            repository=lambda store: store.trusts,
            make=_make,
        )
    )
