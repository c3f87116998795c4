"""Witnesses of one organization's audit log: who has cosigned what, and the policy that says how many must."""

from __future__ import annotations

from litestar import MediaType, Response, get
from msgspec import Struct, structs

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.resource import REMARK
from gateway.api.admin.routing import operation
from gateway.audit.note import parse_checkpoint, parse_key, split_note
from gateway.audit.policy import NOBODY, NONE, judge
from tenants.roles import Operation


class AuditWitness(Struct, frozen=True):
    """`size` entries were in the last checkpoint that it has cosigned since this server began, at `at` by its own
    clock; 0 for none. `fault` says why the last attempt failed, empty when it did not. Times are Unix seconds."""

    name: str
    key: str
    size: int
    at: int
    fault: str
    fault_at: int


class AuditWitnesses(Struct, frozen=True):
    """`size`: entries of the newest checkpoint. `witnessed_size`: of the newest with a quorum, -1 for none;
    `late_s`: seconds for which there has been a newer one without. `quorum` is its name in the policy, `none` when
    no cosignatures are asked for; `said` tells of the checkpoint that is served."""

    quorum: str
    size: int
    witnessed_size: int
    late_s: float
    said: str
    items: list[AuditWitness]


@get(
    "/witnesses",
    **operation(Operation.AUDIT_READ, "listAuditWitnesses", summary="Read who has cosigned the checkpoint"),
)
async def witnesses(caller: CallerDependency) -> AuditWitnesses:
    """Each witness that the operator's policy names, and what it has made of this log."""
    asked = caller.deps.witnesses
    policy = NOBODY if asked is None else asked.policy(caller.org)
    if asked is None or not policy.witnesses:
        size = parse_checkpoint(split_note(await caller.deps.audit.checkpoint(caller.org))[0]).size
        return AuditWitnesses(NONE, size, -1, 0.0, "no witnesses are set up: nobody else has seen this log", [])
    standing = asked.standing(caller.org)
    note = asked.witnessed(caller.org) or await caller.deps.audit.checkpoint(caller.org)
    items = [
        AuditWitness(one.name, str(one.key), *structs.astuple(standing.seen[one.name])) for one in policy.witnesses
    ]
    return AuditWitnesses(
        policy.quorum,
        standing.size,
        standing.witnessed_size,
        standing.late_s,
        judge(policy, note).words,
        items,
    )


@get(
    "/policy",
    media_type=MediaType.TEXT,
    **operation(Operation.AUDIT_READ, "getAuditPolicy", summary="Read the policy of witnesses"),
)
async def policy(caller: CallerDependency) -> str:
    """The policy (C2SP tlog-policy) that this log's checkpoints are to meet: for a pack, or for an auditor's own
    checks. Compare the keys in it with those that their owners gave you before you trust it."""
    asked = caller.deps.witnesses
    found = NOBODY if asked is None else asked.policy(caller.org)
    return found.text(parse_key(caller.deps.audit.verifier_key(caller.org)))


async def served(caller: Caller, *, newest: bool) -> Response[str]:
    """The checkpoint to show: the newest with a quorum where one is asked for, else the newest."""
    asked, headers = caller.deps.witnesses, dict[str, str]()
    if asked is None or newest or asked.policy(caller.org).quorum == NONE:
        return Response(await caller.deps.audit.checkpoint(caller.org))
    note, standing = asked.witnessed(caller.org), asked.standing(caller.org)
    if not note:
        headers[REMARK] = "no checkpoint has its quorum of witnesses yet: nobody vouches for this one"
    elif standing.late_s:
        more = max(standing.size - standing.witnessed_size, 0)
        headers[REMARK] = (
            f"this checkpoint has its quorum of witnesses, and ends before the newest {more} entries: for"
            f" {standing.late_s:.0f} s no newer one has"
        )
    return Response(note or await caller.deps.audit.checkpoint(caller.org), headers=headers)


HANDLERS = (witnesses, policy)
