"""RFC 8693 for CI: whose outside tokens stand for a service account, and what everybody else hears."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from gateway.dpop import Presented
from gateway.oauth.caller import Caller
from gateway.oauth.clients import Audiences
from gateway.oauth.errors import (
    InvalidDpopProofError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    InvalidTargetError,
    OAuthError,
    TemporarilyUnavailableError,
    TooManyAttemptsError,
    UnauthorizedClientError,
)
from gateway.oauth.exchange import ACCESS_TOKEN, REFUSALS_PER_ADDRESS, SUBJECT_TYPES, TokenExchange
from gateway.oauth.provider import Answer, ProviderDownError, Providers, Question
from gateway.oauth.throttle import MemoryThrottle
from policies.facts import Role
from tenants.clients import GrantType, Plane
from tenants.ids import ServiceId
from tenants.models import Dpop, Service, State
from tenants.trust import ServiceTrust
from tests.kit.dpop import ProofKey
from tests.unit.oauth.conftest import ACME, BY, GLOBEX, HERE, ISSUER, Bench

SLOWER = 10
"""So many times less than in earnest is refused here before there is an end to it."""

CI = "https://ci.example"
AUDIENCE = "https://gateway.example/acme"
BUILD = ServiceId("svc_build")
CLIENT = f"acme.{BUILD}"
TRUST = ServiceTrust(ACME, "main", BUILD, CI, AUDIENCE, ("repository=acme/app", "ref=refs/heads/*"))
SAID = {"repository": "acme/app", "ref": "refs/heads/main", "sub": "repo:acme/app:ref:refs/heads/main"}


class Outside:
    """A CI system's issuer: its discovery document, its keys, and the tokens of its jobs."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.key = ProofKey.make("RS256")
        self.down = False
        self.asked: list[str] = []

    def now(self) -> float:
        return self.bench.now

    def monotonic_us(self) -> int:
        return int(self.bench.now * 1e6)

    async def __call__(self, question: Question) -> Answer:
        self.asked.append(question.url)
        if self.down:
            raise ProviderDownError("the provider did not answer")
        if question.url.endswith("/keys"):
            return Answer(200, json.dumps({"keys": [{**self.key.jwk, "kid": "k1", "use": "sig"}]}).encode())
        return Answer(200, json.dumps({"issuer": CI, "jwks_uri": CI + "/keys"}).encode())

    def token(self, head: dict[str, Any] | None = None, key: ProofKey | None = None, **changes: Any) -> str:
        now = int(self.bench.now)
        claims = {"iss": CI, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300, **SAID, **changes}
        kept = {name: value for name, value in claims.items() if value is not ...}
        return (key or self.key).sign({"typ": "JWT", "alg": "RS256", "kid": "k1", **(head or {})}, kept)


@pytest.fixture
async def outside(bench: Bench) -> AsyncIterator[Outside]:
    made = Outside(bench)
    service = bench.service
    exchange = TokenExchange(
        bench.control,
        service.services,
        Providers(made, made),
        audiences=Audiences(ISSUER),
        throttle=lambda name, limit, period: MemoryThrottle(limit // SLOWER, period, lambda: bench.now),
    )
    store = bench.control.for_org(ACME)
    await store.services.create(Service(ACME, BUILD, "build"), BY)
    await store.trusts.create(TRUST, BY)
    with patch.object(service, "exchange", exchange):
        yield made


async def ask(bench: Bench, token: str, *, by: Caller = HERE, **changes: Any) -> dict[str, Any]:
    form = {
        "grant_type": GrantType.TOKEN_EXCHANGE.value,
        "client_id": CLIENT,
        "subject_token": token,
        "subject_token_type": SUBJECT_TYPES[0],
        **changes,
    }
    return await bench.service.token({name: value for name, value in form.items() if value}, by)


async def refused(bench: Bench, token: str, reason: str = "", **changes: Any) -> InvalidGrantError:
    with pytest.raises(InvalidGrantError) as caught:
        await ask(bench, token, **changes)
    if reason:
        assert reason in str((await bench.noted("session.refuse"))[-1].detail["reason"])
    return caught.value


async def test_a_job_s_token_becomes_a_service_account_s(bench: Bench, outside: Outside) -> None:
    for kind in SUBJECT_TYPES:
        answer = await ask(bench, outside.token(), subject_token_type=kind, requested_token_type=ACCESS_TOKEN)
        assert answer.pop("access_token")
        assert answer == {
            "token_type": "Bearer",
            "expires_in": 900,
            "scope": "inference",
            "issued_token_type": ACCESS_TOKEN,
        }
    claims = bench.signing.own_claims((await ask(bench, outside.token()))["access_token"])
    assert claims is not None
    assert (claims["sub"], claims["org"], claims["client_id"]) == (BUILD, ACME, CLIENT)
    assert (claims["aud"], claims["roles"]) == (ISSUER + "/v1", [Role.MEMBER.value])
    assert "act" not in claims
    noted = (await bench.noted("session.create"))[-1]
    assert (noted.target, noted.actor.member) == (BUILD, BUILD)
    assert noted.detail == {
        "grant": GrantType.TOKEN_EXCHANGE.value,
        "trust": "main",
        "issuer": CI,
        "claims": ["repository=acme/app", "ref=refs/heads/main"],
    }


ATTACKER = ProofKey.make("EdDSA")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repository": "acme/other"}, "do not hold"),
        ({"repository": ...}, "do not hold"),
        ({"ref": "refs/heads/release/1"}, "do not hold"),
        ({"ref": "refs/tags/main"}, "do not hold"),
        ({"iss": "https://ci.example/"}, "issuer"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"aud": AUDIENCE + "/"}, "audience"),
        ({"aud": [AUDIENCE, "https://other.example"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ...}, "audience"),
        ({"exp": 1}, "expired"),
        ({"exp": ...}, "ends"),
        ({"iat": ...}, "issued"),
        ({"nbf": 1_900_000_000}, "clocks"),
        ({"exp": 1_800_000_000 + 86_401}, "longer"),
        ({"exp": 1e308}, "ends"),
        ({"sub": ...}, "who"),
        ({"head": {"kid": "k2"}}, "publish"),
        ({"head": {"alg": "none"}}, "algorithm"),
        ({"head": {"alg": "HS256"}}, "algorithm"),
        ({"head": {"crit": ["exp"]}}, "header"),
        ({"head": {"jwk": ATTACKER.jwk}}, "header"),
        ({"key": ATTACKER}, "signature"),
    ],
)
async def test_what_stands_for_nobody_is_told_the_same_and_written_down(
    bench: Bench, outside: Outside, changes: dict[str, Any], reason: str
) -> None:
    error = await refused(bench, outside.token(**changes), reason)
    unknown = await refused(bench, outside.token(), client_id="acme.svc_none")
    elsewhere = await refused(bench, outside.token(), client_id=f"nowhere.{BUILD}")
    assert error.description == unknown.description == elsewhere.description


async def test_a_list_of_one_audience_is_that_audience(bench: Bench, outside: Outside) -> None:
    assert await ask(bench, outside.token(aud=[AUDIENCE]))


async def test_members_that_come_twice_are_no_token(bench: Bench, outside: Outside) -> None:
    body = json.dumps({"iss": CI, "aud": AUDIENCE, **SAID})[:-1] + ', "ref": "refs/heads/main"}'
    token = outside.key.sign({"alg": "RS256", "kid": "k1"}, body)
    await refused(bench, token, "no signed JWT")


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "e30.e30.e30", "a.WzFd.c", "%" * 50])
async def test_noise_is_refused(bench: Bench, outside: Outside, token: str) -> None:
    await refused(bench, token)
    assert outside.asked == []


async def test_nothing_is_fetched_for_whom_nobody_trusts(bench: Bench, outside: Outside) -> None:
    await refused(bench, outside.token(iss="https://evil.example"))
    await refused(bench, outside.token(aud="https://other.example"))
    await refused(bench, outside.token(), client_id="acme.svc_none")
    await refused(bench, outside.token(), client_id=f"globex.{BUILD}")
    assert outside.asked == []


async def test_another_account_s_trust_is_not_mine(bench: Bench, outside: Outside) -> None:
    store = bench.control.for_org(ACME)
    await store.services.create(Service(ACME, ServiceId("svc_deploy"), "deploy", (Role.ADMIN,)), BY)
    await refused(bench, outside.token(), "issuer", client_id="acme.svc_deploy")
    other = bench.control.for_org(GLOBEX)
    await other.services.create(Service(GLOBEX, BUILD, "build"), BY)
    await refused(bench, outside.token(), client_id=f"globex.{BUILD}")


async def test_of_several_trusts_one_is_enough(bench: Bench, outside: Outside) -> None:
    store = bench.control.for_org(ACME)
    await store.trusts.create(replace(TRUST, name="a", claims=("repository=acme/none",)), BY)
    await store.trusts.create(replace(TRUST, name="z", claims=("repository=acme/tool",), planes=tuple(Plane)), BY)
    admin = ISSUER + "/admin"
    assert (await ask(bench, outside.token(repository="acme/tool"), resource=admin))["scope"] == "admin"
    with pytest.raises(InvalidTargetError):
        await ask(bench, outside.token(), resource=admin)  # trusted by `main`, for completions alone


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"subject_token": ""}, InvalidRequestError),
        ({"subject_token": "ü"}, InvalidRequestError),
        ({"subject_token": "x" * 70_000}, InvalidRequestError),
        ({"subject_token_type": ""}, InvalidRequestError),
        ({"subject_token_type": ACCESS_TOKEN}, InvalidRequestError),
        ({"requested_token_type": SUBJECT_TYPES[0]}, InvalidRequestError),
        ({"actor_token": "x"}, InvalidRequestError),
        ({"actor_token_type": SUBJECT_TYPES[0]}, InvalidRequestError),
        ({"resource": "https://other.example"}, InvalidTargetError),
        ({"audience": "https://other.example"}, InvalidTargetError),
        ({"audience": ISSUER + "/v1", "resource": ISSUER + "/admin"}, InvalidTargetError),
        ({"scope": "admin"}, InvalidScopeError),
        ({"client_id": "orgate-cli"}, UnauthorizedClientError),
    ],
)
async def test_what_is_asked_for_wrongly(
    bench: Bench, outside: Outside, changes: dict[str, Any], error: type[OAuthError]
) -> None:
    with pytest.raises(error):
        await ask(bench, outside.token(), **changes)
    assert await ask(bench, outside.token(), audience=ISSUER + "/v1")


@pytest.mark.parametrize("grant", ["client_credentials", "authorization_code", "refresh_token"])
async def test_a_service_account_has_no_other_grant_by_its_id(bench: Bench, outside: Outside, grant: str) -> None:
    with pytest.raises(UnauthorizedClientError):
        await ask(bench, outside.token(), grant_type=grant)


async def test_an_issuer_that_is_down_is_no_judgement(bench: Bench, outside: Outside) -> None:
    outside.down = True
    with pytest.raises(TemporarilyUnavailableError) as caught:
        await ask(bench, outside.token())
    assert caught.value.retry_after_s
    outside.down = False
    bench.now += 10
    assert await ask(bench, outside.token())
    outside.down = True
    bench.now += 1_000
    assert await ask(bench, outside.token())  # its keys are known


async def test_a_suspended_account_or_organization_has_no_token(bench: Bench, outside: Outside) -> None:
    services = bench.control.for_org(ACME).services
    found = await services.get(BUILD)
    await services.replace(replace(found, state=State.SUSPENDED), found.version, BY)
    await refused(bench, outside.token(), "suspended")
    await services.replace(replace(found, state=State.ACTIVE), found.version + 1, BY)
    await bench.suspend_org()
    await refused(bench, outside.token())


async def test_a_service_account_s_token_is_bound_where_the_organization_wants_it(
    bench: Bench, outside: Outside
) -> None:
    org = await bench.control.orgs.get(ACME)
    await bench.control.orgs.replace(replace(org, dpop=Dpop.REQUIRED), org.version, BY)
    with pytest.raises(InvalidDpopProofError):
        await ask(bench, outside.token())
    key, nonce = ProofKey.make(), bench.service.possession.nonce()
    proof = key.proof("POST", ISSUER + "/oauth/token", bench.now, nonce=nonce).encode()
    answer = await ask(
        bench, outside.token(), by=replace(HERE, presented=Presented(proof, "POST", "/oauth/token"))
    )
    assert answer["token_type"] == "DPoP"
    claims = bench.signing.own_claims(answer["access_token"])
    assert claims is not None
    assert claims["cnf"] == {"jkt": key.jkt}


async def test_refusals_of_one_address_are_bounded(bench: Bench, outside: Outside) -> None:
    answers = await asyncio.gather(
        *(ask(bench, "x.y.z") for _ in range(REFUSALS_PER_ADDRESS // SLOWER + 5)), return_exceptions=True
    )
    assert any(isinstance(answer, InvalidGrantError) for answer in answers)
    with pytest.raises(TooManyAttemptsError):
        await ask(bench, outside.token())
    assert await ask(bench, outside.token(), by=replace(HERE, address="192.0.2.99"))
