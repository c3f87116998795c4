"""The admin listener's application: every route, one guard, one table of problems, the OpenAPI document."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from gateway.api.admin import (
    audit,
    audit_export,
    audit_stats,
    audit_streams,
    clients,
    factors,
    idp,
    keys,
    limits,
    me,
    members,
    models,
    orgs,
    personal_tokens,
    prices,
    rules,
    scim,
    services,
    sessions,
    signing,
    simulation,
    teams,
    trust,
    upstreams,
    usage,
    web,
    webhook,
)
from gateway.api.admin.caller import PUBLIC, caller_of, guard
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.problems import handle
from gateway.api.admin.request import MAX_BODY, AdminRequest
from gateway.api.admin.requestid import request_id
from gateway.api.scim.app import scim_handler
from gateway.version import VERSION

_DESCRIPTION = """\
Organizations, members, upstreams, models, limits, rules and the audit log.

Send `Authorization: Bearer <access token>` whose audience is the admin API. Errors are problems (RFC 9457).
A thing's ETag is its version; PUT and DELETE send it back as `If-Match`. Lists come in pages: pass `next` as
`after` until it is empty. A change is answered when every worker serves it; when it is perhaps not what was meant,
`X-Orgate-Remark` says why. What belongs to another organization answers exactly as what does not exist."""


async def _finish_head(message: Message, scope: Scope) -> None:
    """Every response: its request's id, and that no cache keeps it unless it says otherwise itself."""
    if message["type"] == "http.response.start":
        said = list(message.get("headers", ()))
        kept = any(name.lower() == b"cache-control" for name, _ in said)
        message["headers"] = [
            *said,
            (b"x-request-id", request_id(scope).encode()),
            *(() if kept else ((b"cache-control", b"no-store"),)),
            (b"x-content-type-options", b"nosniff"),
        ]


def _schema_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Litestar answers other paths beneath the schema's with a page of its own: here they do not exist."""
    if connection.path_params:
        raise NotFoundException


def admin_app(deps: AdminDependencies) -> Litestar:
    """The ASGI application of the admin listener."""
    v1 = Router(
        path="/admin/v1",
        route_handlers=[
            me.me,
            me.status,
            signing.router(),
            orgs.router(),
            members.router(),
            members.names,
            factors.router(),
            personal_tokens.router(),
            personal_tokens.own_router(),
            sessions.router(),
            sessions.own_router(),
            teams.router(),
            clients.router(),
            services.router(),
            trust.router(),
            upstreams.router(),
            keys.list_keys,
            models.router(),
            limits.router(),
            usage.all_usage,
            simulation.simulate,
            prices.router(),
            webhook.router(),
            idp.router(),
            scim.router(),
            rules.router(),
            audit.router(),
            audit_stats.stats,
            audit_stats.reconcile,
            audit_streams.router(),
            audit_streams.states,
            *audit_export.handlers,
        ],
    )
    return Litestar(
        route_handlers=[v1, me.metrics, me.livez, me.readyz, *web.routers(), scim_handler(deps)],
        guards=[guard],
        dependencies={
            "caller": Provide(caller_of, sync_to_thread=False),
            "deps": Provide(lambda: deps, sync_to_thread=False),
        },
        exception_handlers={Exception: handle},
        before_send=[_finish_head],
        request_class=AdminRequest,
        request_max_body_size=MAX_BODY,
        state=State({"dependencies": deps}),
        openapi_config=OpenAPIConfig(
            title="Orgate admin API",
            version=VERSION,
            description=_DESCRIPTION,
            use_handler_docstrings=True,
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(
                        type="http",
                        scheme="bearer",
                        bearer_format="JWT",
                        description="An access token (RFC 9068) whose audience is `<server.url>/admin`.",
                    )
                }
            ),
            render_plugins=[JsonRenderPlugin(path=["/openapi.json", "/"])],
            openapi_router=Router(
                path="/admin/schema",
                route_handlers=[],
                guards=[_schema_page],
                opt={PUBLIC: True},
                include_in_schema=False,
            ),
        ),
        logging_config=None,
        debug=False,
    )
