"""What this server can do (RFC 7644 section 4): its configuration, its schemas, its kinds of resource."""

from __future__ import annotations

from typing import Final

from gateway.api.scim.bulk import MAX_OPERATIONS
from gateway.api.scim.caller import ScimCaller
from gateway.api.scim.messages import MAX_RESULTS, ScimAnswer, ScimRequest, listed
from gateway.scim.documents import Document
from gateway.scim.errors import ScimError, not_found
from gateway.scim.schemas import KINDS, SCHEMAS

CONFIG: Final = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
MAX_BODY: Final = 1_048_576
"""Bytes of a request's body."""


async def read_config(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    _refuse_filter(request)
    body = {
        "schemas": [CONFIG],
        "patch": {"supported": True},
        "bulk": {"supported": True, "maxOperations": MAX_OPERATIONS, "maxPayloadSize": MAX_BODY},
        "filter": {"supported": True, "maxResults": MAX_RESULTS},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "SCIM token",
                "description": "Authorization: Bearer orgate_scim_…, made with `orgate scim token create`",
                "primary": True,
            }
        ],
        "meta": _meta(caller, "ServiceProviderConfig", "ServiceProviderConfig"),
    }
    return ScimAnswer(200, body)


async def list_schemas(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    _refuse_filter(request)
    found = [{**one.told(), "meta": _meta(caller, "Schema", f"Schemas/{one.id}")} for one in SCHEMAS]
    return listed(len(found), 1, found)


async def read_schema(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    for one in SCHEMAS:
        if one.id.lower() == request.key.lower():
            return ScimAnswer(200, {**one.told(), "meta": _meta(caller, "Schema", f"Schemas/{one.id}")})
    raise not_found()


async def list_types(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    _refuse_filter(request)
    found = [
        {**kind.told(), "meta": _meta(caller, "ResourceType", f"ResourceTypes/{name}")}
        for name, kind in KINDS.items()
    ]
    return listed(len(found), 1, found)


async def read_type(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    kind = KINDS.get(request.key)
    if kind is None:
        raise not_found()
    return ScimAnswer(200, {**kind.told(), "meta": _meta(caller, "ResourceType", f"ResourceTypes/{kind.name}")})


async def read_me(caller: ScimCaller, request: ScimRequest) -> ScimAnswer:
    """Section 3.11: a token is nobody's."""
    raise ScimError(501, "A SCIM token belongs to no user: there is no /Me.")


def _meta(caller: ScimCaller, kind: str, path: str) -> Document:
    return {"resourceType": kind, "location": f"{caller.base}/{path}"}


def _refuse_filter(request: ScimRequest) -> None:
    """Section 4: what is discovered is not searched."""
    if "filter" in request.query:
        raise ScimError(403, "What the server can do is not filtered.")
