"""The audit log of one organization, to read, follow, export and verify."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated

from litestar import MediaType, Response, Router, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from gateway.api.admin import audit_keep, audit_prompt, audit_tiles, audit_witnesses
from gateway.api.admin.caller import CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.resource import After, Page, PageLimit
from gateway.api.admin.routing import operation
from gateway.audit.erase import Erased
from gateway.exchange import Outcome
from tenants.ids import member_id
from tenants.roles import Operation

MAX_WAIT_S = 25.0
MAX_INDEX = 2**53 - 1
OUTCOMES = tuple(one.value for one in Outcome)

Index = Annotated[int, QueryParameter(ge=0, le=MAX_INDEX)]
End = Annotated[int | None, QueryParameter(ge=0, le=MAX_INDEX)]
Text = Annotated[str, QueryParameter(max_length=128)]
Instant = Annotated[
    str, QueryParameter(max_length=40, description="Unix seconds, or RFC 3339: 2026-01-31T12:00:00Z.")
]


class Entries(Struct, frozen=True):
    """`next` is the `after` to go on with; the end is reached when it stays the same."""

    items: list[Mapping[str, object]]
    next: int


class AuditPerson(Struct, frozen=True):
    """`person` is the pseudonym that stands in the entries, `key` (hexadecimal) proves it: see audit-log.md."""

    person: str
    member: str
    key: str


@get("/entries", **operation(Operation.AUDIT_READ, "listAuditEntries", query=True, summary="Read entries"))
async def entries(
    *,
    caller: CallerDependency,
    after: Index = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    action: Text = "",
    actor: Text = "",
    outcome: Text = "",
    model: Text = "",
    client: Text = "",
    since: Instant = "",
    until: Instant = "",
    wait_s: Annotated[float, QueryParameter(ge=0, le=MAX_WAIT_S)] = 0,
) -> Entries:
    """Entries from index `after` on. With `wait_s`, waits that long for a matching one to arrive (a tail)."""
    if outcome and outcome not in OUTCOMES:
        raise invalid(("outcome", f"is one of {', '.join(OUTCOMES)}"))
    from_ms, to_ms = milliseconds("since", since), milliseconds("until", until)
    audit, loop = caller.deps.audit, asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    polls, by = caller.deps.long_polls, caller.principal
    with polls.one(by.org, by.member) if wait_s else nullcontext():
        while True:
            items, following = await audit.entries(
                caller.org,
                after=after,
                limit=limit,
                action=action,
                actor=actor,
                outcome=outcome,
                model=model,
                client=client,
                since=from_ms,
                until=to_ms,
            )
            left = deadline - loop.time()
            if items or (following == after and (left <= 0 or not await audit.wait(caller.org, after, left))):
                return Entries(items, following)
            after = following


@get(
    "/checkpoint",
    media_type=MediaType.TEXT,
    **operation(
        Operation.AUDIT_READ, "getAuditCheckpoint", query=True, noted=True, summary="Read the signed checkpoint"
    ),
)
async def checkpoint(caller: CallerDependency, newest: Annotated[bool, QueryParameter()] = False) -> Response[str]:
    """A signed note (C2SP tlog-checkpoint): origin, number of entries, root hash. Where cosignatures of witnesses
    are asked for, the newest that has enough of them, and `X-Orgate-Remark` tells what came since; with `newest`
    the newest in any case."""
    return await audit_witnesses.served(caller, newest=newest)


@get(
    "/log",
    media_type="application/jsonl",
    **operation(
        Operation.AUDIT_EXPORT,
        "exportAuditLog",
        query=True,
        noted=True,
        summary="Export entries as they are stored",
    ),
)
async def log(caller: CallerDependency, start: Index = 0, end: End = None) -> Stream:
    """The lines of entries [start, end), byte for byte. Without `end`: to the checkpoint of this moment."""
    if end is None:
        note = await caller.deps.audit.checkpoint(caller.org)
        end = max(start, int(note.split("\n", 2)[1]))
    if end < start:
        raise invalid(("end", "is not before 'start'"))
    if start < (begin := (await caller.deps.audit.range(caller.org))[0]):
        raise invalid(("start", f"is past its retention: the log begins with entry {begin}"))
    # Written down before the first byte: an export that is not in the log does not begin.
    await caller.store.note("audit.export", caller.org, caller.actor, {"start": start, "end": end})
    return Stream(caller.deps.audit.raw(caller.org, start, end), media_type="application/jsonl")


@get(
    "/key",
    media_type=MediaType.TEXT,
    **operation(
        Operation.AUDIT_READ, "getAuditKey", noted=True, summary="Read the key that checkpoints are verified with"
    ),
)
async def key(caller: CallerDependency) -> str:
    """A verifier key (C2SP signed-note). Compare it with one you had from elsewhere before you trust it."""
    return caller.deps.audit.verifier_key(caller.org)


@get(
    "/persons",
    **operation(
        Operation.AUDIT_EXPORT,
        "listAuditPersons",
        query=True,
        noted=True,
        summary="List who is behind pseudonyms",
    ),
)
async def persons(caller: CallerDependency, after: After = "", limit: PageLimit = 100) -> Page[AuditPerson]:
    """Members of this organization whose actions are in a log, those who have been erased left out."""
    found, following = await caller.deps.people.page(caller.org, after, limit)
    if after:  # a page of a question, or somebody who begins anywhere but at the beginning: a read in any case
        await caller.deps.reads.note(caller.store, caller.actor, "/audit/persons", (), caller.deps.clock())
    else:
        await caller.store.note("audit.export", caller.org, caller.actor, {"persons": True})
    return Page(tuple(AuditPerson(*one) for one in found), following)


@post(
    "/persons/{key:str}/erase",
    status_code=200,
    **operation(Operation.AUDIT_ERASE, "eraseAuditPerson", conflict=True, summary="Erase a person from the log"),
)
async def erase(caller: CallerDependency, key: FromPath[str]) -> Erased:
    """Destroy the key that leads from a former member's pseudonym back to them. `key` is their id. Entries stay as
    they are, to the byte; nobody can say any more whose they were. It cannot be undone."""
    return await caller.deps.erasure.erase(caller.org, member_id(key), caller.actor)


def milliseconds(field: str, text: str) -> int:
    """Unix milliseconds of a bound; 0 for none."""
    if not text:
        return 0
    if text.isascii() and text.isdecimal() and len(text) <= 12:
        return int(text) * 1000
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise invalid((field, "is Unix seconds or RFC 3339, e.g. 2026-01-31T12:00:00Z")) from None
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)


def router() -> Router:
    handlers = [entries, checkpoint, log, key, persons, erase, *audit_tiles.HANDLERS, *audit_witnesses.HANDLERS]
    handlers += [*audit_keep.HANDLERS, *audit_prompt.HANDLERS]
    return Router(path="/orgs/{org:str}/audit", tags=["Audit"], route_handlers=handlers)
