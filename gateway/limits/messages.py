"""What a worker and the owner of the limits say to each other (`POST /bus/v1/slices`).

Bucket amounts travel as `Claim`s whose `cost` is the amount: a claim says everything that is needed to find
or make its bucket again, on an owner that has just been restarted too.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.exchange import Claim
from tenants.ids import OrgId


class Ahead(Struct, frozen=True):
    """A bucket that is being spent from, and goes on being so while the owner is asked.

    `claim.cost`: what one request takes. `keep`: what stays in the worker's hands of earlier slices, at most;
    `back`: what came back to it and returns. `more`: lend more on top, so that no request has to wait for it.
    """

    claim: Claim
    keep: int
    back: int
    more: bool


class SliceAsk(Struct, frozen=True):
    """`asks`: one entry per request, each all or nothing, judged in order.

    `back`: what returns to each bucket beforehand: all that is left of earlier slices, refunds, or (negative)
    what was used beyond what had been reserved. A bucket named in `asks` is always named here.
    `ahead`: buckets that are named in neither.
    `session` is what the owner gave this worker; `held`, sent with an unknown or empty session only, the slots
    of each concurrency limit that this worker has out.
    `seq` rises with each message. `seen` is the last one whose answer arrived: the owner takes the effects of
    an answer that did not arrive back.
    """

    worker: str
    session: str
    seq: int
    seen: int
    asks: tuple[tuple[Claim, ...], ...] = ()
    back: tuple[Claim, ...] = ()
    held: tuple[Claim, ...] = ()
    ahead: tuple[Ahead, ...] = ()


class Granted(Struct, frozen=True, tag="granted"):
    """All claims of the ask were taken."""


class Refused(Struct, frozen=True, tag="refused"):
    """`limit` said no for longest; nothing was taken. `wait_us`: until it would say yes to one alone on it.

    `never`: the claim is larger than the bucket ever holds.
    """

    limit: str
    scope: str
    unit: str
    cost: int
    most: int
    wait_us: int
    never: bool = False


class Slice(Struct, frozen=True):
    """`amount` to spend without asking; `remaining`: what the owner has left, this slice included."""

    org: OrgId
    limit: str
    subject: str
    amount: int
    remaining: int


class SliceAnswer(Struct, frozen=True):
    """`known` False: the session means nothing to this owner (any more); nothing was done, say `held` again."""

    session: str
    known: bool
    results: tuple[Granted | Refused, ...] = ()
    slices: tuple[Slice, ...] = ()
