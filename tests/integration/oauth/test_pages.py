"""The two pages: usable without a script, of use to nobody else's site, and drivable by a program."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from gateway.api.oauth.csrf import COOKIE
from tests.unit.oauth.conftest import ACME, ADA, PASSWORD, Bench

Http = AsyncTestClient[Litestar]
JSON = {"accept": "application/json"}
NEW = "another good password"


class Form(HTMLParser):
    """What a browser or a screen reader finds: fields with their labels, and anything that could run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.labels: set[str] = set()
        self.visible: set[str] = set()
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in {"script", "iframe", "object", "img", "link"} or any(name.startswith("on") for name in found):
            self.active.append(tag)
        if tag == "label":
            self.labels.add(found["for"] or "")
        if tag == "input":
            self.fields[found["name"] or ""] = found.get("value") or ""
            if found.get("type") != "hidden":
                self.visible.add(found["id"] or "")


async def _page(client: Http, path: str) -> Form:
    answer = await client.get(path)
    assert answer.status_code == 200
    return Form(answer.text)


async def _device_form(client: Http, **changes: str) -> dict[str, str]:
    device = (await client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})).json()
    uri = device["verification_uri_complete"].removeprefix("https://gateway.example")
    fields = (await _page(client, uri)).fields
    assert fields["user_code"] == device["user_code"]
    filled = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD, "action": "approve"}
    return {**fields, **filled, **changes}


@pytest.mark.parametrize("path", ["/oauth/device", "/oauth/invitation"])
async def test_a_page_is_plain_labelled_and_locked_down(client: Http, path: str) -> None:
    answer = await client.get(path)
    form = Form(answer.text)
    assert form.active == []
    assert form.visible == form.labels
    assert '<html lang="en">' in answer.text
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; form-action 'self'; "
        r"frame-ancestors 'none'; base-uri 'none'",
        policy,
    )
    cookie = headers["set-cookie"]
    assert cookie == f"{COOKIE}={form.fields['csrf_token']}; Path=/; Secure; HttpOnly; SameSite=Strict"


async def test_approving_in_a_browser(client: Http, bench: Bench) -> None:
    answer = await client.post("/oauth/device", data=await _device_form(client))
    assert answer.status_code == 200
    assert "The device is signed in" in answer.text
    assert [c.action for c in await bench.noted("session.")] == []  # only the device's redemption makes a session


async def test_approving_and_refusing_by_a_program(client: Http) -> None:
    for action, status in (("approve", "approved"), ("deny", "denied")):
        answer = await client.post("/oauth/device", data=await _device_form(client, action=action), headers=JSON)
        assert (answer.status_code, answer.json()) == (200, {"status": status})


async def test_a_mistake_is_shown_on_the_page_and_keeps_what_was_typed_but_the_password(client: Http) -> None:
    form = await _device_form(client, password="wrong password", email='"><b>@x.example')
    answer = await client.post("/oauth/device", data=form)
    assert answer.status_code == 403
    assert 'role="alert"' in answer.text
    assert "<title>Error: " in answer.text
    assert "wrong password" not in answer.text
    assert "<b>" not in answer.text
    again = Form(answer.text).fields
    assert again["email"] == '"><b>@x.example'
    assert again["user_code"] == form["user_code"]
    answer = await client.post("/oauth/device", data=await _device_form(client, password="wrong"), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


async def test_locking_out_says_when_to_come_back(client: Http) -> None:
    form = await _device_form(client, password="wrong password")
    for _ in range(5):
        await client.post("/oauth/device", data=form)
    page = await client.post("/oauth/device", data=form)
    assert (page.status_code, page.headers["retry-after"]) == (429, "2")
    answer = await client.post("/oauth/device", data=form, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("case", ["no-token", "other-token", "no-cookie", "short", "cross-site"])
@pytest.mark.parametrize("path", ["/oauth/device", "/oauth/invitation"])
async def test_a_form_from_elsewhere_is_refused(client: Http, path: str, case: str) -> None:
    form = await _device_form(client)
    headers = dict(JSON)
    if case == "no-token":
        del form["csrf_token"]
    elif case == "other-token":
        form["csrf_token"] = "A" * 43
    elif case == "no-cookie":
        client.cookies.clear()
    elif case == "short":
        client.cookies.clear()
        headers["cookie"] = f"{COOKIE}=a"
        form["csrf_token"] = "a"
    else:
        headers["sec-fetch-site"] = "cross-site"
    answer = await client.post(path, data=form, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "invalid_request")
    shown = await client.post(path, data=form, headers={**headers, "accept": "text/html"})
    assert shown.status_code == 403
    assert Form(shown.text).fields["csrf_token"]


async def test_accepting_an_invitation(client: Http, bench: Bench) -> None:
    invitation = await bench.service.invite(ACME, ADA)
    fields = (await _page(client, invitation.url.removeprefix("https://gateway.example"))).fields
    assert fields["org"] == "acme"
    form = {**fields, "email": "ada@acme.example", "code": invitation.code, "password": NEW, "password_again": NEW}
    short = await client.post("/oauth/invitation", data={**form, "password": "a", "password_again": "a"})
    assert short.status_code == 400
    assert "12 to 256 characters" in short.text
    done = await client.post("/oauth/invitation", data=form)
    assert (done.status_code, "Your password is set" in done.text) == (200, True)
    again = await client.post("/oauth/invitation", data=form, headers=JSON)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    signed_in = await client.post("/oauth/device", data=await _device_form(client, password=NEW), headers=JSON)
    assert signed_in.json() == {"status": "approved"}


async def test_two_tabs_share_one_token(client: Http) -> None:
    first, second = await _page(client, "/oauth/device"), await _page(client, "/oauth/invitation")
    assert first.fields["csrf_token"] == second.fields["csrf_token"]


@pytest.mark.parametrize(
    "query", ["user_code=%3Cscript%3E", "user_code=a&user_code=b", "%ff", "user_code=%ff", "x" * 3000]
)
async def test_a_strange_link_still_shows_the_page(client: Http, query: str) -> None:
    answer = await client.get(f"/oauth/device?{query}")
    assert answer.status_code == 200
    assert Form(answer.text).active == []


async def test_who_signed_in_is_told_who_asks_for_what_before_they_say_yes(client: Http, bench: Bench) -> None:
    filled = await _device_form(client, action="ask")
    asked = await client.post("/oauth/device", data=filled)
    assert asked.status_code == 200
    for said in ("The Orgate command line", "ada@acme.example of acme", filled["user_code"]):
        assert said in asked.text
    assert "your organization&#x27;s models, and to use the admin API with your roles" in asked.text
    page = Form(asked.text)
    assert page.visible == set()
    assert set(page.fields) == {"csrf_token", "user_code", "ticket"}
    assert PASSWORD not in asked.text
    done = await client.post("/oauth/device", data={**page.fields, "action": "approve"})
    assert "The device is signed in" in done.text
    again = await client.post("/oauth/device", data={**page.fields, "action": "approve"})
    assert again.status_code == 400


async def test_an_editor_is_not_said_to_ask_for_the_admin_api(client: Http) -> None:
    form = {"client_id": "orgate-editor"}
    device = (await client.post("/oauth/device_authorization", data=form)).json()
    filled = await _device_form(client, action="ask", user_code=device["user_code"])
    asked = await client.post("/oauth/device", data=filled)
    assert "An editor" in asked.text
    assert "admin API" not in asked.text


async def test_who_saw_who_asks_may_refuse(client: Http) -> None:
    asked = await client.post("/oauth/device", data=await _device_form(client, action="ask"))
    done = await client.post("/oauth/device", data={**Form(asked.text).fields, "action": "deny"})
    assert "The sign-in was refused" in done.text


async def test_a_ticket_is_of_one_code_one_browser_and_five_minutes(client: Http, bench: Bench) -> None:
    asked = await client.post("/oauth/device", data=await _device_form(client, action="ask"), headers=JSON)
    assert asked.json()["client"] == "orgate-cli"
    other = await _device_form(client, action="approve", org="", email="", password="")
    bad = await client.post("/oauth/device", data={**other, "ticket": asked.json()["ticket"]}, headers=JSON)
    assert bad.json()["error_description"] == "this page is too old; sign in again"
    page = Form((await client.post("/oauth/device", data=await _device_form(client, action="ask"))).text)
    bench.now += 301
    late = await client.post("/oauth/device", data={**page.fields, "action": "approve"})
    assert late.status_code == 400
    assert "This page is too old" in late.text


async def test_wrong_codes_count_when_asked_about_too(client: Http) -> None:
    answers = [
        await client.post(
            "/oauth/device", data=await _device_form(client, action="ask", user_code="BBBB-BBBB"), headers=JSON
        )
        for _ in range(11)
    ]
    assert [answer.json()["error"] for answer in answers[:10]] == ["invalid_grant"] * 10
    assert answers[10].status_code == 429
