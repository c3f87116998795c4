"""The audit log's Merkle tree: tiles in the open format (C2SP tlog-tiles), leaf hashes, and proofs out of them."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.routing import operation
from gateway.audit.tiles import parse_path
from gateway.audit.tree_reader import ID
from gateway.errors import UnavailableError
from tenants.roles import Operation

MAX_INDEX = 2**53 - 1
FOR_EVER = "private, max-age=31536000, immutable"
"""A tile's path says all of what it is, width included: its bytes never change."""
OCTETS = "application/octet-stream"

Index = Annotated[int, QueryParameter(ge=0, le=MAX_INDEX)]
Size = Annotated[
    int | None,
    QueryParameter(ge=0, le=MAX_INDEX, description="Entries; without it, those of the newest checkpoint."),
]


class InclusionProof(Struct, frozen=True):
    """`hashes` (base64, from the leaf's sibling up) lead from the hash of `entry`, the line as it is stored, to
    the root of the tree over the first `size` entries: RFC 6962 section 2.1.1."""

    index: int
    size: int
    entry: str
    hashes: Sequence[str]


class ConsistencyProof(Struct, frozen=True):
    """`hashes` (base64) show that the tree over `new` entries begins with the one over `old`: RFC 6962 section
    2.1.2. None when `old` is 0 or `new`."""

    old: int
    new: int
    hashes: Sequence[str]


class EntryPlace(Struct, frozen=True):
    """`index` is -1 when the entries that were searched hold none: go on with `before`, until that is 0."""

    index: int
    before: int


@get(
    "/tile/{path:path}",
    media_type=OCTETS,
    **operation(Operation.AUDIT_READ, "getAuditTile", summary="Read a tile or an entry bundle"),
)
async def tile(request: Request[Any, Any, Any], caller: CallerDependency) -> Response[bytes]:
    """`<level>/<n>[.p/<width>]`, or `entries/<n>[.p/<width>]`, as C2SP tlog-tiles says. 404 for what no checkpoint
    that was saved needs."""
    at = parse_path(request.scope["path"].partition("/audit/tile/")[2])
    found = await caller.deps.audit.tree.tile(caller.org, at) if at is not None else None
    if at is None or found is None:
        raise NotFoundException
    headers = {"Cache-Control": FOR_EVER}
    if at.level is None:
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            found = await asyncio.to_thread(gzip.compress, found, 6, mtime=0)
    return Response(found, media_type=OCTETS, headers=headers)


@get(
    "/leaves",
    media_type=OCTETS,
    **operation(Operation.AUDIT_EXPORT, "listAuditLeaves", query=True, noted=True, summary="Export leaf hashes"),
)
async def leaves(caller: CallerDependency, start: Index = 0, end: Size = None) -> Stream:
    """The hashes of entries [start, end), 32 bytes each: the leaves of the tree that the checkpoint signs. Without
    `end`: up to the newest checkpoint."""
    size = await _size(caller, "end", end)
    if size < start:
        raise invalid(("end", "is not before 'start'"))
    return Stream(caller.deps.audit.tree.leaves(caller.org, start, size), media_type=OCTETS)


@get(
    "/proof",
    **operation(Operation.AUDIT_READ, "proveAuditEntry", query=True, summary="Prove that an entry is in the log"),
)
async def proof(caller: CallerDependency, index: Index, size: Size = None) -> InclusionProof:
    """An inclusion proof of entry `index`, against the checkpoint over `size` entries."""
    found = await _size(caller, "size", size)
    if index >= found:
        raise invalid(("index", f"is less than the {found} entries of the tree"))
    proved = await caller.deps.audit.tree.inclusion(caller.org, index, found)
    if proved is None:
        raise NotFoundException
    return InclusionProof(index, found, proved.line.decode(), _texts(proved.hashes))


@get(
    "/consistency",
    **operation(
        Operation.AUDIT_READ,
        "proveAuditConsistency",
        query=True,
        noted=True,
        summary="Prove that the log was only added to",
    ),
)
async def consistency(caller: CallerDependency, old: Index, new: Size = None) -> ConsistencyProof:
    """A consistency proof between the checkpoints over `old` and over `new` entries."""
    found = await _size(caller, "new", new)
    if old > found:
        raise invalid(("old", f"is at most the {found} entries of the newer tree"))
    hashes = await caller.deps.audit.tree.consistency(caller.org, old, found)
    return ConsistencyProof(old, found, _texts(hashes))


@get(
    "/find",
    **operation(Operation.AUDIT_READ, "findAuditEntry", query=True, summary="Find an entry by an id"),
)
async def find(
    *,
    caller: CallerDependency,
    wanted: Annotated[str, QueryParameter(name="id", description="`_document_id` or `request_id` of the entry.")],
    before: Annotated[int | None, QueryParameter(ge=0, le=MAX_INDEX)] = None,
) -> EntryPlace:
    """The newest entry with this document or request id, of some ten thousands before entry `before`; without it,
    before the end."""
    if not ID.fullmatch(wanted):
        raise invalid(("id", "is letters, digits and _ . : - (up to 128)"))
    index, following = await caller.deps.audit.tree.find(caller.org, wanted, before)
    return EntryPlace(-1 if index is None else index, following)


async def _size(caller: Caller, field: str, asked: int | None) -> int:
    """The tree that is asked for. One that no checkpoint is over yet is not: its hashes would be worth nothing."""
    audit = caller.deps.audit
    size = await audit.tree.proven_size(caller.org)
    if asked is not None and asked <= size:
        return asked
    # Tiles that were lost, or not copied along, are made before a checkpoint is given.
    signed = int((await audit.checkpoint(caller.org)).split("\n", 2)[1])
    size = await audit.tree.proven_size(caller.org)
    if asked is None or asked <= size:
        return size if asked is None else asked
    if asked <= signed:
        raise UnavailableError("the audit log's hash tiles are being made anew", retry_after_s=1)
    raise invalid((field, f"is at most {size}, the entries of the newest checkpoint"))


def _texts(hashes: Sequence[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]


HANDLERS = [tile, leaves, proof, consistency, find]
