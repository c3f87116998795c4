"""Exports of a part of the audit log: the lines that match a filter, as they are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

from litestar import get
from litestar.response import Stream
from msgspec import Struct

from gateway.api.admin.audit import OUTCOMES, End, Index, Instant, Text, milliseconds
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.reads import kept
from gateway.api.admin.routing import operation
from gateway.audit.selection import Selection
from tenants.ids import is_member_id
from tenants.roles import Operation

LAST_LINE, GOING_ON = b"\n", b" \n"


class AuditActors(Struct, frozen=True):
    """The pseudonyms that stand for somebody in the entries; none when nothing of them is there, or they were
    erased. Somebody who is no member (`system`) stands there as themselves."""

    items: list[str]


@get(
    "/orgs/{org:str}/audit/export",
    tags=["Audit"],
    media_type="application/jsonl",
    **operation(
        Operation.AUDIT_EXPORT, "exportAuditEntries", query=True, noted=True, summary="Export entries that match"
    ),
)
async def export(
    *,
    caller: CallerDependency,
    after: Index = 0,
    end: End = None,
    action: Text = "",
    actor: Text = "",
    outcome: Text = "",
    model: Text = "",
    client: Text = "",
    since: Instant = "",
    until: Instant = "",
) -> Stream:
    """The lines of the entries [after, end) that match all filters, byte for byte. Without `end`: to the last one
    of this moment. Those that are past their retention are not there any more.

    An empty line ends the answer: one without it was cut off. Lines with a space say that the search goes on. What
    was cut off goes on when it is asked for again, `after` being the last `index` plus 1."""
    if outcome and outcome not in OUTCOMES:
        raise invalid(("outcome", f"is one of {', '.join(OUTCOMES)}"))
    chosen = Selection(
        action=action,
        actor=actor,
        outcome=outcome,
        model=model,
        client=client,
        since=milliseconds("since", since),
        until=milliseconds("until", until),
    )
    if end is None:
        end = max(after, (await caller.deps.audit.range(caller.org))[1])
    if end < after:
        raise invalid(("end", "is not before 'after'"))
    asked = {name: kept(value) if isinstance(value, str) else value for name, value in chosen.asked().items()}
    detail: dict[str, str | int | bool] = {"after": after, "end": end, **asked}
    # Written down before the first byte: an export that is not in the log does not begin.
    await caller.store.note("audit.export", caller.org, caller.actor, {**detail})
    lines = caller.deps.audit.matching(caller.org, chosen, after, end)
    return Stream(_ended(lines), media_type="application/jsonl")


@get(
    "/orgs/{org:str}/audit/actors",
    tags=["Audit"],
    **operation(
        Operation.AUDIT_EXPORT, "listAuditActors", query=True, summary="Read who an actor is in the entries"
    ),
)
async def actors(caller: CallerDependency, actor: Text = "") -> AuditActors:
    """What an export of the entries of `actor` says in its manifest: pseudonyms, and no member's id."""
    named = {str(name) for _, name in await caller.deps.audit.actors(caller.org, actor)}
    # Also those whom nobody has met here have pseudonyms: operators have the platform's, and whoever was asked for
    # has one in the entry that says so.
    found = [name for name in sorted(named) if not is_member_id(name) and await _stands(caller, name)]
    return AuditActors(found)


async def _stands(caller: Caller, name: str) -> bool:
    """Whether `name` is the actor of any entry of this log."""
    begin, size = await caller.deps.audit.range(caller.org)
    async for piece in caller.deps.audit.matching(caller.org, Selection(actor=name), begin, size):
        if piece:
            return True
    return False


async def _ended(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A server that dies in between ends an answer as one does that has said all: hence the last line."""
    async for piece in lines:
        yield piece or GOING_ON
    yield LAST_LINE


handlers = (export, actors)
