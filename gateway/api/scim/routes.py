"""The table of SCIM's routes, under `/scim/v2/{org}`. What serves, refuses with 405 and asks
`tenants.roles.SCIM` is made from it, and so are the tests of isolation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from gateway.api.scim import discovery, groups, search, users
from gateway.api.scim.caller import ScimCaller
from gateway.api.scim.messages import ScimAnswer, ScimRequest
from tenants.roles import Operation

PREFIX: Final = "/scim/v2"

Handler = Callable[[ScimCaller, ScimRequest], Awaitable[ScimAnswer]]


class ScimRoute(Struct, frozen=True):
    """`path`: beneath the organization's; `{key}` is one id. `tenancy`: where the organization comes from,
    which is the path, whose token must be that organization's own. `handle` None: `/Bulk`, that runs the
    others."""

    method: str
    path: str
    operation: Operation
    handle: Handler | None
    tenancy: str = "path"
    keyed: bool = False


def _one(method: str, path: str, operation: Operation, handle: Handler | None) -> ScimRoute:
    return ScimRoute(method, path, operation, handle, keyed="{key}" in path)


ROUTES: Final = (
    _one("GET", "/Users", Operation.MEMBER_LIST, users.list_users),
    _one("POST", "/Users", Operation.MEMBER_CREATE, users.create_user),
    _one("POST", "/Users/.search", Operation.MEMBER_LIST, search.search_users),
    _one("GET", "/Users/{key}", Operation.MEMBER_READ, users.read_user),
    _one("PUT", "/Users/{key}", Operation.MEMBER_UPDATE, users.replace_user),
    _one("PATCH", "/Users/{key}", Operation.MEMBER_UPDATE, users.patch_user),
    _one("DELETE", "/Users/{key}", Operation.MEMBER_DELETE, users.delete_user),
    _one("GET", "/Groups", Operation.TEAM_LIST, groups.list_groups),
    _one("POST", "/Groups", Operation.TEAM_CREATE, groups.create_group),
    _one("POST", "/Groups/.search", Operation.TEAM_LIST, search.search_groups),
    _one("GET", "/Groups/{key}", Operation.TEAM_READ, groups.read_group),
    _one("PUT", "/Groups/{key}", Operation.TEAM_UPDATE, groups.replace_group),
    _one("PATCH", "/Groups/{key}", Operation.TEAM_UPDATE, groups.patch_group),
    _one("DELETE", "/Groups/{key}", Operation.TEAM_DELETE, groups.delete_group),
    _one("GET", "/", Operation.MEMBER_LIST, search.list_all),
    _one("POST", "/.search", Operation.MEMBER_LIST, search.search_all),
    _one("POST", "/Bulk", Operation.SCIM_READ, None),
    _one("GET", "/ServiceProviderConfig", Operation.SCIM_READ, discovery.read_config),
    _one("GET", "/Schemas", Operation.SCIM_READ, discovery.list_schemas),
    _one("GET", "/Schemas/{key}", Operation.SCIM_READ, discovery.read_schema),
    _one("GET", "/ResourceTypes", Operation.SCIM_READ, discovery.list_types),
    _one("GET", "/ResourceTypes/{key}", Operation.SCIM_READ, discovery.read_type),
    *(
        _one(method, "/Me", Operation.SCIM_READ, discovery.read_me)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    ),
)
"""An operation of `/Bulk` needs its own route's beside."""


class Found(Struct, frozen=True):
    """What leads to a path: the routes by method, and the id in it."""

    routes: dict[str, ScimRoute]
    key: str


def find_routes(path: str) -> Found | None:
    """`path`: beneath the organization's, '/' for itself. Case counts in ids only; a slash at the end does
    not."""
    parts = path.strip("/").split("/")
    lowered = "/" + parts[0].lower()
    rest = "/".join(parts[1:])
    fixed = {one.method: one for one in ROUTES if not one.keyed and one.path.lower() == path.rstrip("/").lower()}
    if not parts[0]:
        fixed = {one.method: one for one in ROUTES if one.path == "/"}
    if fixed:
        return Found(fixed, "")
    keyed = {one.method: one for one in ROUTES if one.keyed and one.path.lower() == f"{lowered}/{{key}}"}
    if keyed and rest and "/" not in rest:
        return Found(keyed, rest)
    return None
