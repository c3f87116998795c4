"""Providers that lie, fail or say too little, and answers that nobody asked for: each a page, never a 500."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import OctKey
from msgspec.structs import replace

from gateway.oauth.provider import ROLLED_S, Issuer
from policies.facts import Role
from tenants.idp import RequiredClaim
from tenants.ids import MemberId
from tenants.models import State
from tests.fakes.oidc import CLIENT, SECRET, Provider, rsa, signed, unsigned
from tests.integration.oauth.sso.conftest import House, alert
from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ACME, ADA, BY, GLOBEX

Break = Callable[[Provider], None]


def _claims(**claims: Any) -> Break:
    return lambda provider: provider.claims.update(claims)


def _token(make: Callable[[dict[str, Any]], str]) -> Break:
    def change(provider: Provider) -> None:
        provider.token = make

    return change


def _answer(path: str, status: int, body: bytes = b"{}", **headers: str) -> Break:
    def change(provider: Provider) -> None:
        provider.answers[path] = (status, body, headers)

    return change


def _hs256(claims: dict[str, Any]) -> str:
    return signed(claims, OctKey.import_key(SECRET.ljust(32)), "HS256", kid="key-0")


CASES: list[tuple[Break, int, str, str]] = [
    (_claims(iss="https://other.example"), 403, "id token", "another issuer"),
    (_claims(aud="somebody-else"), 403, "id token", "another audience"),
    (_claims(aud=[CLIENT, "other"]), 403, "azp", "another application"),
    (_claims(azp="somebody-else"), 403, "azp", "another application"),
    (_claims(nonce="another"), 403, "nonce", "another sign-in"),
    (_claims(nonce=None), 403, "nonce", "another sign-in"),
    (_claims(sub=None), 403, "id token", "who it is about"),
    (_claims(exp=1), 403, "id token", "has expired"),
    (_claims(iat=4_000_000_000), 403, "id token", "one of the two clocks"),
    (_claims(iat=1_000_000_000), 403, "iat", "one of the two clocks"),
    (_claims(at_hash="AAAA"), 403, "at_hash", "do not belong together"),
    (_token(lambda claims: unsigned(claims, kid="key-0")), 403, "id token", "no signed JWT"),
    (_token(_hs256), 403, "id token", "algorithm"),
    (_token(lambda claims: signed(claims, rsa(1), kid="key-0")), 403, "id token", "signature is wrong"),
    (_token(lambda claims: signed(claims, rsa(2))), 403, "id token", "does not publish"),
    (_token(lambda _: "not a token"), 403, "id token", "no signed JWT"),
    (_answer("/token", 200, b'{"access_token": "x"}'), 403, "no id token", "gave no ID Token"),
    (_answer("/token", 200, b"<html>"), 403, "no id token", "gave no ID Token"),
    (_answer("/token", 200, b"[" * 100_000), 403, "no id token", "gave no ID Token"),
    (_answer("/token", 401, b'{"error": "invalid_client"}'), 403, "invalid_client", "client id and secret"),
    (
        _answer("/token", 400, b'{"error": "invalid_grant"}'),
        403,
        "invalid_grant",
        "code that it has just given",
    ),
    (
        _answer("/token", 400, b'{"error": "<b>", "error_description": "<b>"}'),
        403,
        "token endpoint",
        "status 400",
    ),
    (_answer("/token", 302, location="https://evil.example"), 403, "token endpoint", "status 302"),
    (_answer("/token", 503), 503, "provider down", "status 503"),
    (_answer("/token", 200, b"x" * 200_000), 503, "provider wrong", "larger than 128 KiB"),
    (_answer("/jwks", 500), 503, "provider down", "status 500"),
    (_answer("/jwks", 200, b'{"keys": []}'), 503, "provider wrong", "no key that verifies"),
    (_claims(email=None), 403, "no e-mail", "does not say your e-mail"),
    (_claims(email="two words"), 403, "no account", "nobody here"),
    (_claims(email_verified=False), 403, "e-mail not verified", "may be anybody"),
    (_claims(email_verified=None), 403, "e-mail not verified", "may be anybody"),
    (_claims(email_verified="no"), 403, "e-mail not verified", "may be anybody"),
    (_claims(email_verified=1), 403, "e-mail not verified", "may be anybody"),
    (_claims(email="gus@globex.example"), 403, "no account", "nobody here"),
]


async def test_what_is_wrong_is_said_and_written_down(house: House) -> None:
    issuer = Issuer(ACME, house.provider.url)
    for number, (change, status, reason, said) in enumerate(CASES):
        house.provider.claims, house.provider.answers, house.provider.token = {}, {}, None
        house.providers.forget(issuer)
        change(house.provider)
        answer = await house.come_back()
        assert (answer.status_code, said in alert(answer)) == (status, True), (number, said, answer.text)
        assert "<b>" not in answer.text
        assert (await house.refusals())[number:] == [f"sso: {reason}"]
        # The page is the one that was left: another way in is one click away.
        assert 'name="password"' in answer.text
        assert 'value="acme"' in answer.text
    assert await house.bench.control.for_org(ACME).idp.linked(house.provider.url, "ada-1") is None


async def test_userinfo_about_somebody_else_is_refused(house: House) -> None:
    house.provider.claims = {"email": None}
    house.provider.userinfo = {"sub": "gus-1", "email": "ada@acme.example", "email_verified": True}
    assert "about somebody else" in alert(await house.come_back())


BROUGHT: list[tuple[dict[str, str], str]] = [
    ({"iss": "https://evil.example"}, "not from your organization's provider"),
    ({"iss": ""}, "not from your organization's provider"),
    (
        {"error": "access_denied", "error_description": "<script>x</script>"},
        "the provider refused the sign-in",
    ),
    ({"error": "consent_required"}, "wants your consent"),
    ({"error": "<script>x</script>"}, "the provider refused the sign-in"),
    ({"code": ""}, "has no code"),
    ({"code": "made up"}, "does not accept the code"),
]


async def test_what_the_browser_brings_is_judged(house: House) -> None:
    for number, (answer, said) in enumerate(BROUGHT):
        page = await house.come_back(**answer)
        assert (page.status_code, said in alert(page)) == (403, True), page.text
        assert "<script>" not in page.text
        (reason,) = (await house.refusals())[number:]
        assert "script" not in reason


@pytest.fixture
def two_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.sso.STRANGERS_NOTED", 2)


@pytest.mark.usefixtures("two_noted")
async def test_strangers_do_not_fill_the_log_and_hide_nobody_s_refusal(house: House) -> None:
    await house.bind(GLOBEX)
    for number in range(4):
        house.client.headers["x-orgate-client"] = f"192.0.2.{number}"
        page = await house.come_back(error="access_denied")
        assert (page.status_code, "refused the sign-in" in alert(page)) == (403, True)
    assert len(await house.refusals()) == 2
    brought = house.provider.authorize(await house.leave("globex"))
    await house.back({**brought, "error": "access_denied"}, "globex")
    assert (await house.noted("session.refuse"))[-1].org == GLOBEX
    found = await house.member()
    await house.bench.control.for_org(ACME).members.replace(
        replace(found, state=State.SUSPENDED), found.version, BY
    )
    assert "suspended" in alert(await house.come_back())
    assert [change.target for change in await house.noted("session.refuse")].count(ADA) == 1
    house.bench.now += 600
    await house.come_back(error="access_denied")
    assert len(await house.refusals()) == 5


async def test_an_answer_without_iss_is_taken_from_those_who_never_say_it(house: House) -> None:
    house.provider.metadata = {"authorization_response_iss_parameter_supported": False}
    brought = house.provider.authorize(await house.leave())
    del brought["iss"]
    assert (await house.back(brought)).status_code == 200


async def test_an_answer_that_comes_to_another_organizations_address_goes_nowhere(house: House) -> None:
    """Mix-up: the code stays here, and is shown to neither provider."""
    page = await house.back(house.provider.authorize(await house.leave()), org="globex")
    assert "another organization's address" in alert(page)
    assert house.provider.paths("/token") == 0
    assert await house.refusals() == ["sso: mix-up"]


async def test_an_answer_counts_once(house: House) -> None:
    brought = house.provider.authorize(await house.leave())
    kept = dict(house.client.cookies)
    assert (await house.back(brought)).status_code == 200
    house.client.cookies.update(kept)  # a copy of the browser's profile
    again = await house.back(brought)
    assert (again.status_code, "come to its end" in alert(again)) == (400, True)
    assert house.provider.paths("/token") == 1


@pytest.mark.parametrize("change", ["no cookie", "another state", "a forged cookie", "no state", "too late"])
async def test_an_answer_of_a_sign_in_that_was_not_begun_here_is_a_dead_end(house: House, change: str) -> None:
    brought = house.provider.authorize(await house.leave())
    (name,) = [name for name in house.client.cookies if "sso" in name]
    match change:
        case "no cookie":
            house.client.cookies.clear()
        case "another state":
            brought["state"] = brought["state"][:8] + "A" * 35
        case "a forged cookie":
            forged = house.client.cookies[name][:-4] + "AAAA"
            house.client.cookies.clear()
            house.client.cookies.set(name, forged)
        case "no state":
            del brought["state"]
        case _:
            house.bench.now += 601
    page = await house.back(brought)
    assert (page.status_code, "not begun in this browser" in alert(page)) == (400, True)
    assert house.provider.paths("/token") == 0
    assert await house.refusals() == []


async def test_parameters_that_are_repeated_are_a_dead_end(house: House) -> None:
    await house.leave()
    page = await house.client.get("/oauth/sso/callback/acme?state=a&state=b&code=1")
    assert (page.status_code, "repeated" in alert(page)) == (400, True)


async def test_a_provider_that_was_changed_meanwhile_is_not_asked(house: House) -> None:
    brought = house.provider.authorize(await house.leave())
    await house.bind(name_claim="nickname")
    page = await house.back(brought)
    assert (page.status_code, "changed meanwhile" in alert(page)) == (403, True)
    assert house.provider.paths("/token") == 0


async def test_a_provider_that_is_down_is_said_before_anybody_leaves(house: House) -> None:
    house.provider.answers["/.well-known/openid-configuration"] = (500, b"", {})
    page = await house.client.get("/oauth/device")
    form = {**Form(page.text).fields, "user_code": "AAAA-AAAA", "org": "acme", "action": "sso"}
    answer = await house.client.post("/oauth/device", data=form)
    assert (answer.status_code, "does not work now" in alert(answer)) == (503, True)
    assert 'name="password"' in answer.text


async def test_a_slow_provider_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = house.provider.authorize(await house.leave())
    monkeypatch.setattr("gateway.outside.ASK_S", 0.1)
    house.provider.hold = threading.Event()
    page = await house.back(brought)
    house.provider.hold.set()
    assert (page.status_code, "did not answer in 0.1 s" in alert(page)) == (503, True)


async def test_keys_that_were_rolled_are_found(house: House) -> None:
    await house.sign_in()
    house.provider.signing, house.provider.published = rsa(1), [rsa(1)]
    house.bench.now += ROLLED_S
    assert (await house.sign_in())["sub"] == ADA


async def test_a_secret_for_another_client_is_not_sent(house: House) -> None:
    await house.bind(client_id="another")
    page = await house.come_back()
    assert (page.status_code, "given for another issuer or client id" in alert(page)) == (503, True)
    assert house.provider.paths("/token") == 0


# -- who it is ----------------------------------------------------------------------------------------------


async def test_a_member_is_linked_once_and_known_by_subject_from_then_on(house: House) -> None:
    await house.sign_in()
    house.provider.claims = {"email": "other@elsewhere.example", "email_verified": False}
    assert (await house.sign_in())["sub"] == ADA
    house.provider.claims = {"sub": "somebody-new"}
    assert "belongs to another person" in alert(await house.come_back())
    assert len(await house.noted("member.link")) == 1


async def test_the_same_person_is_another_member_in_another_organization(house: House) -> None:
    await house.bind(org=GLOBEX)
    await house.sign_in()
    house.provider.claims = {"email": "gus@globex.example"}
    page = await house.back(house.provider.authorize(await house.leave("globex")), org="globex")
    claims = house.claims(await house.tokens(page))
    assert (claims["org"], claims["sub"]) == ("globex", "mem_gus")


async def test_addresses_of_other_domains_and_claims_of_others_are_refused(house: House) -> None:
    await house.bind(domains=("acme.test",))
    assert "domain" in alert(await house.come_back())
    await house.bind(domains=(), claims=(RequiredClaim("hd", "acme.example"),))
    for claims in ({}, {"hd": "evil.example"}, {"hd": ["evil.example"]}, {"hd": None}, {"hd": 1}):
        house.provider.claims = claims
        assert "somewhere else" in alert(await house.come_back())
    house.provider.claims = {"hd": "acme.example"}
    assert (await house.sign_in())["sub"] == ADA


async def test_an_address_that_only_looks_the_same_is_somebody_elses(house: House) -> None:
    await house.join(MemberId("mem_str"), "strasse@acme.example", Role.OWNER)
    house.provider.claims = {"email": "straße@acme.example"}
    assert "too much like" in alert(await house.come_back())
    house.provider.claims = {"email": "STRASSE@acme.example"}
    assert (await house.sign_in())["sub"] == "mem_str"


async def test_where_the_provider_vouches_for_addresses_it_need_not_say_so(house: House) -> None:
    await house.bind(emails_verified=True)
    house.provider.claims = {"email_verified": False}
    assert "verified" in alert(await house.come_back())
    house.provider.claims = {"email_verified": None}
    assert (await house.sign_in())["sub"] == ADA


async def test_who_is_suspended_stays_outside(house: House) -> None:
    await house.sign_in()
    await house.bench.suspend()
    assert "suspended" in alert(await house.come_back())
    await house.bench.suspend_org()
    page = await house.client.get("/oauth/authorize", params={"org": "acme"})
    assert page.status_code == 400


async def test_who_is_deleted_is_found_anew_or_not_at_all(house: House) -> None:
    await house.sign_in()
    ada = await house.member()
    await house.bench.control.for_org(ACME).members.delete(ADA, ada.version, BY)
    assert "nobody here" in alert(await house.come_back())
    await house.join(MemberId("mem_ada2"), "ada@acme.example", Role.MEMBER)
    assert (await house.sign_in())["sub"] == "mem_ada2"


async def test_no_code_and_no_token_is_in_the_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        brought = house.provider.authorize(await house.leave())
        await house.back(brought)
        house.provider.claims = {"nonce": "wrong"}
        second = house.provider.authorize(await house.leave())
        await house.back(second)
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("orgate"))
    entries = str(await house.bench.control.outbox())
    for secret in (brought["code"], second["code"], second["state"], "the-access-token", SECRET):
        assert secret not in ours + entries


async def test_refreshing_asks_for_the_member_each_time(house: House) -> None:
    tokens = await house.tokens(await house.come_back())
    form = {"grant_type": "refresh_token", "client_id": "orgate-cli", "refresh_token": tokens["refresh_token"]}
    again = await house.client.post("/oauth/token", data=form)
    assert house.claims(again.json())["amr"] == ["fed"]
    await house.bench.suspend()
    form["refresh_token"] = again.json()["refresh_token"]
    assert (await house.client.post("/oauth/token", data=form)).json()["error"] == "invalid_grant"
    assert (await house.member()).state is State.SUSPENDED
