"""The frozen values that stages hand to each other. A stage needs what only the stage before can make.

`Principal` → `Tenant` → `Call` → `Permit` → `Reservation` → `Route` → bytes and `Usage` → `Receipt`.
Leaving a check out is a type error: nothing but `authorize` makes a `Permit`, nothing but `route` a `Route`.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Protocol

from msgspec import Raw, Struct, structs

from gateway.quota import Quota
from gateway.secret import Secret
from policies.facts import Action, Role
from tenants.ids import OrgId
from tenants.models import LimitUnit, ModelAlias, Upstream
from tenants.snapshot import Tenant
from tenants.statickeys import KeyScope

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values."""


class Principal(Struct, frozen=True):
    """Who a verified access token speaks for (RFC 9068). Times are Unix seconds. `jkt`: the thumbprint of the key
    that it is bound to (RFC 9449 section 6.1), '' for a bearer token. `scope`: what a static key is narrowed to;
    None: roles alone say what it may do."""

    org: OrgId
    member: str
    roles: frozenset[Role]
    client: str
    token_id: str
    audience: str
    issued_at: int
    expires_at: int
    teams: tuple[str, ...] = ()
    jkt: str = ""
    scope: KeyScope | None = None


class Call(Struct, frozen=True):
    """A decoded request. `fields` are the body's top-level members as raw JSON, untouched unless a stage says so.

    `size` is the body's length in bytes; `answers` how many the model generates, `max_tokens` how long the caller
    lets each of them be, if it says.
    """

    task: Action
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    size: int
    fields: dict[str, Raw]
    answers: int = 1


class Permit(Struct, frozen=True):
    """A policy said yes. `rule` is the id of the rule that did."""

    principal: Principal
    tenant: Tenant
    call: Call
    alias: ModelAlias
    rule: str


class Usage(Struct, frozen=True):
    """Tokens. `counted` is false when the provider reported them, true when the gateway had to estimate."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = True

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Claim(Struct, frozen=True, gc=False):  # nothing that it leads to leads back
    """`cost` whole units are asked of what `quota` says, for one request. `least`: it is admitted with so much, if
    `cost` is not left (see `OnEnd`), -1: with all of it; more than `cost` is never given."""

    quota: Quota
    cost: int
    least: int = -1

    @property
    def enough(self) -> int:
        """What has to be left: `least`, or the whole cost when it is not given."""
        return self.cost if self.least < 0 else self.least


_TOKENS = LimitUnit.TOKENS  # the one that nearly every request asks for: a name is quicker than an attribute


class Used(Struct, frozen=True):
    """What one request has used so far, of everything a limit may count but itself and its slot.

    `bytes`: of the request and of the answer. `nanodollars`: by the price table.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    bytes: int = 0
    nanodollars: int = 0

    def of(self, unit: LimitUnit) -> int:
        """In whole units of `unit`: one request, and no slot once it has ended."""
        if unit is _TOKENS:
            return self.input_tokens + self.output_tokens
        match unit:
            case LimitUnit.REQUESTS:
                return 1
            case LimitUnit.INPUT_TOKENS:
                return self.input_tokens
            case LimitUnit.OUTPUT_TOKENS:
                return self.output_tokens
            case LimitUnit.BYTES:
                return self.bytes
            case LimitUnit.SPEND:
                return self.nanodollars
            case _:
                return 0


class Hold(Protocol):
    """What a limit store gives for claims it granted: all of them or none.

    Exactly one of `settle` and `refund` is called, once, and never awaits: settling cannot be cancelled.
    """

    def headers(self) -> Headers:
        """What was left when all was granted: OpenAI's `x-ratelimit-*`."""

    @property
    def metered(self) -> bool:
        """Whether `spending` wants to be told what the stream uses as it goes."""

    @property
    def tight(self) -> bool:
        """Whether `OnEnd.CUT` may end it, and there is less left than was claimed: to be told at each event."""

    def spending(self, used: Used) -> Claim | None:
        """So much has been used so far (each figure never falls). More than was granted is taken from what is
        left. Returns the limit that has ended and wants the stream ended (`OnEnd.CUT`), None to go on."""

    def settle(self, used: Used) -> None:
        """Charge what was used, which may be less or more than was claimed. Concurrency is given back."""

    def refund(self) -> None:
        """Nothing was sent upstream: give everything back, the request itself included."""


class Reservation(Struct, frozen=True):
    """Admitted: every limit that applies granted its claim."""

    permit: Permit
    hold: Hold


class Credential(Struct, frozen=True):
    """A leased upstream key: which version it is, and the secret. Only the transport reveals it."""

    version: int
    secret: Secret


class Route(Struct, frozen=True):
    """Where an admitted call goes, under which model name, with which key.

    `ends`: the event loop's clock, seconds, by which the whole answer must have passed; `lane`: its place in line
    when the upstream is full, lower first; `weight`: its organization's part of the turns in a lane.
    """

    reservation: Reservation
    upstream: Upstream
    model: str
    credential: Credential
    ends: float = math.inf
    lane: int = 0
    weight: int = 1


class Outcome(StrEnum):
    SERVED = "served"
    REFUSED = "refused"
    CANCELLED_BY_CLIENT = "cancelled_by_client"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    CUT = "cut"  # a limit ended in the middle of its stream
    FAILED = "failed"
    UNKNOWN = "unknown"  # its worker died: what is known is what was written down when it was admitted


LIMITS_MAX = 8
"""Names of limits that a receipt holds."""


class Receipt(Struct, frozen=True, omit_defaults=True):
    """What one request leaves behind, whatever its end: the source of its audit entry and its metrics.

    No field can hold a prompt or an answer. Times in microseconds, sizes in bytes. `sent`: whether any byte
    of the request reached the upstream. `client_version`: what the program calls itself, bounded. `limits`: those
    that judged it, at most LIMITS_MAX; `limit`: the one that refused it or ended its stream. `policy`: of which
    rules `rule` is one (`Tenant.policy_digest`). `cost_nanodollars`: by the price table of the moment it was
    admitted. `token_id`: of a static key, '' for any other credential. `prompt_hmac`: see `gateway.audit.prompt`.

    Where the time went, in order: `overhead_us` the gateway's own until the answer's head went out, `held_us` a
    hold the organization asked for, `queue_us` the wait for a turn at the upstream, a connection included,
    `first_byte_us` from sending to the upstream's head, `stream_us` from there to the end; and of that `relay_us`
    between the arrival of a stream's pieces and their being handed on, a client slow to read included.
    """

    org: OrgId
    request_id: str
    at_us: int
    member: str
    client: str
    action: Action
    outcome: Outcome
    status: int
    trace_id: str = ""
    model: str = ""
    upstream: str = ""
    upstream_model: str = ""
    key_version: int = 0
    rule: str = ""
    limit: str = ""
    error: str = ""
    stream: bool = False
    sent: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_counted: bool = False
    overhead_us: int = 0
    first_byte_us: int = 0
    total_us: int = 0
    client_version: str = ""
    held_us: int = 0
    queue_us: int = 0
    stream_us: int = 0
    relay_us: int = 0
    events: int = 0
    cost_nanodollars: int = 0
    limits: tuple[str, ...] = ()
    policy: str = ""
    token_id: str = ""
    prompt_hmac: str = ""


class Intent(Struct, frozen=True, array_like=True):
    """What is known of a request when it is admitted, as in its `Receipt`; what becomes known before it is sent
    may come later. Of a request that nobody gets to settle it is all there is."""

    org: OrgId
    request_id: str
    at_us: int
    member: str
    client: str
    action: Action
    trace_id: str
    client_version: str
    policy: str
    model: str = ""
    upstream: str = ""
    upstream_model: str = ""
    key_version: int = 0
    rule: str = ""
    limits: tuple[str, ...] = ()
    token_id: str = ""

    def unsettled(self) -> Receipt:
        return Receipt(outcome=Outcome.UNKNOWN, status=0, **structs.asdict(self))


class SpooledReceipt(Struct, frozen=True):
    """A receipt with its place in the worker's spool: (boot, seq) is unique and makes re-sending harmless.

    `intent` numbers the worker's requests in the order in which they were admitted, from 1. A receipt with the
    outcome `unknown` has no number of its own: it is an intent whose worker died, and `seq` the last number that
    this worker is known to have given.
    """

    seq: int
    receipt: Receipt
    intent: int = 0


class SpoolUp(Struct, frozen=True):
    """What a worker's spool sends to the sequencer: receipts in order of `seq`, of one worker's boot."""

    boot: str
    receipts: tuple[SpooledReceipt, ...]


class SpoolAck(Struct, frozen=True):
    """Entries of receipts with `seq <= upto` are durable."""

    upto: int
