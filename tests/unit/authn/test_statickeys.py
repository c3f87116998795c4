"""Personal tokens at stage 1: what one gives, what is looked at every time, and how it is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec import structs

from gateway.authn.statickeys import CLIENT, StaticKeys
from gateway.authn.verify import EXPIRED, INVALID, Authenticator
from gateway.errors import ProofNeededError, SuspendedError, UnauthenticatedError
from gateway.exchange import Principal
from policies.facts import Action, Role
from tenants.ids import OrgId
from tenants.models import Dpop, Org, Revocation, State
from tenants.opaque import OpaqueKind, digest_of, new_key
from tenants.snapshot import Delta, Snapshot, TenantRecord
from tenants.statickeys import KeyScope, ServedKey
from tests.unit.authn import tokens

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
KEY, OTHER = (new_key(OpaqueKind.PERSONAL, os.urandom) for _ in range(2))
SCOPE = KeyScope((Action.CHAT,), ("code",))


def served(text: str = KEY, **changes: Any) -> ServedKey:
    made = ServedKey(
        digest=digest_of(text),
        id="pt_1",
        subject="mem_ada",
        roles=(Role.MEMBER,),
        teams=("core",),
        scope=SCOPE,
        created_at=tokens.NOW - 1_000,
        expires_at=tokens.NOW + 1_000,
    )
    return structs.replace(made, **changes)


def world(*keys: ServedKey, org: Org | None = None, revocations: tuple[Revocation, ...] = ()) -> Snapshot:
    acme = org or Org(id=ACME, name="Acme", personal_tokens=True)
    globex = Org(id=GLOBEX, name="Globex", hosts=("globex.example",))
    records = [TenantRecord(globex), TenantRecord(acme, static_keys=keys or (served(),))]
    return Snapshot(1, records, revocations, tokens.jwks("server"))


class Bench:
    def __init__(self) -> None:
        self.now = float(tokens.NOW)
        self.keys = StaticKeys(tokens.AUDIENCE, lambda: self.now)
        self.authn = Authenticator(tokens.ISSUER, tokens.AUDIENCE, lambda: self.now, static_keys=self.keys)

    def ask(
        self, text: str = KEY, snapshot: Snapshot | None = None, host: str = "h", scheme: str = "Bearer"
    ) -> Principal:
        return self.authn.authenticate(f"{scheme} {text}".encode(), host, snapshot or world())


def test_a_key_speaks_for_its_owner_as_they_are_now() -> None:
    assert Bench().ask() == Principal(
        org=ACME,
        member="mem_ada",
        roles=frozenset({Role.MEMBER}),
        client=CLIENT,
        token_id="pt_1",
        audience=tokens.AUDIENCE,
        issued_at=tokens.NOW - 1_000,
        expires_at=tokens.NOW + 1_000,
        teams=("core",),
        scope=SCOPE,
    )
    assert Bench().ask(snapshot=world(served(roles=(Role.AUDITOR,)))).roles == {Role.AUDITOR}
    assert Bench().ask(scheme="bEaReR").member == "mem_ada"


def test_it_needs_no_signing_keys() -> None:
    records = [TenantRecord(Org(id=ACME, name="Acme"), static_keys=(served(),))]
    assert Bench().ask(snapshot=Snapshot(1, records)).org == ACME


@pytest.mark.parametrize(
    "text",
    [
        OTHER,
        KEY[:-1],
        KEY + "x",
        KEY.replace("orgate_pt_", "orgate_scim_"),
        KEY.swapcase(),
        "orgate_",
        "orgate_pt_" + "0" * 42,
        "orgate_" + "x" * 30_000,
        digest_of(KEY),
        " " + KEY,
    ],
    ids=range(10),
)
def test_what_is_no_key_here_is_refused_as_a_forged_token_is(text: str) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        Bench().ask(text)
    assert caught.value.message == INVALID


def test_one_that_has_expired() -> None:
    bench = Bench()
    bench.now = tokens.NOW + 999.9
    assert bench.ask().token_id == "pt_1"
    bench.now = tokens.NOW + 1_000
    with pytest.raises(UnauthenticatedError) as caught:
        bench.ask()
    assert caught.value.message == EXPIRED
    assert Bench().keys.take() == {}


def test_another_organizations_host_name_refuses_it() -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        Bench().ask(host="GLOBEX.example.:8443")
    assert caught.value.message == INVALID
    assert Bench().ask(host="gateway.example").org == ACME


def test_a_suspended_organization_says_so() -> None:
    with pytest.raises(SuspendedError):
        Bench().ask(snapshot=world(org=Org(id=ACME, name="Acme", state=State.SUSPENDED)))


def test_an_organization_that_wants_proofs_takes_none() -> None:
    with pytest.raises(ProofNeededError):
        Bench().ask(snapshot=world(org=Org(id=ACME, name="Acme", dpop=Dpop.REQUIRED)))


def test_it_is_no_token_of_the_other_schemes() -> None:
    for scheme in ("DPoP", "Basic", "orgate"):
        with pytest.raises(UnauthenticatedError):
            Bench().ask(scheme=scheme)


def test_it_opens_nothing_where_nobody_judges_keys() -> None:
    admin = Authenticator(tokens.ISSUER, f"{tokens.ISSUER}/admin", lambda: float(tokens.NOW))
    with pytest.raises(UnauthenticatedError) as caught:
        admin.authenticate(f"Bearer {KEY}".encode(), "h", world())
    assert caught.value.message == INVALID


def test_a_revocation_of_access_tokens_is_not_about_it() -> None:
    """A member who loses one of two roles keeps their key, without the role: the snapshot says what is left."""
    lost = Revocation(ACME, not_before=tokens.NOW + 1, expires_at=tokens.NOW + 2_000, member="mem_ada")
    assert Bench().ask(snapshot=world(revocations=(lost,))).member == "mem_ada"


def test_a_snapshot_without_it_ends_it() -> None:
    bench, now = Bench(), world()
    assert bench.ask(snapshot=now).token_id == "pt_1"
    record = TenantRecord(Org(id=ACME, name="Acme"))
    with pytest.raises(UnauthenticatedError):
        bench.ask(snapshot=now.apply(Delta(2, full=False, orgs=(record,))))


def test_last_use_is_kept_to_the_minute_until_it_is_taken() -> None:
    bench, at = Bench(), tokens.NOW - tokens.NOW % 60
    for _ in range(3):
        bench.ask()
    assert bench.keys.take() == {(ACME, "pt_1"): at}
    bench.ask()
    assert bench.keys.take() == {}, "it is known of this minute"
    bench.now = at + 60
    bench.ask()
    taken = bench.keys.take()
    assert taken == {(ACME, "pt_1"): at + 60}
    bench.keys.give_back(taken)
    bench.now = at + 120
    bench.ask()
    assert bench.keys.take() == {(ACME, "pt_1"): at + 120}


def test_a_key_that_is_gone_is_forgotten() -> None:
    bench = Bench()
    bench.ask()
    bench.keys.keep(world(served(OTHER, id="pt_2")))
    assert bench.keys.take() == {}
