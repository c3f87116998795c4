"""Who am I, and how is the gateway."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import MediaType, Response, get
from msgspec import Struct

from gateway.api.admin.caller import CallerDependency, Deps
from gateway.api.admin.routing import operation, public
from gateway.bus.hub import WorkerStatus
from gateway.version import VERSION
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.roles import Operation

EXPOSITION = "text/plain; version=0.0.4"


class Me(Struct, frozen=True):
    """The member behind the token. `roles`: those that count, `expires_at` the token's end (Unix seconds).
    `leads`: the teams among `teams` that they lead."""

    org: OrgId
    id: MemberId
    email: str
    name: str
    roles: tuple[Role, ...]
    client: str
    expires_at: int
    teams: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()


class Status(Struct, frozen=True):
    """`version`: the store's; `published`: what the workers were told; each worker says what it serves. `limits`:
    where they are counted: `embedded`, `redis`, or `redis: ` and why it cannot be asked."""

    gateway: str
    version: int
    published: int
    workers: Sequence[WorkerStatus]
    limits: str = "embedded"


@get("/me", tags=["Yourself"], **operation(Operation.ME_READ, "getMe", summary="See who is signed in"))
async def me(caller: CallerDependency) -> Me:
    """Organization, roles, and when the token ends."""
    member = caller.member
    joined = await caller.store.teams.memberships(member.id)
    return Me(
        org=member.org,
        id=member.id,
        email=member.email,
        name=member.name,
        roles=tuple(role for role in Role if role in caller.roles),
        client=caller.principal.client,
        expires_at=caller.principal.expires_at,
        teams=tuple(one.team for one in joined),
        leads=tuple(one.team for one in joined if one.lead),
    )


@get("/status", tags=["Platform"], **operation(Operation.STATUS_READ, "getStatus", summary="See what is served"))
async def status(caller: CallerDependency) -> Status:
    """A change is live when every worker's version has reached it."""
    streams = caller.deps.streams
    return Status(
        VERSION,
        await caller.deps.store.version(),
        streams.snapshot.version,
        streams.workers(),
        await caller.deps.limits_state(),
    )


@get(
    "/metrics",
    tags=["Platform"],
    media_type=MediaType.TEXT,
    **operation(Operation.METRICS_READ, "getMetrics", summary="Read the metrics"),
)
async def metrics(deps: Deps) -> Response[str]:
    """Prometheus text exposition. For operators; from this very machine (a loopback peer, no `Forwarded` or
    `X-Forwarded-For`) without a token, so that a local scraper needs no secret."""
    return Response(deps.metrics(), media_type=EXPOSITION)


@get("/livez", tags=["Platform"], media_type=MediaType.TEXT, **public("getLivez", summary="Is it running"))
async def livez() -> str:
    """Answers while the control process runs."""
    return "ok\n"


@get("/readyz", tags=["Platform"], media_type=MediaType.TEXT, **public("getReadyz", summary="May it be asked"))
async def readyz(deps: Deps) -> Response[str]:
    """200, or 503 with the reasons, one a line. What is not as it should be otherwise stands below `ok`."""
    reasons = deps.unready()
    text = "\n".join(reasons or ["ok", *(f"degraded: {note}" for note in deps.degraded())])
    return Response(f"{text}\n", status_code=503 if reasons else 200)
