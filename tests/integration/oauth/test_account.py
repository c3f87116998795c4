"""The account page: who may change what, for how long, and whose sessions are listed."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pyotp
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from gateway.api.oauth.account import CHANGE, COOKIE, PATH
from gateway.oauth.account import FRESH_S, SESSION_S
from gateway.oauth.errors import InvalidClientError, InvalidGrantError
from gateway.oauth.signin import SignedIn
from policies.facts import Role
from tenants.idp import IdentityProvider
from tests.integration.oauth.test_pages import Form
from tests.integration.oauth.test_second_factor import passkey_options, post, title
from tests.kit.passkey import Authenticator
from tests.unit.oauth.conftest import ACME, ADA, BY, HERE, PASSWORD, Bench
from tests.unit.oauth.test_factors import app_of, demand, member, passkey_of, second

Http = AsyncTestClient[Litestar]
WHO = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD}
NEW = "another good password"


async def signed_in(client: Http, **who: str) -> httpx.Response:
    """The page, for who has no second factor."""
    answer = await post(client, await client.get(PATH), PATH, **{**WHO, **who}, action="ask")
    assert (answer.status_code, answer.headers["location"]) == (303, PATH), answer.text
    page = await client.get(PATH)
    assert title(page) == "Your account"
    return page


async def change(client: Http, page: httpx.Response, action: str, **fields: str) -> httpx.Response:
    token = Form(page.text).fields["csrf_token"]
    data = {"csrf_token": token, "action": action, **fields}
    return await client.post(CHANGE, data=data, follow_redirects=False)


def secret_of(page: httpx.Response) -> pyotp.TOTP:
    found = re.search(r"Secret: <code>([A-Z2-7 ]+)</code>", page.text)
    assert found is not None
    return pyotp.TOTP(found[1].replace(" ", ""))


async def test_signing_in_makes_a_session_that_only_the_page_has(client: Http, bench: Bench) -> None:
    page = await signed_in(client)
    assert "ada@acme.example" in page.text
    assert ", this one" in page.text
    form = Form(page.text)
    assert form.active == []
    assert form.visible == form.labels
    token = client.cookies[COOKIE]
    grant = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "orgate-account"}
    refused = await client.post("/oauth/token", data=grant)
    assert (refused.status_code, refused.json()["error"]) == (401, InvalidClientError.code)
    assert (await client.post("/oauth/token", data={**grant, "client_id": "orgate-cli"})).status_code == 400
    assert [note.action for note in await bench.noted()] == ["session.create"]


async def test_the_cookie_is_the_browser_s_alone(client: Http) -> None:
    answer = await post(client, await client.get(PATH), PATH, **WHO, action="ask")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=ogr_[\w-]{{86}}; Path=/; Secure; HttpOnly; SameSite=Lax", cookie)
    planted = "ogr_" + "A" * 86
    client.cookies.clear()
    for value in (planted, "x", ""):
        page = await client.get(PATH, headers={"cookie": f"{COOKIE}={value}"})
        assert "password" in Form(page.text).visible
        assert "org" in Form(page.text).visible


async def test_another_program_s_refresh_token_is_no_session_of_the_page(client: Http, bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    page = await client.get(PATH, headers={"cookie": f"{COOKIE}={token}"})
    assert "org" in Form(page.text).visible


async def test_signing_in_again_ends_the_session_of_before(client: Http, bench: Bench) -> None:
    await signed_in(client)
    before = client.cookies[COOKIE]
    again = await change(client, await client.get(PATH), "sign_out")
    assert again.status_code == 303
    await signed_in(client)
    assert client.cookies[COOKIE] != before
    bench.now += FRESH_S
    held = client.cookies[COOKIE]
    stale = await change(client, await client.get(PATH), "add")
    assert (stale.status_code, title(stale)) == (400, "Your account")
    answer = await post(client, stale, PATH, **WHO, action="ask")
    assert answer.status_code == 303
    assert await bench.service.account.visit(held) is None
    assert await bench.service.account.visit(client.cookies[COOKIE]) is not None


async def test_an_app_is_added_and_removed(client: Http, bench: Bench) -> None:
    page = await signed_in(client)
    assert "You have none." in page.text
    offered = await change(client, page, "add")
    app = secret_of(offered)
    wrong = await post(client, offered, CHANGE, code="000000", action="added")
    assert (wrong.status_code, secret_of(wrong).secret) == (403, app.secret)
    kept = await post(client, wrong, CHANGE, code=app.at(int(bench.now)), name="<b>Phone", action="added")
    codes = re.findall(r"<li><code>([0-9A-Z-]{19})</code></li>", kept.text)
    assert len(codes) == 10
    done = await post(client, kept, CHANGE, action="continue")
    assert (done.status_code, done.headers["location"]) == (303, PATH)
    page = await client.get(PATH)
    assert "&lt;b&gt;Phone" in page.text
    assert "10 recovery codes are left" in page.text
    assert codes[0] not in page.text
    (factor,) = await bench.service.factors.of(ACME, ADA)
    removed = await change(client, page, "remove", factor=factor.id)
    assert "The factor is removed." in removed.text
    assert "You have none." in removed.text
    gone = await change(client, page, "remove", factor=factor.id)
    assert gone.status_code == 400


async def test_a_passkey_beside_an_app_brings_no_other_codes(client: Http, bench: Bench) -> None:
    await signed_in(client)
    await app_of(bench, await member(bench))
    offered = await change(client, await client.get(PATH), "add")
    key = Authenticator()
    sent = {"credential": key.create(passkey_options(offered)), "name": "Laptop", "action": "added"}
    data = {**Form(offered.text).fields, **sent, "code": ""}
    added = await client.post(CHANGE, data=data)
    assert "The factor is added." in added.text
    again = await client.post(CHANGE, data=data)  # the same registration once more
    assert again.status_code == 400
    assert len(await bench.service.factors.of(ACME, ADA)) == 2


async def test_new_recovery_codes_are_shown_once(client: Http, bench: Bench) -> None:
    page = await signed_in(client)
    none = await change(client, page, "codes")
    assert none.status_code == 400
    _, enrolled = await app_of(bench, await member(bench))
    codes = await change(client, page, "codes")
    assert title(codes) == "Recovery codes"
    assert enrolled.codes[0] not in codes.text
    assert [note.action for note in await bench.noted("factor.")] == ["factor.add", "factor.recovery"]


@pytest.mark.parametrize("action", ["add", "added", "remove", "codes"])
async def test_what_changes_how_one_signs_in_wants_a_sign_in_of_just_now(
    client: Http, bench: Bench, action: str
) -> None:
    _, enrolled = await app_of(bench, await member(bench))
    who = SignedIn(await member(bench), ("pwd", "otp", "mfa"), int(bench.now))
    client.cookies.set(COOKIE, await bench.service.account.begin(who, HERE), domain="gateway.example")
    page = await client.get(PATH)
    assert "Authenticator app" in page.text
    bench.now += FRESH_S
    answer = await change(client, page, action, factor=enrolled.factor.id)
    assert answer.status_code == 400
    assert "Sign in again to change this" in answer.text
    assert "password" in Form(answer.text).visible
    assert len(await bench.service.factors.of(ACME, ADA)) == 1


async def test_who_came_by_another_identity_provider_has_their_factors_there(client: Http, bench: Bench) -> None:
    await demand(bench, Role.MEMBER)
    provider = IdentityProvider(org=ACME, issuer="https://id.example", client_id="orgate")
    await bench.control.for_org(ACME).idp.put(provider, 0, BY)
    who = SignedIn(await member(bench), ("fed", "pwd"), int(bench.now))
    client.cookies.set(COOKIE, await bench.service.account.begin(who, HERE), domain="gateway.example")
    page = await client.get(PATH)
    assert "identity provider, which asks for them" in unescape(page.text)
    assert "Add a factor" not in page.text


async def test_a_factor_is_asked_for_there_too(client: Http, bench: Bench) -> None:
    key = Authenticator()
    await passkey_of(bench, await member(bench), key)
    asked = await post(client, await client.get(PATH), PATH, **WHO, action="ask")
    assert title(asked) == "Second factor"
    assert COOKIE not in client.cookies
    sent = {"action": "factor", "credential": key.get(passkey_options(asked))}
    answer = await post(client, asked, PATH, **sent)
    assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    assert ", this one" in (await client.get(PATH)).text


async def test_a_session_ends_by_itself_and_where_a_factor_is_demanded(client: Http, bench: Bench) -> None:
    page = await signed_in(client)
    await demand(bench, Role.MEMBER)
    assert "org" in Form((await client.get(PATH)).text).visible
    await demand(bench)
    assert ", this one" in (await client.get(PATH)).text
    bench.now += SESSION_S
    ended = await change(client, page, "sign_out")
    assert "Your session has ended" in ended.text


async def test_sessions_are_one_s_own(client: Http, bench: Bench) -> None:
    mine = (await bench.login())["refresh_token"]
    bob = await second(bench)
    await bench.join(ACME, bob.id, "bob@acme.example")
    device = await bench.begin()
    await bench.decide(device["user_code"], email="bob@acme.example")
    his = (await bench.redeem(device["device_code"]))["refresh_token"]
    sessions = await bench.service.sessions.page(ACME)
    of_bob = next(one.id for one in sessions[0] if one.member == bob.id)
    of_ada = next(one.id for one in sessions[0] if one.member == ADA)
    page = await signed_in(client)
    assert of_ada in page.text
    assert of_bob not in page.text
    answers = [await change(client, page, "end", session=one) for one in (of_bob, "f" * 32, "../x")]
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    ended = await change(client, page, "end", session=of_ada)
    assert "The session has ended." in ended.text
    with pytest.raises(InvalidGrantError):
        await bench.refresh(mine)
    assert await bench.refresh(his)


async def test_another_password_ends_every_session_but_this_one(client: Http, bench: Bench) -> None:
    session = (await bench.login())["refresh_token"]
    page = await signed_in(client)
    before = client.cookies[COOKIE]
    bench.now += FRESH_S  # the old password is asked for: that is fresh enough
    form = {"password": PASSWORD, "new_password": NEW, "new_password_again": NEW}
    for wrong in ({"new_password": "short", "new_password_again": "short"}, {"new_password_again": "x" * 20}):
        assert (await change(client, page, "password", **{**form, **wrong})).status_code == 400
    bad = await change(client, page, "password", **{**form, "password": "not the password"})
    assert (bad.status_code, title(bad)) == (403, "Your account")
    done = await change(client, page, "password", **form)
    assert done.status_code == 303
    assert client.cookies[COOKIE] != before
    assert await bench.service.account.visit(before) is None
    assert ", this one" in (await client.get(PATH)).text
    with pytest.raises(InvalidGrantError):
        await bench.refresh(session)
    assert [note.action for note in await bench.noted("password.")] == ["password.change"]
    client.cookies.clear()
    assert title(await signed_in(client, password=NEW)) == "Your account"


async def test_guessing_the_old_password_there_is_counted(client: Http) -> None:
    page = await signed_in(client)
    form = {"password": "not the password", "new_password": NEW, "new_password_again": NEW}
    for _ in range(5):
        assert (await change(client, page, "password", **form)).status_code == 403
    locked = await change(client, page, "password", **form)
    assert (locked.status_code, locked.headers["retry-after"]) == (429, "2")


@pytest.mark.parametrize("path", [PATH, CHANGE])
async def test_a_form_from_elsewhere_changes_nothing(client: Http, bench: Bench, path: str) -> None:
    page = await signed_in(client)
    fields = {**Form(page.text).fields, "action": "add"}
    for form, headers in (
        ({**fields, "csrf_token": "A" * 43}, {}),
        ({"action": "add"}, {}),
        (fields, {"sec-fetch-site": "cross-site"}),
    ):
        answer = await client.post(path, data=form, headers=headers)
        assert answer.status_code == 403
        assert "no longer valid" in answer.text
    assert (await client.post(CHANGE, content=b"x" * 20_000)).status_code == 400


async def test_strange_actions_are_said_on_the_page(client: Http) -> None:
    page = await signed_in(client)
    for action in ("", "approve", "x"):
        answer = await change(client, page, action)
        assert (answer.status_code, title(answer)) == (400, "Your account")
