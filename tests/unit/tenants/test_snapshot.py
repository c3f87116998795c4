"""The snapshot: applying deltas one by one gives what a full one gives; a revoked token stays revoked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.facts import Action, Allowed, Facts, Refused, Role
from policies.rules import Effect
from tenants.ids import OrgId
from tenants.models import ModelAlias, Org, OrgRule, Revocation, State, Upstream
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S, not_before, revoke_tokens
from tenants.snapshot import Delta, Snapshot, Tenant, TenantRecord

ORGS = tuple(OrgId(name) for name in ("acme", "globex", "initech", "umbrella"))
ACME, GLOBEX = ORGS[:2]


def record(org: OrgId, version: int = 1, state: State = State.ACTIVE) -> TenantRecord:
    return TenantRecord(
        org=Org(id=org, name=org.title(), state=state, hosts=(f"{org}.gateway.example",), version=version),
        upstreams=(Upstream(org=org, name="main", base_url="https://model.example"),),
        models=(ModelAlias(org=org, name="code", upstream="main", model="m"),),
        rules=(
            OrgRule(
                org=org,
                name="all",
                effect=Effect.ALLOW,
                roles=(Role.MEMBER,),
                actions=(Action.CHAT,),
                models=("*",),
            ),
        ),
    )


revocations = st.lists(
    st.builds(
        Revocation,
        org=st.sampled_from(ORGS),
        not_before=st.integers(0, 100),
        expires_at=st.just(2000),
        member=st.sampled_from(("", "mem_1", "mem_2")),
        token_id=st.sampled_from(("", "", "jti-1", "jti-2")),
    ),
    max_size=6,
).map(tuple)
# One step: an organization is written, or removed; and the revocations that stand after it.
steps = st.lists(
    st.tuples(st.sampled_from(ORGS), st.sampled_from(("write", "suspend", "remove")), revocations), max_size=12
)


@given(steps, st.booleans())
def test_deltas_one_by_one_give_the_full_snapshot(
    history: list[tuple[OrgId, str, tuple[Revocation, ...]]], with_keys: bool
) -> None:
    world: dict[OrgId, TenantRecord] = {}
    standing: tuple[Revocation, ...] = ()
    snapshot = Snapshot(jwks="keys-0")
    jwks = "keys-0"
    for version, (org, what, standing) in enumerate(history, start=1):
        fresh = f"keys-{version}" if with_keys and version % 3 == 0 else ""
        jwks = fresh or jwks
        if what == "remove":
            world.pop(org, None)
            delta = Delta(version, full=False, removed=(org,), revocations=standing, jwks=fresh)
        else:
            state = State.ACTIVE if what == "write" else State.SUSPENDED
            world[org] = record(org, version, state)
            delta = Delta(version, full=False, orgs=(world[org],), revocations=standing, jwks=fresh)
        snapshot = snapshot.apply(delta)
    full = Snapshot().apply(Delta(len(history), True, tuple(world.values()), (), standing, jwks))
    assert (snapshot.version, dict(snapshot.records), dict(snapshot.hosts), snapshot.jwks) == (
        full.version,
        dict(full.records),
        dict(full.hosts),
        full.jwks,
    )
    assert {org: tenant.active for org, tenant in snapshot.tenants.items()} == {
        org: one.org.state is State.ACTIVE for org, one in world.items()
    }
    for org in ORGS:
        for member in ("mem_1", "mem_2", "mem_3"):
            for token in ("jti-1", "jti-3"):
                for issued_at in (0, 50, 99, 100):
                    asked = (org, member, token, issued_at)
                    assert snapshot.revoked(*asked) == full.revoked(*asked) == expected(standing, *asked)


def expected(standing: tuple[Revocation, ...], org: str, member: str, token: str, issued_at: int) -> bool:
    """The sentence of `Revocation`'s docstring, the slow way."""
    return any(
        item.token_id == token if item.token_id else item.member in ("", member) and issued_at < item.not_before
        for item in standing
        if item.org == org
    )


def test_a_delta_leaves_the_old_snapshot_and_shares_what_did_not_change() -> None:
    old = Snapshot(1, [record(ACME), record(GLOBEX)])
    new = old.apply(Delta(2, full=False, orgs=(record(ACME, 2),)))
    assert old.tenants[ACME].org.version == 1
    assert new.tenants[ACME].org.version == 2
    assert new.tenants[GLOBEX] is old.tenants[GLOBEX]
    assert (old.version, new.version) == (1, 2)


def test_a_full_delta_shares_nothing_and_may_go_back() -> None:
    """A store restored from a backup begins again at an older version: what it says is the truth."""
    old = Snapshot(9, [record(ACME), record(GLOBEX)], jwks="keys")
    new = old.apply(Delta(3, full=True, orgs=(record(ACME, 3),)))
    assert (new.version, set(new.tenants), new.jwks) == (3, {ACME}, "keys")


def test_a_late_delta_brings_no_revoked_token_back() -> None:
    revoked = Revocation(ACME, 100, 2000, member="mem_1")
    now = Snapshot(5, [record(ACME)], (revoked,))
    assert now.apply(Delta(4, full=False)) is now
    assert now.apply(Delta(5, full=False, revocations=(revoked,), jwks="new")).jwks == "new"


def test_nothing_of_a_snapshot_can_be_changed() -> None:
    snapshot = Snapshot(1, [record(ACME)])
    for mapping in (snapshot.records, snapshot.tenants, snapshot.hosts, snapshot.tenants[ACME].models):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]


def test_a_tenant_is_ready_to_be_asked() -> None:
    tenant = Tenant(record(ACME))
    assert (tenant.id, tenant.active, tenant.hosts) == (ACME, True, frozenset({"acme.gateway.example"}))
    assert tenant.upstreams[tenant.models["code"].upstream].base_url == "https://model.example"
    asked = Facts(ACME, "mem_1", frozenset({Role.MEMBER}), "cli", Action.CHAT, "code")
    assert tenant.policy.decide(asked) == Allowed("all")
    nobody = Facts(ACME, "mem_1", frozenset({Role.AUDITOR}), "cli", Action.CHAT, "code")
    assert isinstance(tenant.policy.decide(nobody), Refused)
    assert not Tenant(record(ACME, state=State.SUSPENDED)).active


def test_an_empty_snapshot_knows_nobody() -> None:
    empty = Snapshot()
    assert (empty.version, dict(empty.tenants), empty.revoked(ACME, "mem_1", "jti", 0)) == (0, {}, False)


@pytest.mark.parametrize("now", [1000.0, 1000.001, 1000.999])
def test_a_token_of_this_very_second_is_revoked_too(now: float) -> None:
    """`iat` counts whole seconds: a token of 1000.2 and a decision at 1000.9 bear the same number."""
    snapshot = Snapshot(1, [record(ACME)], (revoke_tokens(ACME, now, member="mem_1"),))
    assert snapshot.revoked(ACME, "mem_1", "jti", int(now))
    assert not snapshot.revoked(ACME, "mem_1", "jti", not_before(now))
    assert not snapshot.revoked(ACME, "mem_2", "jti", int(now))
    assert not snapshot.revoked(GLOBEX, "mem_1", "jti", int(now))


def test_a_revocation_outlives_the_longest_token() -> None:
    made = revoke_tokens(ACME, 1000.5)
    assert made.expires_at - 1000 > LONGEST_TOKEN_S + LEEWAY_S


def test_a_snapshot_tells_which_upstreams_there_are() -> None:
    acme, globex = OrgId("acme"), OrgId("globex")
    records = [
        TenantRecord(Org(acme, "A"), upstreams=(Upstream(acme, "one", "https://one.example"),)),
        TenantRecord(Org(globex, "G"), upstreams=(Upstream(globex, "one", "https://one.example"),)),
    ]
    assert Snapshot(1, records).upstreams == {(acme, "one"), (globex, "one")}
    assert Snapshot(1, records).apply(Delta(2, full=False, removed=(acme,))).upstreams == {(globex, "one")}
