"""What the data plane reads: immutable, versioned, swapped in one assignment.

A worker holds one `Snapshot`; a request pins it once and sees one consistent world. It holds what belongs
to organizations and the revocations younger than the longest token, never all members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType

from msgspec import Struct, json

from policies.facts import Policy
from policies.rules import RulesPolicy
from tenants.ids import OrgId
from tenants.models import Dpop, Limit, ModelAlias, Org, OrgRule, Price, Revocation, State, Upstream
from tenants.statickeys import ServedKey

_rules = json.Encoder(order="sorted")


class TenantRecord(Struct, frozen=True):
    """One organization as it travels over the bus."""

    org: Org
    upstreams: tuple[Upstream, ...] = ()
    models: tuple[ModelAlias, ...] = ()
    limits: tuple[Limit, ...] = ()
    rules: tuple[OrgRule, ...] = ()
    prices: tuple[Price, ...] = ()
    static_keys: tuple[ServedKey, ...] = ()


class Delta(Struct, frozen=True):
    """What changed up to `version`. `full` replaces everything; else orgs named here replace their old self.

    `revocations` is always the whole current list (it is short by design). `jwks` is the public key set that
    verifies access tokens, as JSON text (RFC 7517), or '' when unchanged.
    """

    version: int
    full: bool
    orgs: tuple[TenantRecord, ...] = ()
    removed: tuple[OrgId, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    jwks: str = ""


class Tenant:
    """One organization, ready to be asked."""

    __slots__ = (
        "hosts",
        "id",
        "limits",
        "models",
        "org",
        "policy",
        "policy_digest",
        "prices",
        "proof_required",
        "static_keys",
        "upstreams",
    )

    def __init__(self, record: TenantRecord) -> None:
        self.org: Org = record.org
        self.id: OrgId = record.org.id
        self.hosts: frozenset[str] = frozenset(record.org.hosts)
        self.proof_required: bool = record.org.dpop is Dpop.REQUIRED
        self.upstreams: Mapping[str, Upstream] = MappingProxyType({u.name: u for u in record.upstreams})
        self.models: Mapping[str, ModelAlias] = MappingProxyType({m.name: m for m in record.models})
        self.limits: tuple[Limit, ...] = record.limits
        self.static_keys: Mapping[str, ServedKey] = MappingProxyType({k.digest: k for k in record.static_keys})
        self.prices: Mapping[str, Price] = MappingProxyType({price.model: price for price in record.prices})
        rules = [rule.rule() for rule in record.rules]
        self.policy: Policy = RulesPolicy(rules)
        self.policy_digest: str = sha256(_rules.encode(rules)).hexdigest()[:32]
        """Which rules these are: 128 bits of the SHA-256 of them as canonical JSON (RFC 8785), in their order."""

    @property
    def active(self) -> bool:
        return self.org.state is State.ACTIVE


class Snapshot:
    """The world at one version. Never changed after it is made; `apply` makes the next one."""

    __slots__ = (
        "_by_member",
        "_by_org",
        "_by_token",
        "hosts",
        "jwks",
        "keyed",
        "records",
        "revocations",
        "tenants",
        "version",
    )

    def __init__(
        self,
        version: int = 0,
        records: Iterable[TenantRecord] = (),
        revocations: tuple[Revocation, ...] = (),
        jwks: str = "",
        *,
        reuse: Mapping[OrgId, Tenant] | None = None,
    ) -> None:
        self.version = version
        self.records: Mapping[OrgId, TenantRecord] = MappingProxyType({r.org.id: r for r in records})
        known = reuse or {}
        self.tenants: Mapping[OrgId, Tenant] = MappingProxyType(
            {org: known[org] if org in known else Tenant(record) for org, record in self.records.items()}
        )
        self.hosts: Mapping[str, OrgId] = MappingProxyType(
            {host: tenant.id for tenant in self.tenants.values() for host in tenant.hosts}
        )
        self.keyed: tuple[Tenant, ...] = tuple(one for one in self.tenants.values() if one.static_keys)
        """Those that have static keys: few, where one is looked for."""
        self.revocations = revocations
        self.jwks = jwks
        self._by_org: dict[str, int] = {}
        self._by_member: dict[tuple[str, str], int] = {}
        self._by_token: set[tuple[str, str]] = set()
        for item in revocations:
            if item.token_id:
                self._by_token.add((item.org, item.token_id))
            elif item.member:
                key = (item.org, item.member)
                self._by_member[key] = max(item.not_before, self._by_member.get(key, 0))
            else:
                self._by_org[item.org] = max(item.not_before, self._by_org.get(item.org, 0))

    @property
    def upstreams(self) -> frozenset[tuple[OrgId, str]]:
        """Every upstream there is, by organization and name."""
        return frozenset((org, name) for org, tenant in self.tenants.items() for name in tenant.upstreams)

    def revoked(self, org: OrgId, member: str, token_id: str, issued_at: int, client: str = "") -> bool:
        """Whether a token issued at `issued_at` to `client` has been taken back. Looked at on every request."""
        return (
            issued_at < self._by_org.get(org, 0)
            or issued_at < self._by_member.get((org, member), 0)
            or issued_at < self._by_member.get((org, client), 0)
            or (org, token_id) in self._by_token
        )

    def apply(self, delta: Delta) -> Snapshot:
        """The next snapshot. Tenants that did not change are shared with this one.

        A partial delta older than this snapshot changes nothing: its revocations would let go of newer ones.
        """
        if delta.version < self.version and not delta.full:
            return self
        changed = {record.org.id: record for record in delta.orgs}
        if delta.full:
            return Snapshot(delta.version, delta.orgs, delta.revocations, delta.jwks or self.jwks)
        kept = {org: r for org, r in self.records.items() if org not in changed and org not in delta.removed}
        return Snapshot(
            delta.version,
            [*kept.values(), *delta.orgs],
            delta.revocations,
            delta.jwks or self.jwks,
            reuse={org: self.tenants[org] for org in kept},
        )
