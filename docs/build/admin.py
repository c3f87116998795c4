"""admin-api.json, admin-api.md and roles.md: the admin application's routes beside the table of roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from litestar.routes import HTTPRoute

from docs.build.markdown import code, codes, page, table
from gateway.api.admin.app import admin_app
from gateway.api.admin.caller import OPERATION
from gateway.api.admin.dependencies import AdminDependencies
from policies.facts import Role
from tenants.roles import ALLOWED, LEAD, LEADS, SCIM, Operation

_RULES = """\
- Send `Authorization: Bearer <access token>` whose audience is `<server.url>/admin`: `orgate token --admin`.
- Errors are problems ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), `application/problem+json`, with
  `request_id` and, where fields are at fault, `errors: [{field, message}]`.
- A thing's `ETag` is its version. `PUT` and `DELETE` of a collection's member send it back as `If-Match`: 428
  without it, 412 when somebody else was faster.
- Lists: `limit` from 1 to 500, `after` from the `next` of the page before, and equality filters by field name. A
  filter that is not known is refused.
- A change is answered when every live worker serves it.
- A path of another organization answers 404, byte for byte as one that never existed. Operators may act on any.
- The running server has this document at `/admin/schema/openapi.json`."""


class Row(NamedTuple):
    method: str
    path: str
    operation: Operation | None
    operation_id: str
    summary: str


def _application() -> Any:
    # Nothing is called: routes and document do not depend on what the handlers would be given.
    return admin_app(cast(AdminDependencies, None))


def rows() -> Iterator[Row]:
    """Every operation of the admin listener, in the order of the paths."""
    for route in sorted(_application().routes, key=lambda route: route.path):
        if not isinstance(route, HTTPRoute):
            continue
        for handler in sorted(route.route_handlers, key=lambda handler: sorted(handler.http_methods)):
            if handler.operation_id:
                method = ", ".join(sorted(handler.http_methods))
                path = route.path.replace(":str", "")
                name = str(handler.operation_id)
                yield Row(method, path, handler.opt.get(OPERATION), name, handler.summary or "")


def openapi() -> str:
    schema = _application().openapi_schema.to_schema()
    for path in schema["paths"].values():
        for told in path.values():
            # Those of the path come out of a set, in another order each time.
            told.get("parameters", []).sort(key=lambda one: one["name"] if one["in"] == "path" else "~")
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def render() -> str:
    operations = [
        (code(f"{row.method} {row.path}"), row.summary, code(row.operation or ""), who(row.operation))
        for row in rows()
    ]
    return page(
        "Admin API",
        "`gateway/api/admin/` and `tenants/roles.py`",
        "Default: `https://127.0.0.1:8444`. Bodies and answers: [admin-api.json](admin-api.json), an OpenAPI"
        " document.",
        _RULES,
        "## Operations",
        table(("request", "what it does", "operation", "who may"), operations),
        "`GET /metrics` needs no token from a peer on loopback without `Forwarded` or `X-Forwarded-For`.",
        "## SCIM",
        "`/scim/v2/{org}` is not in the OpenAPI document: it is described by its own `/Schemas`, `/ResourceTypes`"
        " and `/ServiceProviderConfig` ([RFC 7644](https://www.rfc-editor.org/rfc/rfc7644)), and takes a SCIM"
        " token (`orgate scim token create`). See [Provisioning with"
        " SCIM](../guides/admin.md#provisioning-with-scim).",
    )


def who(operation: Operation | None) -> str:
    if operation is None:
        return "anyone"
    roles = ALLOWED[operation]
    named = "every role" if roles == frozenset(Role) else codes(role for role in Role if role in roles)
    return f"{named}, {LEAD}" if operation in LEADS else named


def roles() -> str:
    marks = [
        (
            code(operation),
            *("✔" if role in ALLOWED[operation] else "" for role in Role),
            "✔" if operation in LEADS else "",
            "✔" if operation in SCIM else "",
        )
        for operation in Operation
    ]
    return page(
        "Roles",
        "`tenants/roles.py`",
        "Who may do what on the control plane. What is not in this table is not allowed.",
        table(("operation", *(role.value for role in Role), LEAD, "SCIM token"), marks),
        """\
- **operator** exists in the platform's own organization (`platform`) only, and is the one role that acts on other
  organizations. What an operator changes there is written into that organization's log, with `actor_org`
  `platform`.
- **owner**, **admin**, **auditor**, **member** and **billing** end at their own organization.
- **billing** sees limits and budgets, what is used of them, prices, and members by name alone. It asks no model.
- A **team lead** is no role: somebody is made the lead of a team that they are in (`team.set_lead`), and may do
  what that column says with this one team, whatever their roles.
- A **SCIM token** is nobody's: it may do what that column says, under `/scim/v2` of its own organization and
  nowhere else. Owners are not its to touch unless the organization says so (`scim.update`).
- `own_…` is about what is the caller's own: everybody may, and nobody reaches another's that way.
- An admin may not touch an owner, make one, or invite one: `owner.write` is asked beside `member.*`.
- What members may do with models is not here: that is decided by the organization's
  [rules](../guides/admin.md#rules). New organizations begin with one rule: member, admin and owner may use every
  model.
""",
    )
