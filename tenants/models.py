"""The nouns. Frozen values; every one names its organization. Times are Unix seconds, UTC.

These are also the bodies of the admin API: a field here is a field there.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from policies.facts import Action, Role
from policies.rules import Effect, Rule
from tenants.ids import MemberId, OrgId, ServiceId


class State(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


class Durability(StrEnum):
    """What is certain of a request before anything of it is sent to a model: that its intent outlives a crash of
    the worker, or of the machine too."""

    BUFFERED = "buffered"
    STRICT = "strict"


class Dpop(StrEnum):
    """Whether access tokens are bound to a key of who asks for them (RFC 9449): never, when a client wants it, or
    always, and then a token alone opens nothing."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Org(Struct, frozen=True):
    """An organization. `id` is immutable and never given out twice. `hosts` only narrow (design §6).

    `supersede`: a member's newer completion of the same document ends the older one. `deadline_ms`: how long
    a call may take in all, 0 for the server's own limit; a caller may ask for less. `holds`: see
    `policies.holds`. `timezone` (IANA name): where its days, weeks and months begin. `weight`: its part of what
    organizations share, beside the others'. `durability`: of its audit log. `audit_retention_days`: how long its
    entries are kept, 0 as long as the server says. `audit_hold`: why none of them is dropped now, '' for no hold.
    `audit_prompt_hash`: whether entries of requests have a keyed hash of the prompt.
    `personal_tokens`: whether its people and services may have static keys (`tenants.statickeys`).
    `second_factor`: the roles whose members sign in with a second factor; everybody else may have one.
    """

    id: OrgId
    name: str
    state: State = State.ACTIVE
    hosts: tuple[str, ...] = ()
    supersede: bool = False
    deadline_ms: int = 0
    holds: tuple[str, ...] = ()
    timezone: str = "UTC"
    weight: int = 1
    durability: Durability = Durability.BUFFERED
    audit_retention_days: int = 0
    audit_hold: str = ""
    audit_prompt_hash: bool = False
    personal_tokens: bool = False
    dpop: Dpop = Dpop.OFF
    second_factor: tuple[Role, ...] = ()
    created_at: int = 0
    version: int = 1


class Member(Struct, frozen=True):
    """A person in one organization. Someone in two organizations is two members with two passwords.

    `not_before`: access tokens issued before this instant are refused (a role taken away, a suspension).
    """

    org: OrgId
    id: MemberId
    email: str
    name: str
    roles: tuple[Role, ...]
    state: State = State.ACTIVE
    not_before: int = 0
    created_at: int = 0
    version: int = 1


class Service(Struct, frozen=True):
    """A service account: a program that asks in its own name, with a client of its organization. Not a person: no
    e-mail, no password, no sign-in. `not_before` as of a member."""

    org: OrgId
    id: ServiceId
    name: str
    roles: tuple[Role, ...] = (Role.MEMBER,)
    state: State = State.ACTIVE
    not_before: int = 0
    created_at: int = 0
    version: int = 1


class Team(Struct, frozen=True):
    """Members who share something, a budget among others. Who is in it is in `TeamMember`."""

    org: OrgId
    name: str
    title: str = ""
    created_at: int = 0
    version: int = 1


class TeamMember(Struct, frozen=True):
    """One member of one team, since `added_at`. A member's tokens name their teams (RFC 9068 `groups`). `lead`:
    they may add people to this team and take them out, and see its limits (`tenants.roles.LEADS`)."""

    org: OrgId
    team: str
    member: MemberId
    added_at: int = 0
    lead: bool = False


class WireProtocol(StrEnum):
    """What is spoken to an upstream. `AUTO`: by ALPN over TLS; HTTP/1.1 in clear text."""

    AUTO = "auto"
    H2 = "h2"
    H2C = "h2c"  # prior knowledge, RFC 9113 section 3.3
    HTTP_1_1 = "http/1.1"


class CredentialKind(StrEnum):
    """How the gateway shows an upstream who is calling. A client certificate may come with each of them."""

    BEARER = "bearer"  # `authorization: Bearer`, RFC 6750
    API_KEY = "api-key"  # the header `api-key`: Azure OpenAI
    X_API_KEY = "x-api-key"  # the header `x-api-key`, with `anthropic-version`: Anthropic
    AWS_SIGV4 = "aws-sigv4"  # each request signed: AWS Signature Version 4
    OAUTH_CLIENT_CREDENTIALS = "oauth-client-credentials"  # a token of its own, RFC 6749 section 4.4
    NONE = "none"


class Upstream(Struct, frozen=True):
    """A model server an organization may use. The key is not here: it is in the secret store.

    `base_url` is everything before `/v1/...`, e.g. `https://api.example.com`. `auth`: what kind of key it takes;
    a key is judged by it before it is stored. `ca_pem`: own CA, else the system's. `key_version` counts the keys
    set so far; a worker that sees it rise reads the key again; so with `client_cert_version` and the certificate
    the gateway shows (0: none).

    Each worker holds `connections` of them. `max_in_flight`: requests it may have there at once (0: as many as
    the connections take), shared with other organizations' upstreams of the same origin that have one; up to
    `max_queue` of each organization's lane wait beyond that. A connection is replaced at `connection_age_s` and
    before it has sent `connection_resets` resets (0: never), before the peer's own limits end it.
    `total_timeout_ms`: how long a call may take in all (0: as long as the caller's may).
    """

    org: OrgId
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
    client_cert_version: int = 0
    auth: CredentialKind = CredentialKind.BEARER
    key_version: int = 0
    version: int = 1


class ModelAlias(Struct, frozen=True):
    """The name callers use → the model one upstream serves. `max_tokens` is assumed when a call names none."""

    org: OrgId
    name: str
    upstream: str
    model: str
    tasks: tuple[Action, ...] = (Action.COMPLETE, Action.CHAT, Action.EMBED)
    max_tokens: int = 1_024
    version: int = 1


class LimitScope(StrEnum):
    """Whose bucket: one for the org, one for each team, member, model, client or upstream."""

    ORG = "org"
    TEAM = "team"
    MEMBER = "member"
    MODEL = "model"
    CLIENT = "client"
    UPSTREAM = "upstream"


class LimitUnit(StrEnum):
    """What is counted. `TOKENS`: input and output together; `BYTES`: of requests and answers together;
    `SPEND`: nanodollars (10⁻⁹ USD), by the price table."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    BYTES = "bytes"
    SPEND = "spend"
    CONCURRENCY = "concurrency"


class Window(StrEnum):
    """A budget's calendar window, in the organization's time zone; weeks begin on Monday (ISO 8601)."""

    NONE = ""
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class OnOutage(StrEnum):
    """What holds while the store of limits cannot be asked: this worker's share of the limit, counted by itself;
    nothing passes; everything does."""

    LOCAL = "local"
    DENY = "deny"
    ALLOW = "allow"


class OnEnd(StrEnum):
    """What becomes of a request for which not all is left that it may use.

    `FINISH`: it is admitted only if all it may use is left; what it uses beyond that is a debt. `CUT`: it is
    admitted with what is left, and its stream is ended when that is gone. `DENY_NEXT`: it is admitted while
    anything is left and may finish; the debt denies the next.
    """

    FINISH = "finish"
    CUT = "cut"
    DENY_NEXT = "deny-next"


class Limit(Struct, frozen=True):
    """`amount` of `unit` per `period_s` seconds (0 for concurrency and with a `window`).

    `subject` narrows to one id, '' = each. The bucket holds `burst` at most (0 means `amount`) and refills evenly
    over the period. With a `window` it is a budget: `amount` per calendar window, not refilled and not carried
    over. `notify_at`: percent of it used at which somebody is told.

    Limits of the platform: scope `org` is one bucket for each organization, its amount times the organization's
    weight; scope `upstream` one for each origin (`https://host:port`), shared by all organizations.
    """

    org: OrgId
    name: str
    scope: LimitScope
    unit: LimitUnit
    amount: int
    period_s: int = 60
    burst: int = 0
    subject: str = ""
    window: Window = Window.NONE
    on_outage: OnOutage = OnOutage.LOCAL
    on_end: OnEnd = OnEnd.FINISH
    notify_at: tuple[int, ...] = ()
    version: int = 1


class Price(Struct, frozen=True):
    """What one model costs: nanodollars per million tokens. `model` is the provider's name of it.

    Those of the platform are everybody's; an organization's own goes before. `version` counts the imports.
    """

    org: OrgId
    model: str
    input: int
    output: int
    version: int = 1


class OrgRule(Struct, frozen=True):
    """A policy rule as stored: `policies.rules.Rule` with its organization and version."""

    org: OrgId
    name: str
    effect: Effect
    roles: tuple[Role, ...]
    actions: tuple[Action, ...]
    models: tuple[str, ...]
    version: int = 1

    def rule(self) -> Rule:
        return Rule(id=self.name, effect=self.effect, roles=self.roles, actions=self.actions, models=self.models)


class KeyState(StrEnum):
    """`PENDING`: a rotation has begun. `OVERLAP`: the new key serves, and the one before is kept."""

    NONE = "none"
    SET = "set"
    PENDING = "pending"
    OVERLAP = "overlap"


class UpstreamKey(Struct, frozen=True):
    """What the control process knows of an upstream's key, but for the key. 0: not, or never.

    `stored`: the version in the store of keys. While PENDING it is the one from before, and `overlap_s` is what
    the overlap will be; it ends at `overlap_ends_at`. `every_s`: rotated so often, next at `next_at`, with a key
    that `command` prints; `revoke` is told the old one at the end of an overlap of `rotate_overlap_s`. `failure`:
    why the last rotation of the schedule did not succeed, or that the last one was rolled back.
    """

    org: OrgId
    name: str
    state: KeyState = KeyState.NONE
    stored: int = 0
    set_at: int = 0
    used_at: int = 0
    overlap_s: int = 0
    overlap_ends_at: int = 0
    every_s: int = 0
    next_at: int = 0
    command: str = ""
    revoke: str = ""
    rotate_overlap_s: int = 0
    failure: str = ""


class Revocation(Struct, frozen=True):
    """Access tokens of `org` (and of `member`, or with id `token_id`, when set) issued before `not_before`
    are refused. Forgotten once the longest token has ended (`expires_at`). A client's id in the place of `member`,
    which has a dot and so is nobody's: those that were issued to that client."""

    org: OrgId
    not_before: int
    expires_at: int
    member: str = ""
    token_id: str = ""
