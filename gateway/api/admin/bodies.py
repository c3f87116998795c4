"""Bodies of requests: the models' fields without those the server sets. Rules beyond types: `tenants.validate`.

Fields that default to None are read-only: a PUT may send back what a GET gave, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct, structs

from gateway.api.admin.problems import invalid
from policies.facts import Action, Role
from policies.rules import Effect
from tenants.models import (
    CredentialKind,
    Dpop,
    Durability,
    LimitScope,
    LimitUnit,
    OnEnd,
    OnOutage,
    State,
    Window,
    WireProtocol,
)
from tenants.streams import StreamFormat, StreamKind

T = TypeVar("T", bound=Struct)

SERVER_SET = (
    "org",
    "id",
    "state",
    "audit_hold",
    "not_before",
    "key_version",
    "client_cert_version",
    "secret_version",
    "created_at",
    "version",
)


class OrgBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`id` names a new organization for good. `hosts`: only an operator changes them."""

    name: str
    id: str | None = None
    hosts: tuple[str, ...] = ()
    supersede: bool = False
    deadline_ms: int = 0
    holds: tuple[str, ...] = ()
    timezone: str = "UTC"
    weight: int = 1
    durability: Durability = Durability.BUFFERED
    audit_retention_days: int = 0
    audit_prompt_hash: bool = False
    personal_tokens: bool = False
    dpop: Dpop = Dpop.OFF
    second_factor: tuple[Role, ...] = ()
    audit_hold: str | None = None
    state: State | None = None
    created_at: int | None = None
    version: int | None = None


class MemberBody(Struct, frozen=True, forbid_unknown_fields=True):
    email: str
    name: str
    roles: tuple[Role, ...]
    id: str | None = None
    org: str | None = None
    state: State | None = None
    not_before: int | None = None
    created_at: int | None = None
    version: int | None = None


class TeamBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str = ""
    org: str | None = None
    created_at: int | None = None
    version: int | None = None


class UpstreamBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`base_url` is what stands before `/v1`. The key is not here: PUT it to `…/key`, as `auth` wants it."""

    name: str
    base_url: str
    protocol: WireProtocol = WireProtocol.AUTO
    ca_pem: str = ""
    connections: int = 4
    connect_timeout_ms: int = 2_000
    first_byte_timeout_ms: int = 60_000
    idle_timeout_ms: int = 60_000
    total_timeout_ms: int = 0
    max_in_flight: int = 0
    max_queue: int = 64
    connection_age_s: int = 3_600
    connection_resets: int = 900
    auth: CredentialKind = CredentialKind.BEARER
    key_version: int | None = None
    client_cert_version: int | None = None
    org: str | None = None
    version: int | None = None


class ModelBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    upstream: str
    model: str
    tasks: tuple[Action, ...] = (Action.COMPLETE, Action.CHAT, Action.EMBED)
    max_tokens: int = 1_024
    org: str | None = None
    version: int | None = None


class LimitBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`period_s` left out is 60, or 0 for concurrency and for a `window`, which have none."""

    name: str
    scope: LimitScope
    unit: LimitUnit
    amount: int
    period_s: int | None = None
    burst: int = 0
    subject: str = ""
    window: Window = Window.NONE
    on_outage: OnOutage = OnOutage.LOCAL
    on_end: OnEnd = OnEnd.FINISH
    notify_at: tuple[int, ...] = ()
    org: str | None = None
    version: int | None = None


class RuleBody(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    effect: Effect
    roles: tuple[Role, ...]
    actions: tuple[Action, ...]
    models: tuple[str, ...]
    org: str | None = None
    version: int | None = None


class AuditStreamBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`format` left out is the usual one of the `kind`. The secret is not here: PUT it to `…/secret`."""

    name: str
    kind: StreamKind
    url: str
    format: StreamFormat | None = None
    ca_pem: str = ""
    index: str = ""
    sourcetype: str = ""
    ack: bool = False
    region: str = ""
    from_start: bool = False
    paused: bool = False
    secret_version: int | None = None
    org: str | None = None
    version: int | None = None


def to_item(make: Callable[..., T], body: Struct, current: T | None, *, key: str = "name", **server: Any) -> T:
    """The item that `body` describes, with what the server sets taken from `current` (None: a new one).

    `server` are the fields that only the path or the server knows. Raises 422 for a read-only field that
    differs from what stands, and for another key.
    """
    given = {name: value for name, value in structs.asdict(body).items() if value is not None}
    writable = {name: value for name, value in given.items() if name not in SERVER_SET}
    if current is not None:
        server |= {name: getattr(current, name) for name in SERVER_SET if name in current.__struct_fields__}
    item = make(**writable, **server)
    stands = item if current is None else current
    faults = [
        (name, "is not changed this way: leave it out, or send it as it is")
        for name, value in given.items()
        if (name == key or name in SERVER_SET) and value != getattr(stands, name)
    ]
    if faults:
        raise invalid(*faults)
    return item
