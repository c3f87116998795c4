"""What a good token gives, and what is looked at again on every call although the signature is cached."""

from __future__ import annotations

import json

import pytest

from gateway.authn.verify import EXPIRED, INVALID, MISSING, Authenticator
from gateway.errors import SuspendedError, UnauthenticatedError, UnavailableError
from policies.facts import Role
from tenants.ids import PLATFORM, OrgId
from tenants.models import Revocation
from tenants.snapshot import Snapshot
from tests.unit.authn import tokens


class Bench:
    def __init__(self, cache_size: int = 10_000) -> None:
        self.now = float(tokens.NOW)
        self.authn = Authenticator(tokens.ISSUER, tokens.AUDIENCE, lambda: self.now, cache_size)

    def ask(self, token: str, snapshot: Snapshot | None = None, host: str = "gateway.example:8443") -> object:
        return self.authn.authenticate(f"Bearer {token}".encode(), host, snapshot or tokens.world())


def refused(bench: Bench, token: str, says: str, snapshot: Snapshot | None = None, host: str = "x") -> None:
    for _ in range(2):  # the second time the signature comes from the cache
        with pytest.raises(UnauthenticatedError) as caught:
            bench.ask(token, snapshot, host)
        assert caught.value.message == says


def test_a_good_token_names_its_principal() -> None:
    principal = Bench().authn.authenticate(f"Bearer {tokens.token()}".encode(), "gateway.example", tokens.world())
    assert principal.org == "acme"
    assert principal.member == "mem_ada"
    assert principal.roles == {Role.MEMBER}
    assert principal.client == "orgate-cli"
    assert principal.token_id == "token-1"
    assert principal.audience == tokens.AUDIENCE
    assert (principal.issued_at, principal.expires_at) == (tokens.NOW - 10, tokens.NOW + 890)


def test_a_tokens_groups_are_its_members_teams() -> None:
    def teams(token: str) -> tuple[str, ...]:
        return Bench().authn.authenticate(f"Bearer {token}".encode(), "h", tokens.world()).teams

    assert teams(tokens.token(groups=["core", "platform"])) == ("core", "platform")
    assert teams(tokens.token()) == ()


def test_the_scheme_is_case_insensitive_and_the_media_type_may_be_spelled_out() -> None:
    token = tokens.sign(tokens.header(typ="application/AT+JWT"), tokens.claims(aud=["other", tokens.AUDIENCE]))
    assert Bench().authn.authenticate(f"bEaReR {token}".encode(), "h", tokens.world()).member == "mem_ada"


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Basic YTpi", b"Token x", b"\xff\xff"])
def test_no_bearer_token(header: bytes | None) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        Bench().authn.authenticate(header, "gateway.example", tokens.world())
    assert caught.value.message == MISSING


def test_expiry_is_looked_at_on_every_call() -> None:
    bench = Bench()
    token = tokens.token()
    bench.ask(token)
    bench.now = tokens.NOW + 889.9
    bench.ask(token)
    bench.now = tokens.NOW + 890
    refused(bench, token, EXPIRED)


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(org=OrgId("acme"), not_before=tokens.NOW, expires_at=tokens.NOW + 1800),
        Revocation(org=OrgId("acme"), not_before=tokens.NOW, expires_at=tokens.NOW + 1800, member="mem_ada"),
        Revocation(org=OrgId("acme"), not_before=tokens.NOW, expires_at=tokens.NOW + 1800, token_id="token-1"),
    ],
)
def test_revocation_is_looked_at_on_every_call(revocation: Revocation) -> None:
    bench = Bench()
    bench.ask(tokens.token())
    refused(bench, tokens.token(), INVALID, tokens.world(revocations=(revocation,)))
    bench.ask(tokens.token(iat=tokens.NOW, jti="later"), tokens.world(revocations=(revocation,)))


def test_another_organization_s_revocation_is_not_mine() -> None:
    other = Revocation(org=OrgId("globex"), not_before=tokens.NOW, expires_at=tokens.NOW + 9, member="mem_ada")
    Bench().ask(tokens.token(), tokens.world(revocations=(other,)))


def test_the_organization_s_state_is_looked_at_on_every_call() -> None:
    bench = Bench()
    bench.ask(tokens.token())
    with pytest.raises(SuspendedError) as caught:
        bench.ask(tokens.token(), tokens.world(suspended=("acme",)))
    assert caught.value.status == 403
    bench.ask(tokens.token(), tokens.world(suspended=("globex",)))
    refused(bench, tokens.token(), INVALID, Snapshot(2, (), (), tokens.jwks("server")))  # deleted


def test_suspending_an_organization_says_so_although_it_revokes_its_tokens() -> None:
    revoked = (Revocation(OrgId("acme"), tokens.NOW, tokens.NOW + 4_000),)
    with pytest.raises(SuspendedError):
        Bench().ask(tokens.token(), tokens.world(revocations=revoked, suspended=("acme",)))
    refused(Bench(), tokens.token(), INVALID, tokens.world(revocations=revoked))  # resumed


@pytest.mark.parametrize(
    "host", ["globex.gateway.example", "GLOBEX.gateway.example:8443", "globex.gateway.example."]
)
def test_a_dedicated_host_of_another_organization_refuses(host: str) -> None:
    bench = Bench()
    for mine in ("acme.gateway.example", "ACME.gateway.example:443", "gateway.example", "[::1]:8443", ""):
        bench.ask(tokens.token(), host=mine)
    refused(bench, tokens.token(), INVALID, host=host)
    refused(bench, tokens.token(), INVALID, tokens.world(suspended=("acme",)), host=host)  # not even "suspended"


def test_another_audience_refuses_also_from_the_cache() -> None:
    refused(Bench(), tokens.token(aud="https://gateway.example/admin"), INVALID)


def test_operators_belong_to_the_platform_which_serves_no_models() -> None:
    operator = tokens.token(org=PLATFORM, roles=["operator"])
    Bench().ask(operator)
    refused(Bench(), tokens.token(roles=["operator"]), INVALID)
    refused(Bench(), operator, INVALID, host="acme.gateway.example")


def test_new_keys_empty_the_cache() -> None:
    bench = Bench()
    bench.ask(tokens.token())
    bench.ask(tokens.token(), tokens.world(keys=("next", "server")))
    refused(bench, tokens.token(), INVALID, tokens.world(keys=("next",)))
    bench.ask(tokens.token())


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    bench = Bench(cache_size=2)
    first, second, third = (tokens.token(jti=f"t{n}") for n in range(3))
    for token in (first, second, first, third):
        bench.ask(token)
    assert list(bench.authn._cache) == [first.encode(), third.encode()]
    for n in range(20):
        with pytest.raises(UnauthenticatedError):
            bench.ask(f"{first}{n}")
    assert list(bench.authn._cache) == [first.encode(), third.encode()]  # forgeries never enter it


def test_a_not_before_in_the_future_waits() -> None:
    bench = Bench()
    token = tokens.token(nbf=tokens.NOW + 100)
    refused(bench, token, INVALID)
    bench.now += 80
    bench.ask(token)


def test_without_keys_no_token_is_judged() -> None:
    bench = Bench()
    with pytest.raises(UnavailableError) as caught:
        bench.ask(tokens.token(), Snapshot())
    assert caught.value.retry_after_s
    with pytest.raises(UnauthenticatedError):
        bench.authn.authenticate(None, "x", Snapshot())
    refused(bench, tokens.token(), INVALID, Snapshot(1, (), (), '{"keys": []}'))


def test_keys_of_other_kinds_in_the_jwks_are_passed_over() -> None:
    found = json.loads(tokens.jwks("server"))
    odd = [
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": "AA", "y": "AA"},
        {"kty": "oct", "kid": "oct", "k": "AA"},
        {**tokens.jwk("attacker"), "use": "enc"},
        {**tokens.jwk("attacker"), "alg": "PS256"},
    ]
    world = tokens.world()
    mixed = Snapshot(2, world.records.values(), (), json.dumps({"keys": [*odd, *found["keys"]]}))
    bench = Bench()
    bench.ask(tokens.token(), mixed)
    forged = tokens.sign(tokens.header(kid=tokens.kid("attacker")), tokens.claims(), "attacker")
    refused(bench, forged, INVALID, mixed)
