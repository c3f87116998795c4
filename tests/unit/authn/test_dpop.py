"""Tokens that are bound to a key (RFC 9449 section 7), and organizations that take no others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.authn.verify import EXPIRED, INVALID, Authenticator
from gateway.dpop import Presented
from gateway.errors import InvalidProofError, ProofNeededError, UnauthenticatedError
from gateway.exchange import Principal
from tenants.models import Dpop
from tenants.snapshot import Snapshot
from tests.kit.dpop import ProofKey
from tests.unit.authn import tokens

KEY = ProofKey.make()
PATH = "/v1/completions"
URL = tokens.ISSUER + PATH


def bound(**changes: object) -> str:
    return tokens.token(cnf={"jkt": KEY.jkt}, **changes)


def world(dpop: Dpop = Dpop.OPTIONAL) -> Snapshot:
    was = tokens.world()
    records = [replace(record, org=replace(record.org, dpop=dpop)) for record in was.records.values()]
    return Snapshot(2, records, (), was.jwks)


class Bench:
    def __init__(self, **options: object) -> None:
        self.now = float(tokens.NOW)
        self.authn = Authenticator(tokens.ISSUER, tokens.AUDIENCE, lambda: self.now, **options)  # type: ignore[arg-type]

    def ask(
        self,
        token: str,
        proof: str | None,
        *,
        scheme: str = "DPoP",
        dpop: Dpop = Dpop.OPTIONAL,
        method: str = "POST",
        path: str = PATH,
        host: str = "gateway.example",
    ) -> Principal:
        shown = None if proof is None else Presented(proof.encode(), method, path)
        return self.authn.authenticate(f"{scheme} {token}".encode(), host, world(dpop), shown)

    def proof(self, token: str, url: str = URL, key: ProofKey = KEY, **changes: object) -> str:
        return key.proof("POST", url, self.now, token=token, **changes)


def test_whoever_holds_the_key_is_let_in() -> None:
    bench = Bench()
    token = bound()
    for scheme in ("DPoP", "dpop", "DPOP"):
        principal = bench.ask(token, bench.proof(token), scheme=scheme)
        assert (principal.member, principal.jkt) == ("mem_ada", KEY.jkt)


@pytest.mark.parametrize("dpop", list(Dpop))
def test_whoever_stole_a_bound_token_is_not(dpop: Dpop) -> None:
    bench, token, thief = Bench(), bound(), ProofKey.make()
    for _ in range(2):  # the second time the token's signature comes from the cache
        for proof in (None, bench.proof(token, key=thief), "", "x.y.z", bench.proof(bound(jti="other"))):
            with pytest.raises(InvalidProofError):
                bench.ask(token, proof, dpop=dpop)
        for proof in (None, bench.proof(token)):
            with pytest.raises(ProofNeededError):
                bench.ask(token, proof, scheme="Bearer", dpop=dpop)


def test_a_token_without_a_key_is_no_dpop_token() -> None:
    bench = Bench()
    token = tokens.token()
    with pytest.raises(ProofNeededError, match="no key"):
        bench.ask(token, bench.proof(token))
    bench.ask(token, bench.proof(token), scheme="Bearer")  # a proof that nobody asked for


def test_an_organization_that_requires_proofs_takes_no_bearer_token() -> None:
    bench = Bench(unbound=frozenset({"orgate-web"}))
    with pytest.raises(ProofNeededError):
        bench.ask(tokens.token(), None, scheme="Bearer", dpop=Dpop.REQUIRED)
    bench.ask(tokens.token(client_id="orgate-web"), None, scheme="Bearer", dpop=Dpop.REQUIRED)
    bench.ask(bound(), bench.proof(bound()), dpop=Dpop.REQUIRED)
    with pytest.raises(ProofNeededError):
        Bench().ask(tokens.token(client_id="orgate-web"), None, scheme="Bearer", dpop=Dpop.REQUIRED)


def test_a_proof_counts_once_and_for_one_request() -> None:
    bench, token = Bench(), bound()
    proof = bench.proof(token)
    with pytest.raises(InvalidProofError):
        bench.ask(token, proof, path="/v1/chat/completions")
    with pytest.raises(InvalidProofError):
        bench.ask(token, proof, method="GET")
    bench.ask(token, proof)  # what was refused did not use it up
    with pytest.raises(InvalidProofError, match="before"):
        bench.ask(token, proof)
    bench.now += 61
    with pytest.raises(InvalidProofError, match="iat"):
        bench.ask(token, proof)


def test_the_url_is_the_public_one_or_one_of_the_organization_s_own() -> None:
    bench, token = Bench(url="https://gateway.example:8443"), bound()
    for name in ("gateway.example:8443", "acme.gateway.example:8443", "ACME.gateway.example:8443"):
        bench.ask(token, bench.proof(token, f"https://{name}{PATH}"), host="10.0.0.1:9000")
    for name in ("gateway.example", "globex.gateway.example:8443", "10.0.0.1:9000", "acme.gateway.example"):
        with pytest.raises(InvalidProofError, match="htu"):
            bench.ask(token, bench.proof(token, f"https://{name}{PATH}"), host="10.0.0.1:9000")


def test_what_is_wrong_with_the_token_comes_first_and_by_its_scheme() -> None:
    bench = Bench()
    old, foreign = bound(exp=tokens.NOW), bound(aud="https://gateway.example/admin")
    for token, says in ((old, EXPIRED), (foreign, INVALID), (bound() + "x", INVALID)):
        with pytest.raises(ProofNeededError) as caught:
            bench.ask(token, bench.proof(token))
        assert (caught.value.message, caught.value.code) == (says, "invalid_token")


@pytest.mark.parametrize(
    "cnf",
    [{}, {"jkt": ""}, {"jkt": 7}, {"jkt": "x" * 42}, {"jkt": "x" * 44}, {"x5t#S256": "x" * 43}, "x", None, [],
     {"jkt": "x" * 43, "x5t#S256": "x" * 43}],
)  # fmt: skip
def test_a_confirmation_that_is_not_understood_confirms_nothing(cnf: object) -> None:
    """RFC 7800 section 3.1."""
    for scheme in ("Bearer", "DPoP"):
        with pytest.raises(UnauthenticatedError, match=INVALID):
            Bench().ask(tokens.token(cnf=cnf), None, scheme=scheme)
