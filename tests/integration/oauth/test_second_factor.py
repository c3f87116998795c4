"""The steps of a sign-in at the two pages: what stands between a password and a yes, and what passes it by."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec.structs import replace

from gateway.oauth.errors import InvalidGrantError
from policies.facts import Role
from tenants.models import State
from tests.integration.oauth.test_pages import JSON, Form
from tests.kit.passkey import Authenticator
from tests.unit.oauth.conftest import ACME, ADA, BY, Bench
from tests.unit.oauth.test_authorization_code import REDIRECT, REQUEST, VERIFIER
from tests.unit.oauth.test_factors import app_of, demand, member, passkey_of

Http = AsyncTestClient[Litestar]
PATH = "/oauth/authorize"
WHO = {"org": "acme", "email": "ada@acme.example", "password": "correct horse battery"}


async def post(client: Http, answer: httpx.Response, path: str = PATH, **fields: str) -> httpx.Response:
    """Fill the form that `answer` shows."""
    return await client.post(path, data={**Form(answer.text).fields, **fields}, follow_redirects=False)


async def password_given(client: Http) -> httpx.Response:
    return await post(client, await client.get(PATH, params=REQUEST), **WHO, action="ask")


async def device_page(client: Http) -> tuple[str, httpx.Response]:
    device = (await client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})).json()
    page = await client.get("/oauth/device", params={"user_code": device["user_code"]})
    return device["device_code"], page


async def claims(client: Http, bench: Bench, answer: httpx.Response) -> dict[str, object]:
    """Of the access token that the code in a redirect brings."""
    assert answer.status_code == 303, answer.text
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "client_id": "orgate-cli",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    tokens = (await client.post("/oauth/token", data=form)).json()
    refreshed = await bench.refresh(tokens["refresh_token"])
    first, later = (bench.signing.own_claims(one["access_token"]) or {} for one in (tokens, refreshed))
    assert (first["amr"], first["auth_time"]) == (later["amr"], later["auth_time"])
    return first


def title(answer: httpx.Response) -> str:
    found = re.search(r"<h1>(.*?)</h1>", answer.text)
    assert found is not None
    return unescape(found[1])


def passkey_options(answer: httpx.Response) -> str:
    found = re.search(r'data-passkey="([^"]+)"', answer.text)
    assert found is not None
    return unescape(found[1])


async def test_without_a_factor_it_is_password_then_consent(client: Http, bench: Bench) -> None:
    consent = await password_given(client)
    for said in ("The Orgate command line", "ada@acme.example of acme"):
        assert said in consent.text
    assert Form(consent.text).visible == set()
    assert WHO["password"] not in consent.text
    found = await claims(client, bench, await post(client, consent, action="approve"))
    assert (found["amr"], found["auth_time"]) == (["pwd"], int(bench.now))


async def test_a_code_stands_between(client: Http, bench: Bench) -> None:
    app, _ = await app_of(bench, await member(bench))
    asked = await password_given(client)
    assert (asked.status_code, title(asked)) == (200, "Second factor")
    form = Form(asked.text)
    assert (form.visible, form.active) == ({"code"}, [])
    assert "script-src" not in asked.headers["content-security-policy"]
    assert "allow" not in asked.text.lower()
    wrong = await post(client, asked, code="000000", action="factor")
    assert (wrong.status_code, title(wrong)) == (403, "Second factor")
    assert 'role="alert"' in wrong.text
    bench.now += 9
    consent = await post(client, wrong, code=app.at(int(bench.now)), action="factor")
    found = await claims(client, bench, await post(client, consent, action="approve"))
    assert (found["amr"], found["auth_time"]) == (["pwd", "otp", "mfa"], int(bench.now) - 9)


async def test_no_page_is_passed_by(client: Http, bench: Bench) -> None:
    """With the ticket of an earlier page, a made up one, or a password and a yes in one form."""
    await app_of(bench, await member(bench))
    asked = await password_given(client)
    for action in ("approve", "continue", "enrol"):
        answer = await post(client, asked, action=action, code="123456")
        assert (answer.status_code, title(answer)) == (400, "Sign in")
    first = await client.get(PATH, params=REQUEST)
    at_once = await post(client, first, **WHO, action="approve")
    assert (at_once.status_code, "second factor" in at_once.text) == (403, True)
    assert "location" not in at_once.headers


async def test_a_ticket_is_of_its_request_and_its_browser(client: Http, bench: Bench) -> None:
    app, _ = await app_of(bench, await member(bench))
    asked = await password_given(client)
    fields = {**Form(asked.text).fields, "code": app.at(int(bench.now)), "action": "factor"}
    for changes in ({"state": "other"}, {"scope": "inference"}, {"code_challenge": "B" * 43}):
        answer = await client.post(PATH, data={**fields, **changes}, follow_redirects=False)
        assert (answer.status_code, title(answer)) == (400, "Sign in")
    client.cookies.clear()
    page = await client.get(PATH, params=REQUEST)  # somebody else's browser, with a cookie of its own
    stolen = {**fields, "csrf_token": Form(page.text).fields["csrf_token"]}
    answer = await client.post(PATH, data=stolen, follow_redirects=False)
    assert (answer.status_code, title(answer)) == (400, "Sign in")


async def test_who_is_suspended_between_two_pages_goes_no_further(client: Http, bench: Bench) -> None:
    app, _ = await app_of(bench, await member(bench))
    asked = await password_given(client)
    consent = await post(client, asked, code=app.at(int(bench.now)), action="factor")
    await bench.suspend()
    for answer in (
        await post(client, asked, code=app.at(int(bench.now) + 30), action="factor"),
        await post(client, consent, action="approve"),
    ):
        assert (answer.status_code, title(answer)) == (400, "Sign in")


async def test_a_page_ends_with_the_password_that_led_to_it(client: Http, bench: Bench) -> None:
    consent = await password_given(client)
    await bench.join(ACME, ADA, "ada@acme.example", "another good password")
    answer = await post(client, consent, action="approve")
    assert (answer.status_code, title(answer)) == (400, "Sign in")


async def test_a_yes_does_not_count_when_a_factor_is_demanded_meanwhile(client: Http, bench: Bench) -> None:
    consent = await password_given(client)
    await demand(bench, Role.MEMBER)
    answer = await post(client, consent, action="approve")
    assert (answer.status_code, "location" in answer.headers) == (403, False)


async def test_a_passkey_stands_between_at_the_device_page(client: Http, bench: Bench) -> None:
    key = Authenticator()
    await passkey_of(bench, await member(bench), key)
    code, page = await device_page(client)
    asked = await post(client, page, "/oauth/device", **WHO, action="ask")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}';", asked.headers["content-security-policy"])
    assert Form(asked.text).active == ["script"]
    sent = {"action": "factor", "credential": key.get(passkey_options(asked))}
    consent = await post(client, asked, "/oauth/device", **sent)
    replayed = await post(client, asked, "/oauth/device", **sent)
    assert (replayed.status_code, title(replayed)) == (403, "Second factor")
    done = await post(client, consent, "/oauth/device", action="approve")
    assert "The device is signed in" in done.text
    tokens = await bench.redeem(code)
    assert (bench.signing.own_claims(tokens["access_token"]) or {})["amr"] == ["pwd", "hwk", "mfa"]


async def test_a_program_is_told_that_a_second_factor_is_due(client: Http, bench: Bench) -> None:
    await app_of(bench, await member(bench))
    _, page = await device_page(client)
    for action in ("approve", "ask", "deny"):
        form = {**Form(page.text).fields, **WHO, "action": action}
        answer = await client.post("/oauth/device", data=form, headers=JSON)
        assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_user_authentication")
        assert "in a browser" in answer.json()["error_description"]


async def test_a_factor_is_added_where_one_is_demanded(client: Http, bench: Bench) -> None:
    await demand(bench, Role.MEMBER)
    offered = await password_given(client)
    assert title(offered) == "Add a second factor"
    form = Form(offered.text)
    assert form.visible == form.labels == {"name", "code", "passkey_name"}
    secret = re.search(r"Secret: <code>([A-Z2-7 ]+)</code>", offered.text)
    assert secret is not None
    app = pyotp.TOTP(secret[1].replace(" ", ""))
    assert "<svg" in offered.text
    wrong = await post(client, offered, code="000000", action="enrol")
    assert wrong.status_code == 403
    assert secret[1] in wrong.text
    kept = await post(client, wrong, code=app.at(int(bench.now)), name="Phone", action="enrol")
    codes = re.findall(r"<li><code>([0-9A-Z-]{19})</code></li>", kept.text)
    assert len(codes) == 10
    consent = await post(client, kept, action="continue")
    found = await claims(client, bench, await post(client, consent, action="approve"))
    assert found["amr"] == ["pwd", "otp", "mfa"]
    late = await post(client, wrong, code=app.at(int(bench.now) + 30), action="enrol")
    assert (late.status_code, title(late)) == (400, "Sign in")  # another tab: there is one by now
    bench.now += 30
    assert title(await password_given(client)) == "Second factor"


async def test_a_passkey_is_added_where_a_factor_is_demanded(client: Http, bench: Bench) -> None:
    await demand(bench, Role.MEMBER)
    key = Authenticator()
    offered = await password_given(client)
    kept = await post(
        client, offered, action="enrol", credential=key.create(passkey_options(offered)), name="Laptop", code=""
    )
    assert title(kept) == "Recovery codes"
    consent = await post(client, kept, action="continue")
    found = await claims(client, bench, await post(client, consent, action="approve"))
    assert found["amr"] == ["pwd", "hwk", "mfa"]


async def test_pages_have_no_more_time_for_being_tried_again(client: Http, bench: Bench) -> None:
    app, _ = await app_of(bench, await member(bench))
    page = await password_given(client)
    for _ in range(2):
        bench.now += 140
        page = await post(client, page, code="000000", action="factor")
        assert title(page) == "Second factor"
    bench.now += 30
    answer = await post(client, page, code=app.at(int(bench.now)), action="factor")
    assert (answer.status_code, title(answer)) == (400, "Sign in")


async def test_sessions_without_one_end_at_their_next_renewal_where_one_is_demanded(bench: Bench) -> None:
    session = (await bench.login())["refresh_token"]
    session = (await bench.refresh(session))["refresh_token"]
    await demand(bench, Role.OWNER)
    session = (await bench.refresh(session))["refresh_token"]
    await demand(bench, Role.MEMBER)
    with pytest.raises(InvalidGrantError, match="second factor"):
        await bench.refresh(session)
    await demand(bench)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(session)
    assert [note.detail.get("reason") for note in await bench.noted("session.revoke")] == [
        "second factor demanded"
    ]


async def test_locked_out_of_codes_says_when_to_come_back(client: Http, bench: Bench) -> None:
    _, enrolled = await app_of(bench, await member(bench))
    page = await password_given(client)
    for _ in range(5):
        page = await post(client, page, code="000000", action="factor")
    page = await post(client, await password_given(client), code="000000", action="factor")
    assert (page.status_code, page.headers["retry-after"]) == (429, "2")
    consent = await post(client, page, code=enrolled.codes[3], action="factor")
    assert title(consent) == "Sign in"
    assert consent.status_code == 200


async def test_a_member_who_is_back_is_asked_again(client: Http, bench: Bench) -> None:
    await app_of(bench, await member(bench))
    await bench.suspend()
    members = bench.control.for_org(ACME).members
    found = await members.get(ADA)
    await members.replace(replace(found, state=State.ACTIVE), found.version, BY)
    bench.now += 2
    assert title(await password_given(client)) == "Second factor"
