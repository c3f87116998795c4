"""RFC 9449 at the token endpoint: what tokens are bound to, and that a refusal uses nothing up."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.dpop import Presented
from gateway.oauth.caller import Caller
from gateway.oauth.clients import GrantType
from gateway.oauth.dpop import for_key
from gateway.oauth.errors import InvalidDpopProofError, InvalidGrantError, InvalidRequestError, UseDpopNonceError
from tenants.models import Dpop
from tests.kit.dpop import ProofKey
from tests.unit.oauth.conftest import ACME, BY, HERE, ISSUER, PASSWORD, Bench

KEY, THIEF = ProofKey.make(), ProofKey.make()
URL = ISSUER + "/oauth/token"


async def wants(bench: Bench, dpop: Dpop) -> None:
    org = await bench.control.orgs.get(ACME)
    await bench.control.orgs.replace(replace(org, dpop=dpop), org.version, BY)


def shown(bench: Bench, key: ProofKey | None = KEY, **changes: Any) -> Caller:
    if key is None:
        return HERE
    claims = {"nonce": bench.service.possession.nonce(), **changes}
    return replace(
        HERE, presented=Presented(key.proof("POST", URL, bench.now, **claims).encode(), "POST", "/oauth/token")
    )


async def redeem(bench: Bench, code: str, caller: Caller) -> dict[str, Any]:
    form = {"grant_type": GrantType.DEVICE_CODE.value, "device_code": code, "client_id": "orgate-cli"}
    return await bench.service.token(form, caller)


async def approved(bench: Bench) -> str:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    return str(device["device_code"])


async def login(bench: Bench, key: ProofKey | None = KEY) -> dict[str, Any]:
    return await redeem(bench, await approved(bench), shown(bench, key))


async def refresh(bench: Bench, token: str, caller: Caller) -> dict[str, Any]:
    return await bench.service.token(
        {"grant_type": "refresh_token", "refresh_token": token, "client_id": "orgate-cli"}, caller
    )


def jkt(bench: Bench, tokens: dict[str, Any]) -> str:
    claims = bench.signing.own_claims(tokens["access_token"])
    assert claims is not None
    found = claims.get("cnf", {}).get("jkt", "")
    assert tokens["token_type"] == ("DPoP" if found else "Bearer")
    return str(found)


async def test_tokens_are_bound_where_the_organization_wants_it(bench: Bench) -> None:
    assert jkt(bench, await login(bench)) == ""
    await wants(bench, Dpop.OPTIONAL)
    assert jkt(bench, await login(bench)) == KEY.jkt
    assert jkt(bench, await login(bench, None)) == ""
    await wants(bench, Dpop.REQUIRED)
    code = await approved(bench)
    with pytest.raises(InvalidDpopProofError):
        await redeem(bench, code, HERE)
    assert jkt(bench, await redeem(bench, code, shown(bench))) == KEY.jkt  # the refusal did not use it up


async def test_a_refresh_needs_the_same_key_and_a_refusal_does_not_use_the_token_up(bench: Bench) -> None:
    await wants(bench, Dpop.OPTIONAL)
    token = (await login(bench))["refresh_token"]
    await wants(bench, Dpop.OFF)  # what is bound stays so
    for _ in range(2):
        with pytest.raises(InvalidDpopProofError):
            await refresh(bench, token, HERE)
        with pytest.raises(InvalidGrantError):
            await refresh(bench, token, shown(bench, THIEF))
    renewed = await refresh(bench, token, shown(bench))
    assert jkt(bench, renewed) == KEY.jkt
    again = await refresh(bench, token, shown(bench))  # within the grace
    assert again["refresh_token"] == renewed["refresh_token"]
    with pytest.raises(InvalidGrantError):
        await refresh(bench, token, shown(bench, THIEF))
    assert jkt(bench, await refresh(bench, renewed["refresh_token"], shown(bench))) == KEY.jkt


async def test_an_unbound_family_is_bound_by_the_first_refresh_with_a_key(bench: Bench) -> None:
    token = (await login(bench, None))["refresh_token"]
    await wants(bench, Dpop.REQUIRED)
    with pytest.raises(InvalidDpopProofError):
        await refresh(bench, token, HERE)
    renewed = await refresh(bench, token, shown(bench))
    assert jkt(bench, renewed) == KEY.jkt
    with pytest.raises(InvalidGrantError):
        await refresh(bench, renewed["refresh_token"], shown(bench, THIEF))


async def test_of_two_keys_at_once_a_family_is_bound_to_one(bench: Bench) -> None:
    await wants(bench, Dpop.OPTIONAL)
    token = (await login(bench, None))["refresh_token"]
    keys = [ProofKey.make() for _ in range(8)]
    answers = await asyncio.gather(
        *(refresh(bench, token, shown(bench, key)) for key in keys), return_exceptions=True
    )
    good = [answer for answer in answers if isinstance(answer, dict)]
    assert len(good) == 1
    assert all(isinstance(answer, InvalidGrantError) for answer in answers if answer not in good)
    owner = next(key for key in keys if key.jkt == jkt(bench, good[0]))
    assert jkt(bench, await refresh(bench, good[0]["refresh_token"], shown(bench, owner))) == owner.jkt


async def test_a_proof_needs_a_nonce_that_is_not_old(bench: Bench) -> None:
    await wants(bench, Dpop.OPTIONAL)
    code = await approved(bench)
    old = bench.service.possession.nonce()
    with pytest.raises(UseDpopNonceError):
        await redeem(bench, code, shown(bench, nonce=...))
    with pytest.raises(UseDpopNonceError):
        await redeem(bench, code, shown(bench, nonce="x" * 24))
    bench.now += 300
    assert old != bench.service.possession.nonce()
    assert jkt(bench, await redeem(bench, code, shown(bench, nonce=old))) == KEY.jkt
    bench.now += 300
    with pytest.raises(UseDpopNonceError):
        await redeem(bench, await approved(bench), shown(bench, nonce=old))


@pytest.mark.parametrize(
    "changes",
    [{"htm": "GET"}, {"htu": ISSUER + "/oauth/revoke"}, {"iat": 1}, {"ath": "x"}, {"head": {"typ": "JWT"}}],
)
async def test_a_bad_proof_is_refused_whatever_the_organization_wants(
    bench: Bench, changes: dict[str, Any]
) -> None:
    code = await approved(bench)
    with pytest.raises(InvalidDpopProofError):
        await redeem(bench, code, shown(bench, **changes))
    assert jkt(bench, await redeem(bench, code, HERE)) == ""


async def test_a_proof_counts_once(bench: Bench) -> None:
    await wants(bench, Dpop.OPTIONAL)
    caller = shown(bench)
    await redeem(bench, await approved(bench), caller)
    with pytest.raises(InvalidDpopProofError, match="before"):
        await redeem(bench, await approved(bench), caller)


# -- dpop_jkt (section 10) ----------------------------------------------------------------------------------

VERIFIER = "v" * 43


async def _code(bench: Bench, bound_to: str) -> str:
    challenge = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    form = {
        "response_type": "code",
        "client_id": "orgate-cli",
        "redirect_uri": "http://127.0.0.1:4000/callback",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "dpop_jkt": bound_to,
    }
    asked = bench.service.authorization_request(await bench.service.authorization(form), form)
    person = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD, "action": "approve"}
    there = await bench.service.authorize(asked, person, HERE)
    return there.partition("code=")[2].partition("&")[0]


async def _exchange(bench: Bench, code: str, caller: Caller) -> dict[str, Any]:
    form = {
        "grant_type": "authorization_code",
        "client_id": "orgate-cli",
        "redirect_uri": "http://127.0.0.1:4000/callback",
        "code": code,
        "code_verifier": VERIFIER,
    }
    return await bench.service.token(form, caller)


@pytest.mark.parametrize("dpop", [Dpop.OFF, Dpop.OPTIONAL])
async def test_a_code_for_a_key_is_worth_nothing_with_another(bench: Bench, dpop: Dpop) -> None:
    await wants(bench, dpop)
    code = await _code(bench, KEY.jkt)
    with pytest.raises(InvalidDpopProofError):
        await _exchange(bench, code, HERE)
    with pytest.raises(InvalidGrantError):
        await _exchange(bench, code, shown(bench, THIEF))
    assert jkt(bench, await _exchange(bench, code, shown(bench))) == KEY.jkt


@pytest.mark.parametrize("bound_to", ["x", "x" * 44, "ü" * 43])
async def test_what_is_no_thumbprint_is_no_dpop_jkt(bench: Bench, bound_to: str) -> None:
    with pytest.raises(InvalidRequestError, match="dpop_jkt"):
        await _code(bench, bound_to)


@pytest.mark.parametrize(("given", "after"), [({}, KEY.jkt), ({"dpop_jkt": KEY.jkt}, KEY.jkt)], ids=["", "named"])
def test_a_pushed_request_is_for_the_key_that_pushes_it(given: dict[str, str], after: str) -> None:
    assert for_key(given, KEY.jkt)["dpop_jkt"] == after
    assert for_key(given, "") == given


def test_a_pushed_request_for_another_key_is_refused() -> None:
    with pytest.raises(InvalidDpopProofError):
        for_key({"dpop_jkt": THIEF.jkt}, KEY.jkt)
